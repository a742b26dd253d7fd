"""The supervisor of one endpoint: a small process that outlives the service.

    python -m moorage_managed.shim <endpoint folder> [--lock-fd N]

It holds the folder's lock for life, so that one name never has two sets of workers: a second supervisor
finds the lock taken and exits. It reads `spec.json`, keeps that many workers running, and writes what is true
to `state.json`. SIGTERM: stop everything and exit. SIGHUP: read the spec again. It has one thread, needs
little beyond the standard library, and starts in well under a tenth of a second.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from pathlib import Path

from moorage_managed.announce import announce
from moorage_managed.folders import DataFolder, EndpointFolder, write_whole
from moorage_managed.leftovers import kill_leftovers
from moorage_managed.log_files import LogWriter
from moorage_managed.processes import ProcessId
from moorage_managed.replica import Replica, Surroundings
from moorage_managed.snapshot import Snapshot
from moorage_managed.spawn import adopt_grandchildren
from moorage_managed.spec import EndpointSpec
from moorage_managed.tcp_ports import FreePorts

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Supervisor:
    def __init__(self, folder: EndpointFolder, spec: EndpointSpec, me: ProcessId) -> None:
        self._folder = folder
        self._spec = spec
        self._data = DataFolder(folder.path.parent)
        self._selector = selectors.DefaultSelector()
        self._told = Snapshot(me)
        self._asked: set[int] = set()
        self._stopping = False
        self._replicas: list[Replica] = []
        folder.tmp.mkdir(exist_ok=True, mode=0o700)
        self._around = Surroundings(
            folder.path,
            folder.tmp,
            self._selector,
            FreePorts(self._data.ports_file),
            LogWriter(folder.logs),
        )

    def run(self) -> None:
        self._listen_to_signals()
        adopt_grandchildren()
        self._end_predecessors()
        self._publish(force=True)
        if self._folder.deleting:
            return
        self._scale(time.monotonic())
        while True:
            now = time.monotonic()
            due = [at for r in self._replicas if (at := r.tick(now)) is not None]
            self._replicas = [r for r in self._replicas if not self._leaves(r)]
            self._publish()
            if self._stopping and all(r.stopped for r in self._replicas):
                return
            # A millisecond at least: a tick that has nothing to do must not become a busy loop.
            timeout = max(0.001, min(due) - time.monotonic()) if due else None
            for key, _ in self._selector.select(timeout):
                key.data()
            self._obey(time.monotonic())

    # -- signals --

    def _listen_to_signals(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda n, _: self._asked.add(n))
        signal.signal(signal.SIGINT, signal.SIG_IGN)

        def drain() -> None:
            os.read(read, 4096)

        self._selector.register(read, selectors.EVENT_READ, drain)

    def _obey(self, now: float) -> None:
        asked, self._asked = self._asked, set()
        if signal.SIGCHLD in asked:
            self._reap(now)
        if signal.SIGHUP in asked and not self._stopping:
            self._reload(now)
        if signal.SIGTERM in asked and not self._stopping:
            self._stopping = True
            for one in self._replicas:
                one.stop(now)

    def _reap(self, now: float) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            worker = next((r for r in self._replicas if r.pid == ended.si_pid), None)
            if worker is not None:
                killed = ended.si_code != os.CLD_EXITED
                worker.exited(ended.si_status if killed else ended.si_status << 8, now)
            os.waitpid(ended.si_pid, 0)  # reaps; an orphan of a worker is nobody's replica

    # -- what should run --

    def _reload(self, now: float) -> None:
        spec = self._folder.spec()
        if spec is None:
            return
        changed = spec.worker != self._spec.worker
        self._spec = spec
        self._around.log.say(f"told to run {spec.replicas} replica(s)")
        if changed:
            for one in self._replicas:
                one.restart(spec, now)
        self._scale(now)

    def _scale(self, now: float) -> None:
        wanted = {str(index) for index in range(self._spec.replicas)}
        have = {one.id for one in self._replicas}
        for one in self._replicas:
            if one.id not in wanted:
                one.stop(now)
            elif one.leaving:  # wanted again before it was gone
                one.restart(self._spec, now)
        for id_ in sorted(wanted - have, key=int):
            self._replicas.append(Replica(id_, self._spec, self._around, now))

    def _leaves(self, one: Replica) -> bool:
        """A replica that was scaled away leaves the list when nothing of it is left."""
        return one.stopped and int(one.id) >= self._spec.replicas

    def _end_predecessors(self) -> None:
        """A supervisor that was killed may have left processes; not one worker starts beside them."""
        while kill_leftovers(self._folder):
            time.sleep(0.005)

    # -- what is told --

    def _publish(self, *, force: bool = False) -> None:
        snapshot = self._snapshot()
        if snapshot == self._told and not force:
            return
        write_whole(self._folder.state_file, snapshot.to_json())
        self._told = snapshot
        announce(self._data.notify, self._folder.name)

    def _snapshot(self) -> Snapshot:
        ready = any(r.ready for r in self._replicas)
        reason = next((r.gave_up for r in self._replicas if r.gave_up is not None), None)
        trouble = reason is not None and not ready
        limits = [r.limits for r in self._replicas if r.limits is not None]
        return Snapshot(
            self._told.shim,
            tuple(r.snapshot() for r in self._replicas),
            stage=next((r.stage for r in self._replicas if r.stage is not None), None),
            trouble="crash_loop" if trouble else None,
            message=reason if trouble else None,
            log_tail=tuple(self._around.log.tail) if trouble else (),
            limits=limits[0].means if limits else self._told.limits,
            cgroups=tuple(str(group) for one in limits for group in one.groups),
            worker=self._spec.worker,
        )


def main(argv: list[str]) -> int:
    folder = EndpointFolder(Path(argv[0]))
    if argv[1:2] == ["--lock-fd"]:
        lock: int | None = int(argv[2])
        os.set_inheritable(int(argv[2]), False)
    else:
        lock = folder.try_lock()
    spec, me = folder.spec(), ProcessId.of(os.getpid())
    if lock is None or spec is None or me is None:
        return 0
    Supervisor(folder, spec, me).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
