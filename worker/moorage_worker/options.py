"""An option of the command line that the environment can give too. Errors name where a value came from."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """`variable` stands for the flag where that is not given. An empty one counts as not set."""

    flag: str
    help: str
    variable: str | None = None
    type: Callable[[str], object] = str
    choices: tuple[str, ...] = ()
    default: object = None

    def add_to(self, parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        """A wrong value ends the process as argparse does, by the name of the flag or of the variable."""
        text = environ.get(self.variable or "", "").strip()
        try:
            default = self._read(text) if text else self.default
        except argparse.ArgumentTypeError as error:
            parser.error(f"{self.variable} {error}")
        parser.add_argument(
            self.flag,
            type=self.type,
            choices=self.choices or None,
            default=default,
            help=self.help if self.variable is None else f"{self.help} [{self.variable}]",
        )

    def _read(self, text: str) -> object:
        if self.choices and text not in self.choices:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(self.choices)}, got {text!r}")
        return self.type(text)


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """The type of an option; bounds are inclusive."""

    low: int
    high: int

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = self.low - 1
        if not self.low <= value <= self.high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {self.low} to {self.high}, got {text!r}"
            )
        return value
