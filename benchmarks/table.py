"""One row for each figure: what was measured, what was aimed at, and how the two compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """`aim` None: a figure for information. `ratio` is above 1 where the aim is passed, whichever way it
    points."""

    what: str
    measured: float
    unit: str
    aim: float | None = None
    at_most: bool = False  # the aim is a bound from above

    @property
    def ratio(self) -> float | None:
        if self.aim is None:
            return None
        above, below = (self.aim, self.measured) if self.at_most else (self.measured, self.aim)
        return above / below if below > 0 else float("inf")

    def cells(self) -> tuple[str, str, str, str]:
        sign = "≤" if self.at_most else "≥"
        aim = "" if self.aim is None else f"{sign} {_number(self.aim)} {self.unit}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.what, f"{_number(self.measured)} {self.unit}", aim, ratio


def table(rows: Sequence[Row]) -> str:
    head = ("what", "measured", "aim", "ratio")
    cells = [head, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    lines = [
        f"{what:<{widths[0]}}  {measured:>{widths[1]}}  {aim:>{widths[2]}}  {ratio:>{widths[3]}}"
        for what, measured, aim, ratio in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
