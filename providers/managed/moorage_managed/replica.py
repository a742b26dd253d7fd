"""One replica inside its supervisor: started, asked whether it is ready, started again, stopped.

A small state machine that the supervisor's loop ticks. It never blocks and never sleeps.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from moorage_managed.limits import Limits, group_key, impose
from moorage_managed.log_files import LogWriter
from moorage_managed.probe import Probe
from moorage_managed.processes import (
    MARK_VARIABLE,
    REPLICA_VARIABLE,
    ProcessId,
    exit_words,
    in_groups,
    kill_all,
    marked,
)
from moorage_managed.restarts import Crashes, GiveUp, after_crash
from moorage_managed.snapshot import ReplicaSnapshot
from moorage_managed.spawn import start
from moorage_managed.spec import EndpointSpec
from moorage_managed.tcp_ports import FreePorts

FIRST_PROBE = 0.04
STARTING_PROBE = 0.05
STARTING_PROBE_CAP = 0.5
STARTING_PROBE_FACTOR = 1.15
PROBE_TIMEOUT = 5.0
SWEEP_AGAIN = 0.01
READ_BYTES = 64 * 1024


@dataclass(slots=True)
class Surroundings:
    """What the replicas of one supervisor share."""

    folder: Path
    work: Path
    selector: selectors.BaseSelector
    ports: FreePorts
    log: LogWriter


class Phase(Enum):
    WAITING = auto()  # until `due`, then it is started
    RUNNING = auto()
    STOPPING = auto()  # told to stop; killed at `due`
    SWEEPING = auto()  # the worker is over; what it left behind is killed
    STOPPED = auto()


class Next(Enum):
    """What comes after the sweep."""

    CRASHED = auto()
    AGAIN = auto()
    STOP = auto()


class Replica:
    def __init__(self, id_: str, spec: EndpointSpec, around: Surroundings, now: float) -> None:
        self.id = id_
        self.spec = spec
        self.phase = Phase.WAITING
        self.due = now
        self.stage: str | None = None
        self.gave_up: str | None = None
        self.limits: Limits | None = None
        self.pid: int | None = None
        self._around = around
        self._next = Next.CRASHED
        self._state = "starting"
        self._message: str | None = None
        self._how = ""
        self._process: ProcessId | None = None
        self._port: int | None = None
        self._pipe: int | None = None
        self._probe: Probe | None = None
        self._interval = STARTING_PROBE
        self._good_at = now  # the last good answer
        self._started_at = now
        self._restarts = 0
        self._crashes = Crashes()

    @property
    def stopped(self) -> bool:
        return self.phase is Phase.STOPPED

    @property
    def leaving(self) -> bool:
        """Stopped, or being stopped, because somebody asked for it."""
        return self._next is Next.STOP

    @property
    def ready(self) -> bool:
        return self._state == "ready"

    def snapshot(self) -> ReplicaSnapshot:
        return ReplicaSnapshot(self.id, self._state, self._process, self._port, self._restarts, self._message)

    def tick(self, now: float) -> float | None:
        """Does what is due; gives the time of the next tick, None when only an event can change anything."""
        if self.phase is Phase.WAITING and now >= self.due:
            self._start(now)
        elif self.phase is Phase.RUNNING:
            self._look(now)
        elif self.phase is Phase.STOPPING and now >= self.due:
            self._kill_group()
            self.due = now + 1.0
        elif self.phase is Phase.SWEEPING and now >= self.due:
            self._sweep(now)
        if self.phase is Phase.STOPPED:
            return None
        if self.phase is Phase.RUNNING and self._probe is not None and not self._probe.done:
            return self._probe.deadline
        return self.due

    def stop(self, now: float) -> None:
        """Ends it for good."""
        self._next = Next.STOP
        if self.phase is Phase.WAITING:
            self._become_stopped()
        elif self.phase is Phase.RUNNING:
            self._terminate(now)

    def restart(self, spec: EndpointSpec, now: float) -> None:
        """Starts it afresh with another spec; what happened before does not count."""
        self.spec = spec
        if self.phase is Phase.STOPPED:
            self.phase, self.due, self.gave_up, self._state = Phase.WAITING, now, None, "starting"
        elif self.phase is not Phase.WAITING:
            self._next, self._state = Next.AGAIN, "restarting"
            if self.phase is Phase.RUNNING:
                self._terminate(now)
        self._crashes = Crashes()

    def exited(self, status: int, now: float) -> None:
        """The worker is over (but not reaped yet, so that its group's number is still its own)."""
        self._kill_group()
        if self.phase is Phase.RUNNING:  # else we ended it, and know why
            self._how = exit_words(status)
        if self.limits is not None and self.limits.out_of_memory():
            gb = self.spec.memory_limit / 10**9
            self._how = f"ran out of memory: it may have {gb:.2f} GB ({self._how})"
        if self.phase is Phase.RUNNING:
            self._next = Next.CRASHED
        self.pid = None
        self._drop_probe()
        self.phase, self.due = Phase.SWEEPING, now

    # -- steps --

    def _start(self, now: float) -> None:
        around = self._around
        self._port = around.ports.take(self.spec.host)
        self.limits = impose(group_key(around.folder, self.id), self.spec.memory_limit, self.spec.cpus)
        command = (*self.spec.command, "--port", str(self._port))
        marks = {MARK_VARIABLE: str(around.folder), REPLICA_VARIABLE: self.id}
        self._pipe, output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(output, True)
        self.pid = start(command, {**self.spec.env, **marks}, around.work, output, self.limits.enter)
        os.close(output)
        self._process = ProcessId.of(self.pid)
        around.selector.register(self._pipe, selectors.EVENT_READ, self._read)
        around.log.say(f"replica {self.id}: started as process {self.pid} on port {self._port}")
        self.phase, self._next, self.stage = Phase.RUNNING, Next.CRASHED, None
        self._started_at = self._good_at = now
        self._interval = STARTING_PROBE
        self.due = now + FIRST_PROBE

    def _look(self, now: float) -> None:
        probe = self._probe
        if probe is None:
            if now >= self.due and self._port is not None:
                patience = min(PROBE_TIMEOUT, self.spec.timings.unhealthy_after)
                self._probe = Probe(self._around.selector, (self.spec.host, self._port), now + patience)
            return
        if not probe.done and now < probe.deadline:
            return
        probe.close()
        self._probe = None
        if probe.answer is not None and probe.answer.ready:
            self._answered(now)
        else:
            self.stage = probe.answer.stage if probe.answer is not None else self.stage
            self._not_ready(now)

    def _answered(self, now: float) -> None:
        if not self.ready:
            seconds = now - self._started_at
            self._around.log.say(f"replica {self.id}: ready after {seconds:.2f} s")
            self._state, self._message, self.stage = "ready", None, None
            self._crashes = self._crashes.ready()
        self._good_at = now
        self.due = now + self.spec.timings.ready_probe

    def _not_ready(self, now: float) -> None:
        if not self.ready:
            self.due = now + self._interval
            self._interval = min(STARTING_PROBE_CAP, self._interval * STARTING_PROBE_FACTOR)
            return
        patience = self.spec.timings.unhealthy_after
        if now - self._good_at < patience:
            self.due = now + min(STARTING_PROBE_CAP, self.spec.timings.ready_probe)
            return
        self._how = f"has not answered /ready for {patience:g} s"
        self._around.log.say(f"replica {self.id}: {self._how}; it is started again")
        self._next, self._state, self._message = Next.CRASHED, "restarting", f"the worker {self._how}"
        self._terminate(now)

    def _terminate(self, now: float) -> None:
        self._drop_probe()
        self.phase, self.due = Phase.STOPPING, now + self.spec.timings.stop_grace
        self._signal_group(signal.SIGTERM)

    def _sweep(self, now: float) -> None:
        groups = [str(g) for g in self.limits.groups] if self.limits is not None else []
        mine = set(marked(str(self._around.folder), self.id)) | set(in_groups(groups))
        if kill_all(mine):
            self.due = now + SWEEP_AGAIN
            return
        self._let_go()
        if self._next is Next.STOP:
            self._become_stopped()
        elif self._next is Next.AGAIN:
            self.phase, self.due, self._state, self._message = Phase.WAITING, now, "starting", None
        else:
            self._after_crash(now)

    def _after_crash(self, now: float) -> None:
        self._crashes = self._crashes.crashed(now)
        step = after_crash(self._crashes, self._how, self.spec.timings.backoff, _luck())
        if isinstance(step, GiveUp):
            self.gave_up = step.reason
            self._around.log.say(f"replica {self.id}: {step.reason}; it is not started again")
            self._become_stopped()
            self._message = step.reason
            return
        self._around.log.say(f"replica {self.id}: the worker {self._how}; again in {step.after:.1f} s")
        self._state, self._message = "restarting", f"the worker {self._how}"
        self._restarts += 1
        self.phase, self.due = Phase.WAITING, now + step.after

    def _become_stopped(self) -> None:
        self.phase, self._state, self._message, self.stage = Phase.STOPPED, "stopped", None, None

    def _let_go(self) -> None:
        """Gives back what a running worker holds."""
        if self._pipe is not None:
            self._read()
            if self._pipe is not None:
                self._close_pipe(self._pipe)
        if self._port is not None:
            self._around.ports.give_back(self._port)
        if self.limits is not None:
            self.limits.remove()
        self._port = self._process = self.limits = None

    def _read(self) -> None:
        pipe = self._pipe
        while pipe is not None:
            try:
                part = os.read(pipe, READ_BYTES)
            except BlockingIOError:
                return
            if not part:
                self._close_pipe(pipe)
                return
            self._around.log.feed(self.id, part)
            if len(part) < READ_BYTES:
                return

    def _close_pipe(self, pipe: int) -> None:
        self._around.selector.unregister(pipe)
        os.close(pipe)
        self._pipe = None
        self._around.log.finish(self.id)

    def _drop_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _kill_group(self) -> None:
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        """The worker is not reaped yet, so the group's number is its own."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def _luck() -> float:
    """In [0, 1), without the time it takes to import `random`."""
    return int.from_bytes(os.urandom(4), "big") / 2**32
