"""One row for each figure: what was measured, what was aimed at, and how the two compare.

Or, where one thing is measured in several places, a column for each place, compared with the first.
"""

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


@dataclass(frozen=True, slots=True)
class Line:
    """One figure in several places; None where it was not measured."""

    what: str
    unit: str
    values: Sequence[float | None]


def side_by_side(places: Sequence[str], lines: Sequence[Line]) -> str:
    """A column for each place, and behind all but the first its ratio to the first."""
    head = ["", places[0]]
    for place in places[1:]:
        head += [place, "ratio"]
    cells = [head, *(_line_cells(line) for line in lines)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    texts = []
    for what, *figures in cells:
        aligned = (f"{cell:>{width}}" for cell, width in zip(figures, widths[1:], strict=True))
        texts.append("  ".join([f"{what:<{widths[0]}}", *aligned]))
    texts.insert(1, "-" * len(texts[0]))
    return "\n".join(texts)


def _line_cells(line: Line) -> list[str]:
    first, *others = line.values
    cells = [line.what, _measured(first, line.unit)]
    for value in others:
        ratio = "" if value is None or not first else f"{value / first:.2f}"
        cells += [_measured(value, line.unit), ratio]
    return cells


def _measured(value: float | None, unit: str) -> str:
    return "" if value is None else f"{_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
