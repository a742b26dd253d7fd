"""A root directory of its own for processes, where there is no image engine: mounts, chroot, and namespaces.

It is to the Dockerfile what a base image with Python is: the system's own libraries under /usr, a Python in
/usr/local, nothing of this repository. A program that runs in it is process 1 of a PID namespace, as in a
container, and may have no network and no file system that it can write to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# The shared library of a Python that was built elsewhere is found by no cache of the linker here.
BASE_ENV = {"PATH": BASE_PATH, "LD_LIBRARY_PATH": "/usr/local/lib"}
_LEFT_OUT = shutil.ignore_patterns("site-packages", "test", "__pycache__", "config-*", "idlelib", "tkinter")

# Everything that is mounted goes with the namespace, that is, with the last process in it.
_ENTER = """
set -e
root=$1 user=$2 read_only=$3; shift 3
if [ "$user" = 0 ]; then rights=+all; else rights=-all; fi
mount --bind "$root" "$root"
if [ "$read_only" = yes ]; then mount -o remount,bind,ro "$root"; fi
mount --rbind /usr "$root/usr"
mount --bind "$root.python" "$root/usr/local"
if [ "$read_only" = yes ]; then mount -o remount,bind,ro "$root/usr/local"; fi
mount --bind -o ro /etc "$root/etc"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
while [ "$1" != -- ]; do mount --bind "$1" "$root$2"; shift 2; done
shift
if [ "$NETWORK" = none ]; then
  chroot "$root" python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))'
fi
unset NETWORK
exec chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
  --bounding-set "$rights" -- "$@"
"""


def why_not() -> str | None:
    """Why no room can be had on this machine; None where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, to mount and to change the root directory"
    for program in ("unshare", "nsenter", "chroot", "setpriv"):
        if shutil.which(program) is None:
            return f"needs {program}"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True)
    return None if tried.returncode == 0 else "may not make namespaces"


@dataclass(slots=True)
class Room:
    """`path` is the root directory; its Python lies beside it."""

    path: Path
    working_directory: str = "/"
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @classmethod
    def empty(cls, path: Path) -> Room:
        for name in ("usr", "etc", "proc", "dev", "tmp", "root", "opt", "var/lib"):
            (path / name).mkdir(parents=True, exist_ok=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if (link := Path("/") / name).is_symlink():
                (path / name).symlink_to(link.readlink())
        _bare_python(path.with_name(f"{path.name}.python"))
        return cls(path)

    def inside(self, path: str) -> Path:
        """Where a path of the room is on this machine. A relative one is below the working directory."""
        return self.path / os.path.normpath(f"{self.working_directory}/{path}").lstrip("/")

    def at(self, path: str) -> Path:
        return self.path / path.lstrip("/")

    def start(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        user: int = 0,
        mounts: Mapping[Path, str] | None = None,
        read_only: bool = False,
        network: bool = True,
    ) -> subprocess.Popen[str]:
        """`mounts`: directories of this machine by where they are in the room. Its output is text, both kinds
        together; it runs in the working directory."""
        places: list[str] = []
        for source, target in (mounts or {}).items():
            self.at(target).mkdir(parents=True, exist_ok=True)
            places += [str(source), target]
        spaces = ["--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        room = [str(self.path), str(user), "yes" if read_only else "no", *places, "--"]
        at = ["/usr/bin/env", f"--chdir={self.working_directory}"]
        started = subprocess.Popen(
            ["unshare", *spaces, "/bin/sh", "-c", _ENTER, "room", *room, *at, *command],
            env={**BASE_ENV, **environ, "NETWORK": "any" if network else "none"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(started)
        return started

    def run(self, command: Sequence[str], environ: Mapping[str, str], **how: object) -> str:
        """To its end. Raises AssertionError with what it printed where it fails."""
        process = self.start(command, environ, **how)  # type: ignore[arg-type]  # those of `start`
        printed, _ = process.communicate()
        assert process.returncode == 0, f"{command} ended with {process.returncode}:\n{printed}"
        return printed

    def join(
        self, process: subprocess.Popen[str], command: Sequence[str], environ: Mapping[str, str], user: int
    ) -> subprocess.Popen[str]:
        """A program beside one that runs, as `docker exec` starts it."""
        enter = [
            "nsenter",
            f"--target={first_process(process)}",
            "--mount",
            "--pid",
            "--net",
            "--root",
            "--wd",
        ]
        rights = [
            "/usr/bin/setpriv",
            f"--reuid={user}",
            f"--regid={user}",
            "--clear-groups",
            "--no-new-privs",
        ]
        started = subprocess.Popen(
            [*enter, *rights, "--", *command],
            env={**BASE_ENV, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(started)
        return started

    def close(self) -> None:
        """Ends what runs in it."""
        for process in self.running:
            process.kill()
            process.wait()
            assert process.stdout is not None
            with suppress(RuntimeError):  # a thread reads it still, and comes to its end
                process.stdout.close()
        self.running.clear()


def first_process(process: subprocess.Popen[str]) -> int:
    """The id, outside, of process 1 inside."""
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def _bare_python(to: Path) -> None:
    """The interpreter of this machine and its standard library, without what was installed beside it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix)
    shutil.copytree(sysconfig.get_path("stdlib"), to / "lib" / version, ignore=_LEFT_OUT, symlinks=True)
    (to / "lib" / version / "site-packages").mkdir(exist_ok=True)
    for library in (base / "lib").glob("libpython3*.so*"):
        shutil.copy2(library, to / "lib")
    (to / "bin").mkdir()
    shutil.copy2(base / "bin" / version, to / "bin")
    for name in ("python", "python3"):
        (to / "bin" / name).symlink_to(version)
