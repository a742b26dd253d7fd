"""A Dockerfile as values, as far as ours goes: stages, and their instructions with flags and words.

Tests read it for what it says, and carry it out where no image engine is at hand.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from string import Template

_FLAG = re.compile(r"--([a-z-]+)=(\S+)\s+")


@dataclass(frozen=True, slots=True)
class Instruction:
    """`RUN --mount=type=cache,… pip install …` has the name RUN, the flag `mount`, and the rest as value."""

    name: str
    value: str
    flags: tuple[tuple[str, str], ...] = ()

    def flag(self, name: str) -> str | None:
        return next((value for flag, value in self.flags if flag == name), None)

    @property
    def exec_form(self) -> bool:
        return self.value.startswith("[")

    @property
    def words(self) -> list[str]:
        return [str(each) for each in json.loads(self.value)] if self.exec_form else shlex.split(self.value)


@dataclass(slots=True)
class Stage:
    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]

    def one(self, name: str) -> Instruction:
        """Raises ValueError where it is there more than once, or not at all."""
        [found] = self.all(name)
        return found

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """`base` and what ENV makes of it."""
        made = dict(base)
        for each in self.all("ENV"):
            for word in each.words:
                key, _, value = word.partition("=")
                made[key] = Template(value).substitute(made)
        return made


def stages(text: str) -> list[Stage]:
    """In their order. Arguments before the first stage have their defaults."""
    found: list[Stage] = []
    arguments: dict[str, str] = {}
    for each in _instructions(text):
        if each.name == "FROM":
            image, _, name = each.value.partition(" AS ")
            found.append(Stage(Template(image).substitute(arguments), name))
        elif found:
            found[-1].instructions.append(each)
        else:
            name, _, value = each.value.partition("=")
            arguments[name] = value
    return found


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        flags = []
        while name != "HEALTHCHECK" and (found := _FLAG.match(rest)):
            flags.append((found[1], found[2]))
            rest = rest[found.end() :]
        if name == "HEALTHCHECK":
            options, _, rest = rest.partition("CMD ")
            flags = [(flag, value) for flag, value in re.findall(r"--([a-z-]+)=(\S+)", options)]
        yield Instruction(name, rest.strip(), tuple(flags))
