"""The model on its way: loaded in a thread of its own, with every step told to whoever asked for it.

Each face waits for the same thing in its own manner; what is common to all of them is here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from moorage_worker.errors import LoadFailed, cause_line
from moorage_worker.loading import load_model
from moorage_worker.readiness import LoadedModel, Readiness, Stage
from moorage_worker.settings import WorkerSettings
from moorage_worker.state_reports import LAST_SECONDS, Reporter, State

log = logging.getLogger(__name__)

Watcher = Callable[[Stage, float | None], None]  # the stage and the per cent of it, in the loading thread


class Arrival:
    """`loaded` is the model once it answers, or the error that ends all hope of it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._reporter = Reporter(settings.reports)
        self._watchers: list[Watcher] = []
        self._lock = threading.Lock()
        self.readiness = Readiness(self._loading)
        self.loaded: Future[LoadedModel] = Future()

    def begin(self) -> None:
        threading.Thread(target=self._load, name="load", daemon=True).start()

    @contextmanager
    def watched(self, watcher: Watcher) -> Iterator[None]:
        """Tell `watcher` the stage now, and every step after it."""
        watcher(self.readiness.stage, None)
        with self._lock:
            self._watchers.append(watcher)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(watcher)

    def _loading(self, stage: Stage, percent: float | None) -> None:
        self._reporter.tell(State("loading", stage.value, percent))
        with self._lock:
            watchers = tuple(self._watchers)
        for watcher in watchers:
            watcher(stage, percent)

    def _load(self) -> None:
        try:
            model = load_model(self._settings, self.readiness, self.readiness.progress)
        except Exception as error:
            if not isinstance(error, LoadFailed):  # a bug ends the process too, but leaves its traceback
                log.exception("unexpected error while loading")
            self._reporter.tell(State("failed", cause=cause_line(error)))
            self._reporter.settle(LAST_SECONDS)
            self.loaded.set_exception(error)
            return
        self.readiness.model = model
        log.info(
            "ready in %.2f s: engine %s, task %s, version %s",
            model.load_seconds,
            model.engine_name,
            model.engine.task,
            model.version,
        )
        self._reporter.tell(State("ready", load_seconds=model.load_seconds, from_cache=model.from_cache))
        self.loaded.set_result(model)
