#!/usr/bin/env python3
"""Does Moorage's main job against a service that runs, step by step, and leaves nothing behind.

    MOORAGE_KEY=… python scripts/smoke.py http://127.0.0.1:8080

Health, plan, create, wait, infer, delete, nothing left: each with what was seen and the seconds it took, on
standard error; then one line on standard output. The key is Moorage's, or a RunPod key, which then pays.

The deployment is deleted also where a step failed and after Ctrl-C; a second Ctrl-C ends that too, and says
what is left and how to remove it.
"""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any  # the API's documents are JSON

if TYPE_CHECKING:  # the type checker starts at the root, a script in its own folder
    from scripts import deploy_and_infer as deploying
    from scripts.http_api import EXIT_CODES, Exit, Failed, HttpApi, run, say
else:
    import deploy_and_infer as deploying
    from http_api import EXIT_CODES, Exit, Failed, HttpApi, run, say

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TEXT = "A most agreeable harbour."


class Smoke:
    """The steps. Each raises Failed when something is not as it should be."""

    def __init__(self, api: HttpApi, arguments: argparse.Namespace) -> None:
        self._api = api
        self._arguments = arguments
        key = str(uuid.uuid4())
        self._name = f"smoke-{key[:8]}"
        self._body = {**deploying.request_body(arguments), "name": self._name}
        self._inputs = deploying.read_input(arguments.input)
        self._deployment = deploying.OneDeployment(api, self._body, key)
        self._tell = deploying.NewEvents()

    def run(self) -> None:
        with step("health"):
            self._health()
        with step("plan"):
            self._plan()
        with deploying.removed_at_the_end(self._deployment, self._tell):
            with step("create"):
                self._deployment.create()
                say(f"{self._name} is {self._deployment.id}")
            with step("wait"):
                self._deployment.until_ready(self._tell, self._arguments.timeout)
            with step("infer"):
                self._infer()
            with step("delete"):
                self._deployment.remove(self._tell)
        with step("nothing left"):
            self._nothing_left()

    def _health(self) -> None:
        told = self._api.ask("GET", "/health")
        if not isinstance(told, dict) or told.get("status") != "ok":
            raise Failed("The service does not say that it is well; is the URL right?")
        say(f"version {told['version']}")

    def _plan(self) -> None:
        plan = self._api.ask("POST", "/v1/deployments/plan", body=self._body)
        if not plan["ladder"]:
            why = "; ".join(f"{r['provider']}: {r['reason']}" for r in plan["refused"])
            raise Failed(f"The model fits nowhere. {why}")
        first = plan["ladder"][0]
        need = f"needs {plan['estimate']['total_bytes'] / 1e9:.1f} GB; " if plan["estimate"] else ""
        on = f"{first['gpu']} ×{first['count']}" if first["gpu"] else "CPU"
        say(f"{need}{first['provider']}, {on}, {first['price_per_hour']:.4f} USD an hour is tried first")

    def _infer(self) -> None:
        answer = self._deployment.infer(self._inputs, self._arguments.parameters)
        if answer["outputs"] in (None, [], {}, ""):
            raise Failed("The model's answer is empty.")
        took: Any = answer.get("metadata", {}).get("inference_time_ms")
        say(f"{answer.get('model_id')} answered" + (f", {took:.1f} ms in the model" if took else ""))

    def _nothing_left(self) -> None:
        """As the service tells it, in every place where it would tell of one that is left."""
        found = self._deployment.document()
        if found["status"] != "deleted" or found["endpoint_url"] is not None:
            raise Failed(f"It is {found['status']} with the endpoint {found['endpoint_url']}.")
        if self._api.ask("GET", f"{self._deployment.path}/cost")["per_hour_now"] != 0:
            raise Failed("It still costs something by the hour.")
        page = self._api.ask("GET", "/v1/deployments", params={"name": self._name})
        there = [d["deployment_id"] for d in page["items"] if d["status"] != "deleted"]
        if there:
            raise Failed(f"There is another one of its name: {', '.join(there)}.")
        try:
            self._deployment.infer(self._inputs, {})
        except Failed as failed:
            if failed.status != 404:
                raise
        else:
            raise Failed("It still answers.")
        cost = found["cost"]
        say(f"it cost {cost['accrued']:.6f} {cost['currency']}")


@contextmanager
def step(name: str) -> Iterator[None]:
    say(f"— {name}")
    began = time.monotonic()
    done = False
    try:
        yield
        done = True
    finally:
        say(f"  {name}: {'ok' if done else 'FAILED'} in {time.monotonic() - began:.2f} s")


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    deploying.add_access(parser)
    parser.add_argument("--model", default=MODEL, help=f"a Hugging Face id (default: {MODEL})")
    parser.add_argument("--input", default=TEXT, metavar="TEXT|@FILE", help=f"default: {TEXT}")
    deploying.add_request(parser)
    parser.set_defaults(name=None)
    return parser.parse_args(argv)


def main() -> int:
    began = time.monotonic()
    arguments = arguments_of()
    with HttpApi(arguments.base_url, arguments.key, "smoke") as api:
        Smoke(api, arguments).run()
    print(f"ok {arguments.base_url} {arguments.model} {time.monotonic() - began:.2f} s")
    sys.stdout.flush()
    return Exit.OK


if __name__ == "__main__":
    run(main)
