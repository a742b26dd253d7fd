"""Moorage's main job, from an empty directory to a running model and back to nothing: `make demo`.

Everything here is what a user would do: the service, the command line, a webhook receiver. Each step is a
real process, each check looks at the machine and not at what the service says of itself.

`MOORAGE_DEMO_MODEL=owner/name` takes a model from the Hugging Face Hub. Without it nothing outside this
machine is reached: a stand-in serves the folder `examples/digits` on loopback, in the Hub's own protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

from moorage.cli.client import MoorageClient
from moorage.cli.local_access import LocalAccess

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"
SAMPLE = DIGITS / "samples" / "4.png"  # a held-out image, named by the digit that it shows
STAND_IN_MODEL = "moorage/digits"
NAME = "demo"

START_SECONDS = 30.0
WEBHOOK_SECONDS = 15.0
STOP_SECONDS = 15.0
TOTAL_SECONDS = int(os.environ.get("MOORAGE_DEMO_SECONDS") or 120)
HUB_TOTAL_SECONDS = 1800  # a model from the real Hub has to be downloaded


class DemoFailed(Exception):
    """What was not as it should be, in a sentence."""


# -- processes -------------------------------------------------------------------------------------------


class Process:
    """A process of the demo's own. Its standard output is JSON, a line each; the rest goes to a log file.

    It is in a session of its own, so that Ctrl-C reaches the demo alone, which then ends it in order."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        assert self._process.stdout is not None
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def next_line(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise DemoFailed(f"The {self.name} said nothing for {seconds:.0f} s.") from None
        if line is None:
            raise DemoFailed(f"The {self.name} ended with exit code {self._process.wait()}.")
        return line

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def processes_of(folder: Path, known: Sequence[int] = ()) -> dict[int, str]:
    """Processes whose command line, directory or environment names `folder`, without this one and `known`."""
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if pid == os.getpid() or pid in known:
            continue
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            command = (entry / "cmdline").read_bytes()
            traces = (command, (entry / "environ").read_bytes(), os.fsencode((entry / "cwd").readlink()))
            if command and any(os.fsencode(folder) in trace for trace in traces):
                found[pid] = command.replace(b"\0", b" ").decode(errors="replace").strip()[:120]
    return found


# -- the demo -----------------------------------------------------------------------------------------------


class Demo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "var"
        self.hub_model = os.environ.get("MOORAGE_DEMO_MODEL")
        self.model = self.hub_model or STAND_IN_MODEL
        self.environ = environment(self.data_dir, real_hub=self.hub_model is not None)
        self.processes: list[Process] = []
        self.may_have_deployed = False

    def run(self) -> None:
        self._start_hub()
        service = self._start(
            "service", [sys.executable, "-m", "moorage.cli", "serve", "--port", "0", "--json"]
        )
        url = service.next_line(START_SECONDS)["url"]
        receiver = self._start_receiver()
        say(f"The service answers at {url}, its data is in {self.data_dir}.")
        hook = receiver.next_line(START_SECONDS)["url"]

        step("Where would it run, and why?")
        self._moorage("plan", self.model)
        step("Deploy it, and be told by webhook.")
        self.may_have_deployed = True
        self._moorage("deploy", self.model, "--name", NAME, "--webhook", hook)
        self._webhooks(receiver, until="deployment.ready")
        self._infer()
        self._costs()
        self._seen_before_deletion()
        step("Delete it.")
        self._moorage("delete", NAME)
        self.may_have_deployed = False
        self._webhooks(receiver, until="deployment.deleted")
        self._nothing_left()

    # -- starting ------------------------------------------------------------------------------------------

    def _start(self, name: str, command: Sequence[str], **environ: str) -> Process:
        process = Process(name, command, {**self.environ, **environ}, self.folder)
        self.processes.append(process)
        return process

    def _start_hub(self) -> None:
        if self.hub_model is not None:
            say(f"Model {self.model}, from the Hugging Face Hub.")
            return
        command = [sys.executable, "-m", "moorage.testing.hub", "--repo", f"{STAND_IN_MODEL}={DIGITS}"]
        url = self._start("hub", command).next_line(START_SECONDS)["url"]
        self.environ["MOORAGE_HUB_URL"] = url
        say(
            f"The Hugging Face Hub is not reached: a stand-in on this machine ({url}) serves the folder "
            f"examples/digits as {self.model}."
        )
        say("Set MOORAGE_DEMO_MODEL=owner/name to take a model from the real Hub.")

    def _start_receiver(self) -> Process:
        access = LocalAccess.read(self.data_dir)
        if access is None or access.url is None:
            raise DemoFailed(f"The service left no key in {self.data_dir}.")
        with MoorageClient(access.url, access.key) as client:
            secret = client.webhook_secret()["secret"]
        script = str(ROOT / "scripts" / "webhook_receiver.py")
        return self._start("receiver", [sys.executable, script], MOORAGE_WEBHOOK_SECRET=secret)

    # -- steps ---------------------------------------------------------------------------------------------

    def _moorage(self, *arguments: str) -> None:
        """A command as a user would type it, its output as a user would see it."""
        say(f"$ moorage {' '.join(arguments)}")
        command = [sys.executable, "-m", "moorage.cli", *arguments]
        ended = subprocess.run(command, env=self.environ, cwd=self.folder, check=False)
        if ended.returncode != 0:
            raise DemoFailed(f"moorage {arguments[0]} ended with exit code {ended.returncode}.")

    def _asked(self, *arguments: str) -> dict[str, Any]:
        """The same with --json."""
        command = [sys.executable, "-m", "moorage.cli", *arguments, "--json"]
        ended = subprocess.run(
            command, env=self.environ, cwd=self.folder, stdout=subprocess.PIPE, check=False, text=True
        )
        if ended.returncode != 0:
            raise DemoFailed(f"moorage {arguments[0]} ended with exit code {ended.returncode}.")
        answer: dict[str, Any] = json.loads(ended.stdout)
        return answer

    def _webhooks(self, receiver: Process, until: str) -> None:
        ends = time.monotonic() + WEBHOOK_SECONDS
        while True:
            line = receiver.next_line(max(0.1, ends - time.monotonic()))
            if not line["verified"]:
                raise DemoFailed(f"A webhook did not verify: {line['why']}.")
            message = line["message"]
            say(f"webhook, signature verified: {message['type']}, {line['id']}")
            if message["type"] == until:
                break
        if message["data"]["name"] != NAME:
            raise DemoFailed(f"The webhook {until} is about {message['data']['name']}.")

    def _infer(self) -> None:
        step("Ask the model, through the gateway.")
        if self.hub_model is not None:
            self._moorage("infer", NAME, "A most agreeable harbour.")
            return
        say(f"$ moorage infer {NAME} @examples/digits/samples/{SAMPLE.name}")
        answer = self._asked("infer", NAME, f"@{SAMPLE}")
        best = max(answer["outputs"], key=lambda output: output["score"])
        took = answer["metadata"]["inference_time_ms"]
        right = best["label"] == SAMPLE.stem
        say(
            f"The image shows a {SAMPLE.stem}; the model says {best['label']}, "
            f"{best['score']:.1%} sure, in {took:.1f} ms."
        )
        say("That is right." if right else "That is wrong.")
        if not right:
            raise DemoFailed("The sample model knows this image; something in between changed it.")

    def _costs(self) -> None:
        deployment = self._asked("get", NAME)
        seconds = ", ".join(f"{name} {took:.2f} s" for name, took in deployment["phase_durations"].items())
        price = deployment["price_per_hour"]
        accrued = deployment["cost"]["accrued"]
        say(f"It took: {seconds}.")
        say(f"Cost so far: ${accrued:.9f} at ${price:.4f} an hour on {deployment['provider']}.")
        if accrued <= 0 < price:
            raise DemoFailed("It has run, and nothing was metered.")

    # -- proof ---------------------------------------------------------------------------------------------

    def _left(self) -> dict[str, list[str]]:
        """What the machine has of the deployment."""
        workers = processes_of(self.folder, [process.pid for process in self.processes])
        managed = self.data_dir / "managed"
        return {
            "processes": [f"{pid} {command}" for pid, command in workers.items()],
            "folders": [p.name for p in managed.iterdir() if not p.name.startswith(".")],
            "endpoints at the providers": asyncio.run(owned(self.environ)),
        }

    def _seen_before_deletion(self) -> None:
        """A check that cannot see anything could not fail either."""
        left = self._left()
        say("On this machine now: " + ", ".join(f"{len(found)} {what}" for what, found in left.items()) + ".")
        blind = [what for what, found in left.items() if not found]
        if blind:
            raise DemoFailed(f"The model runs, and yet there are no {' and no '.join(blind)}.")

    def _nothing_left(self) -> None:
        left = self._left()
        for what, found in left.items():
            if found:
                raise DemoFailed(f"After the deletion there are {what}: {'; '.join(found)}.")
        say("On this machine now: no " + ", no ".join(left) + " of it. Nothing is left.")

    # -- ending --------------------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Ends whatever was begun, however far it came."""
        if self.may_have_deployed:
            command = [sys.executable, "-m", "moorage.cli", "delete", NAME]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    command,
                    env=self.environ,
                    cwd=self.folder,
                    check=False,
                    timeout=STOP_SECONDS,
                    capture_output=True,
                    start_new_session=True,
                )
        for process in reversed(self.processes):
            process.stop()
        for pid in processes_of(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def logs(self) -> Iterator[str]:
        for process in self.processes:
            lines = process.log.read_text(errors="replace").splitlines()[-15:]
            if lines:
                yield f"--- the last lines of the {process.name}'s log"
                yield from lines


def environment(data_dir: Path, *, real_hub: bool) -> dict[str, str]:
    """Of this process, without the settings that a user may have for a service of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    if not real_hub:
        for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
            kept.pop(name, None)
        kept["NO_PROXY"] = kept["no_proxy"] = "127.0.0.1"
    return {
        **kept,
        "MOORAGE_DATA_DIR": str(data_dir),
        "MOORAGE_OUTBOUND_ALLOW": "127.0.0.1",  # the receiver; user-given URLs may otherwise not be local
        "COLUMNS": str(shutil.get_terminal_size((110, 24)).columns),
        "PYTHONUNBUFFERED": "1",
    }


async def owned(environ: Mapping[str, str]) -> list[str]:
    """What the installed providers that need no account find under our tag. The demo has no account."""
    from moorage.installed_providers import load_providers
    from moorage.settings import Settings

    settings = Settings(data_dir=Path(environ["MOORAGE_DATA_DIR"]))
    providers = load_providers(settings, environ)
    try:
        return [
            f"{name} {h.name}"
            for name, provider in providers.items()
            if not provider.credential_fields
            async for h in provider.owned(None)
        ]
    finally:
        for provider in providers.values():
            await provider.aclose()


def say(text: str) -> None:
    print(text, flush=True)


def step(text: str) -> None:
    say(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def _interrupt(number: int, _: FrameType | None) -> None:
    if number == signal.SIGALRM:
        raise DemoFailed("It took too long.")
    raise KeyboardInterrupt


def main() -> int:
    began = time.monotonic()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    folder = Path(tempfile.mkdtemp(prefix="moorage-demo-"))
    demo = Demo(folder)
    code = 1
    for number in signals:
        signal.signal(number, _interrupt)
    signal.alarm(HUB_TOTAL_SECONDS if demo.hub_model else TOTAL_SECONDS)
    try:
        demo.run()
        code = 0
    except Exception as error:  # of whatever kind: the cause, and what the processes said
        kind = "" if isinstance(error, DemoFailed) else f"{type(error).__name__}: "
        print(f"\nThe demo failed: {kind}{error}", *demo.logs(), sep="\n", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        code = 130
        print("\nInterrupted; cleaning up.", file=sys.stderr, flush=True)
    finally:
        for number in signals:  # the clean-up is short, and the last thing that anybody wants interrupted
            signal.signal(number, signal.SIG_IGN)
        demo.clean_up()
        shutil.rmtree(folder, ignore_errors=True)
    if code == 0:
        say(f"Done in {time.monotonic() - began:.1f} s.")
    return code


if __name__ == "__main__":
    sys.exit(main())
