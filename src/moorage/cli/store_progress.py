"""How far a copy is, on standard error: a line for each collection, and one that changes for who watches."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Self

from rich.status import Status
from rich.text import Text

from moorage.cli.output import Output


class StoreProgress(AbstractContextManager["StoreProgress"]):
    """`tell` is a `moorage.copying.Progress`. Collections that turn out to be empty are not spoken of."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._status: Status = out.notes.status("…")
        self._at: tuple[str, str, int] | None = None

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()
        if error is None:
            self._end()

    def tell(self, stage: str, collection: str, rows: int) -> None:
        if self._at is not None and self._at[:2] != (stage, collection):
            self._end()
        self._at = (stage, collection, rows)
        self._status.update(_line(stage, collection, rows))

    def reading(self, collection: str) -> Callable[[int], None]:
        """Where nothing is copied."""
        return partial(self.tell, "reading", collection)

    def _end(self) -> None:
        if self._at is not None:
            self._out.note(_line(*self._at))


def _line(stage: str, collection: str, rows: int) -> Text:
    return Text.assemble((f"{stage:<10} ", "dim"), f"{collection:<20} {rows:>9}")
