#!/usr/bin/env python3
"""Makes a serverless template for a worker image in a RunPod account, or updates the one of that name.

    RUNPOD_API_KEY=… python scripts/create_runpod_template.py --name moorage-worker \\
        --image registry.example.com/worker-diffusers:0.1.0 --registry CREDENTIAL_ID --env HF_HOME=/models

Prints the template's id, for MOORAGE_RUNPOD_TEMPLATE_ID. Run again with the same arguments it changes nothing
and prints the same id. Moorage needs no template: it is for settings that all endpoints shall have, such as
registry credentials, variables or CUDA versions. Endpoints made before keep what they were made with, and the
image of a request or of MOORAGE_RUNPOD_IMAGE wins over the template's.

What is not given is left as it is in a template that exists. Variables are replaced as a whole, by those of
--env. The key comes from the environment or a file, never from an option.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any  # RunPod's documents are JSON

if TYPE_CHECKING:  # the type checker starts at the root, a script in its own folder
    from scripts.http_api import EXIT_CODES, Exit, Failed, HttpApi, run, runpod_key, say
else:
    from http_api import EXIT_CODES, Exit, Failed, HttpApi, run, runpod_key, say

API_URL = "https://api.runpod.io"
SETTING = "MOORAGE_RUNPOD_TEMPLATE_ID"
# Set by Moorage or RunPod for each endpoint: in a template they would only mislead.
RESERVED = ("MOORAGE_", "RUNPOD_")
DISK_GB = 50  # RunPod's own 20 does not hold the weights of a large model

Document = dict[str, Any]


def body_of(arguments: argparse.Namespace) -> Document:
    """The template as it should be, as far as it is given. Without SSH and Jupyter: nobody signs in to a
    worker."""
    given = {
        "disk": arguments.disk,
        "env": dict(arguments.env) if arguments.env is not None else None,
        "registry": arguments.registry,
        "args": arguments.args,
        "ports": arguments.port,
        "allowedCudaVersions": arguments.cuda,
    }
    return {
        "name": arguments.name,
        "image": arguments.image,
        "serverless": True,
        "public": False,
        "startSsh": False,
        "startJupyter": False,
    } | {name: value for name, value in given.items() if value is not None}


def named(api: HttpApi, name: str) -> Document | None:
    """The account's template of that name. Raises Failed where there are several, or one of another kind."""
    try:
        templates: list[Document] = api.ask("GET", "/v2/templates")["templates"]
        found = [t for t in templates if t["name"] == name]
    except (KeyError, TypeError):
        raise Failed("RunPod's list of templates is not in the form of its API.") from None
    if len(found) > 1:
        ids = ", ".join(t["id"] for t in found)
        raise Failed(f"There are {len(found)} templates named {name} ({ids}). Remove all but one.")
    if found and not found[0]["serverless"]:
        raise Failed(f"{name} ({found[0]['id']}) is a template for pods. Choose another --name.")
    return found[0] if found else None


def made(api: HttpApi, body: Document) -> Document:
    """Raises Failed. A create whose answer is lost is not repeated: RunPod takes several of one name."""
    try:
        template: Document = api.ask("POST", "/v2/templates", body={"disk": DISK_GB, **body})
    except Failed as failed:
        there = None if failed.was_refused else named(api, body["name"])
        if there is None:
            raise
        say("The answer was lost, and the template is there.")
        return there
    return template


def variable(text: str) -> tuple[str, str]:
    """NAME=VALUE, or NAME alone for its value here: options are seen by others, so secrets come this way."""
    name, equals, value = text.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise argparse.ArgumentTypeError("write it as NAME=VALUE, or NAME for its value in the environment")
    if name.startswith(RESERVED):
        raise argparse.ArgumentTypeError(f"{name} is set by the platform")
    if equals:
        return name, value
    if name not in os.environ:
        raise argparse.ArgumentTypeError(f"{name} is not in the environment")
    return name, os.environ[name]


def cuda_version(text: str) -> str:
    if not re.fullmatch(r"\d+\.\d+", text):
        raise argparse.ArgumentTypeError("must be a version such as 12.8")
    return text


def gigabytes(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number of GB, at least 1")
    return int(text)


def one_word(text: str) -> str:
    if not text or re.search(r"\s", text):
        raise argparse.ArgumentTypeError("must be an image reference without spaces")
    return text


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", type=one_word, required=True, help="of the worker, with its tag")
    parser.add_argument("--name", required=True, help="by which it is found again")
    parser.add_argument("--disk", type=gigabytes, metavar="GB", help=f"of a container (a new one: {DISK_GB})")
    parser.add_argument("--env", type=variable, action="append", metavar="NAME[=VALUE]", help="repeat it")
    parser.add_argument("--registry", metavar="ID", help="RunPod's id of the registry's credentials")
    parser.add_argument("--args", help="of the container's entry point")
    parser.add_argument("--port", action="append", metavar="PORT/http", help="repeat it")
    parser.add_argument(
        "--cuda",
        type=cuda_version,
        action="append",
        metavar="MAJOR.MINOR",
        help="that it may run on; repeat it",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="in place of RUNPOD_API_KEY")
    parser.add_argument("--api-url", default=API_URL, metavar="URL", help=f"default: {API_URL}")
    return parser.parse_args(argv)


def shown(body: Document) -> str:
    """Without the values of variables, which may be secrets."""
    env = {"env": dict.fromkeys(body["env"], "…")} if "env" in body else {}
    return json.dumps({**body, **env}, ensure_ascii=False)


def main() -> int:
    arguments = arguments_of()
    key = runpod_key(arguments.key_file)
    body = body_of(arguments)
    if key in body.get("env", {}).values():
        raise Failed("The RunPod key is in --env: it must not reach a worker.", Exit.USAGE)
    with HttpApi(arguments.api_url, key, "create-runpod-template") as api:
        say(f"Looking for a template named {arguments.name}.")
        template = named(api, arguments.name)
        changes = {k: v for k, v in body.items() if template is None or template.get(k) != v}
        if arguments.dry_run:
            what = "create" if template is None else f"change {template['id']} by" if changes else None
            say(f"Would {what} {shown(changes)}" if what else "Nothing would change.")
            return Exit.OK
        try:
            if template is None:
                template = made(api, body)
                say(f"Created {template['id']}.")
            elif changes:
                template = api.ask("PATCH", f"/v2/templates/{template['id']}", body=changes)
                say(f"Changed {', '.join(changes)} of {template['id']}.")
            else:
                say("It is up to date.")
        except KeyboardInterrupt:
            say(f"The template {arguments.name} may be there, and costs nothing; run this again for its id.")
            raise
    say(f"For the service: {SETTING}={template['id']}")
    print(template["id"], flush=True)
    return Exit.OK


if __name__ == "__main__":
    run(main)
