"""Starts a worker so that it cannot outlive its supervisor.

The supervisor has one thread, so Python code between fork and exec is safe here; it must stay so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_grandchildren() -> None:
    """Processes whose parent died become this process's children, to be reaped."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def start(
    command: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    output: int,
    enter_limits: Callable[[], None],
) -> int:
    """Starts the worker in its own process group, with `output` as stdout and stderr; gives its pid.

    The kernel kills it when the supervisor dies. A command that cannot be run prints why and exits with 127.
    """
    supervisor = os.getpid()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # the child does it too: whoever comes first
            os.setpgid(pid, pid)
        return pid
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        _become_worker(supervisor, folder, enter_limits)
        os.execvpe(command[0], list(command), dict(env))  # noqa: S606  # no shell is wanted
    except BaseException as error:  # whatever it is must not come back into the supervisor's code
        os.write(2, f"cannot start the worker: {error}\n".encode())
    finally:
        os._exit(127)


def _become_worker(supervisor: int, folder: Path, enter_limits: Callable[[], None]) -> None:
    os.setpgid(0, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the kernel was told to care
        os._exit(127)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    enter_limits()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.chdir(folder)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
