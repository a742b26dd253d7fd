"""Carries out a Dockerfile in rooms: each stage from nothing, with what COPY and .dockerignore let in."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from docker.utils.build import exclude_paths

from .recipe import Instruction, Stage, stages
from .room import BASE_ENV, Room

# How package clients reach their registries from here is the machine's affair, not the Dockerfile's.
_OF_THE_MACHINE = ("PIP_CERT", "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_PREFIXES = ("UV_", "PIP_INDEX", "PIP_EXTRA_INDEX", "PIP_TRUSTED", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Image:
    """What the last stage came to: its files, and how its process begins."""

    room: Room
    environ: dict[str, str]
    user: int
    command: list[str]
    healthcheck: list[str]


def build(context: Path, folder: Path) -> Image:
    """Raises AssertionError with what a step printed."""
    allowed = in_context(context)
    rooms: dict[str, Room] = {}
    for number, stage in enumerate(stages((context / "Dockerfile").read_text(encoding="utf-8"))):
        room = Room.empty(folder / (stage.name or f"stage-{number}"))
        if not rooms:  # the base image has pip
            room.run(["python", "-m", "ensurepip"], BASE_ENV)
        rooms[stage.name] = room
        environ = stage.environment(BASE_ENV)
        for each in stage.instructions:
            _carry_out(each, room, rooms, context, allowed, environ)
    return Image(
        room,
        environ,
        int(stage.one("USER").value.partition(":")[0]),
        stage.one("ENTRYPOINT").words + stage.one("CMD").words,
        stage.one("HEALTHCHECK").words,
    )


def in_context(context: Path) -> set[str]:
    """The files, relative, that .dockerignore lets into the build."""
    lines = (context / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    found: set[str] = exclude_paths(str(context), patterns)
    return {path for path in found if (context / path).is_file()}


def copied(stage: Stage, allowed: set[str]) -> set[str]:
    """The files of the context that a stage copies."""
    sources = [s for each in stage.all("COPY") if not each.flag("from") for s in each.words[:-1]]
    return {path for path in allowed for source in sources if path == source or path.startswith(f"{source}/")}


def _carry_out(
    each: Instruction,
    room: Room,
    rooms: dict[str, Room],
    context: Path,
    allowed: set[str],
    environ: dict[str, str],
) -> None:
    match each.name:
        case "WORKDIR":
            room.working_directory = each.value
            room.at(each.value).mkdir(parents=True, exist_ok=True)
        case "COPY" if (source := each.flag("from")) is not None:
            for path in each.words[:-1]:
                _link(rooms[source].at(path), room.at(each.words[-1]))
        case "COPY":
            _copy(each.words[:-1], room.inside(each.words[-1]), context, allowed)
        case "RUN":
            caches = [value for flag, value in each.flags if flag == "mount"]
            environ = {**_machine(), **environ}
            room.run(["/bin/sh", "-c", each.value], environ, mounts=dict(_cache(c) for c in caches))
        case "ENV" | "LABEL" | "VOLUME" | "EXPOSE" | "USER" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD":
            pass  # says how it is run
        case _:
            raise ValueError(f"{each.name} {each.value} is no step that can be carried out without an engine")


def _copy(sources: list[str], to: Path, context: Path, allowed: set[str]) -> None:
    for source in sources:
        inside = [path for path in allowed if path == source or path.startswith(f"{source}/")]
        if not inside:
            raise FileNotFoundError(f"COPY {source}: not in the build's context")
        for path in inside:
            target = to / (Path(path).name if path == source else os.path.relpath(path, source))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(context / path, target)


def _link(source: Path, to: Path) -> None:
    """A copy of what nobody writes to any more."""
    shutil.copytree(source, to, symlinks=True, copy_function=os.link)


def _cache(mount: str) -> tuple[Path, str]:
    """The machine's own cache in the place of the build's."""
    options = dict(part.partition("=")[::2] for part in mount.split(","))
    assert options["type"] == "cache", mount
    here = Path.home() / ".cache" / Path(options["target"]).name
    here.mkdir(parents=True, exist_ok=True)
    return here, options["target"]


def _machine() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _OF_THE_MACHINE or name.upper().startswith(_PREFIXES)
    }
