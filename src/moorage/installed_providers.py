"""The providers that are installed beside the service, by the entry point that each of them names."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from moorage.ports.outside import Resolve
from moorage.ports.provider import Provider, ProviderConfig
from moorage.settings import Settings


def load_providers(
    settings: Settings, environ: Mapping[str, str], resolve: Resolve | None = None
) -> dict[str, Provider]:
    """One of each installed distribution that names the entry point. Needs the running loop."""
    visible = {name: value for name, value in environ.items() if name.startswith("MOORAGE_")}
    installation = settings.installation or _made_once(settings.data_dir / "installation")
    machine = machine_of(settings)
    found: dict[str, Provider] = {}
    for entry in sorted(entry_points(group="moorage.providers"), key=lambda e: e.name):
        folder = (settings.data_dir / entry.name).resolve()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        make: Callable[[ProviderConfig], Provider] = entry.load()
        short = f"{entry.name.upper()}_"  # a provider's own prefix is understood without ours
        own = {f"MOORAGE_{name}": value for name, value in environ.items() if name.startswith(short)}
        if "DOCKER_IMAGE" in environ:
            own.setdefault(f"MOORAGE_{short}IMAGE", environ["DOCKER_IMAGE"])
        config = ProviderConfig(folder, {**own, **visible}, settings.hub_url, installation, resolve, machine)
        found[entry.name] = make(config)
    return found


def machine_of(settings: Settings) -> str:
    """The name of this machine for as long as its data directory lives."""
    return settings.machine or _made_once(settings.data_dir / "machine")


def _made_once(path: Path) -> str:
    """The text of the file, made up when it is missing; of several processes, the first one's stands."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError), path.open("x") as file:
        file.write(secrets.token_hex(8))
    return path.read_text().strip()
