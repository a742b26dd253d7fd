"""`make demo` does what it says, and leaves nothing behind, also when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import ROOT, processes_of


def demo(environ: dict[str, str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        env={**environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_demo_succeeds(environ: dict[str, str], tmp_path: Path) -> None:
    with demo(environ, tmp_path) as process:
        out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, out
    in_order = (
        "a stand-in on this machine",
        "runtime context",
        "loading_model",
        "webhook, signature verified: deployment.ready",
        "That is right.",
        "Cost so far: $0.0",
        "deleted             Nothing is left",
        "webhook, signature verified: deployment.deleted",
        "Nothing is left.\nDone in",
    )
    at = 0
    for words in in_order:
        at = out.find(words, at)
        assert at >= 0, f"{words!r} is missing or too early in:\n{out}"
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_ctrl_c_in_the_middle_leaves_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    with demo(environ, tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "loading_model" in line:
                break
        assert processes_of(tmp_path)  # a worker is on its way
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "Interrupted; cleaning up." in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []
