"""The fields of the request body as options, for `plan` and `deploy` alike; `--set` reaches the rest.

Limits are the service's to check, so that there is one place that knows them; here only form is refused.
"""

from __future__ import annotations

import json
import os
from typing import Annotated, Any  # the body is JSON

import typer

from moorage.cli.failures import Usage

_WHERE, _HOW, _TELL = "Where", "How", "Tell"

Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="Hugging Face id, such as owner/name.", show_default=False),
]
Image = Annotated[str | None, typer.Option("--image", help="A container image in place of MODEL.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of MODEL.")]
Name = Annotated[str | None, typer.Option(help="Unique among your deployments; made up when absent.")]
Provider = Annotated[str | None, typer.Option(rich_help_panel=_WHERE, help="auto (default), or one by name.")]
GpuTier = Annotated[
    str | None, typer.Option(rich_help_panel=_WHERE, help="Only that accelerator, such as A10.")
]
Region = Annotated[str | None, typer.Option(rich_help_panel=_WHERE)]
Spot = Annotated[
    bool | None, typer.Option("--spot/--no-spot", rich_help_panel=_WHERE, help="Only spot, or none of it.")
]
MaxPrice = Annotated[
    float | None, typer.Option("--max-price", rich_help_panel=_WHERE, help="USD per replica and hour.")
]
Deadline = Annotated[
    float | None, typer.Option(rich_help_panel=_WHERE, help="Seconds to look for compute before it fails.")
]
MinReplicas = Annotated[int | None, typer.Option(rich_help_panel=_HOW)]
MaxReplicas = Annotated[int | None, typer.Option(rich_help_panel=_HOW)]
Env = Annotated[
    list[str] | None,
    typer.Option(
        "--env", "-e", metavar="NAME=VALUE", rich_help_panel=_HOW, help="For the worker; repeat it."
    ),
]
HfToken = Annotated[
    str | None,
    typer.Option(
        envvar="HF_TOKEN",
        show_envvar=True,
        rich_help_panel=_HOW,
        help="For gated and private models. Rather use the variable: other users can see options.",
    ),
]
Task = Annotated[str | None, typer.Option(rich_help_panel=_HOW, help="Overrides the Hub's.")]
ContextLength = Annotated[int | None, typer.Option(rich_help_panel=_HOW, help="Tokens, for language models.")]
Concurrency = Annotated[int | None, typer.Option(rich_help_panel=_HOW, help="Requests at once per replica.")]
Webhook = Annotated[
    str | None,
    typer.Option("--webhook", metavar="URL", rich_help_panel=_TELL, help="Is told of every phase."),
]


Credential = Annotated[
    str | None, typer.Option(rich_help_panel=_WHERE, help="A stored provider account, by name or id.")
]
WorkersMin = Annotated[
    int | None,
    typer.Option(rich_help_panel=_HOW, help="Serverless: workers that always run; 0 costs nothing."),
]
WorkersMax = Annotated[
    int | None, typer.Option(rich_help_panel=_HOW, help="Serverless: workers that may run.")
]
CacheUrl = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="s3://BUCKET/PREFIX",
        rich_help_panel=_HOW,
        help="Your bucket of weights, with the keys in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "AWS_ENDPOINT_URL; or `shared`.",
    ),
]
Cluster = Annotated[
    str | None, typer.Option(rich_help_panel=_WHERE, help="A cluster that was imported, by name or UUID.")
]
Port = Annotated[int | None, typer.Option(rich_help_panel=_HOW, help="Of --image: where it takes HTTP.")]
Health = Annotated[
    str | None,
    typer.Option(metavar="PATH", rich_help_panel=_HOW, help="Of --image: answers 2xx when it is ready."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        rich_help_panel=_HOW,
        help="Any other field of the request, such as idle_timeout=60; repeat it.",
    ),
]


def body(
    model: str | None,
    image: str | None,
    env: list[str] | None,
    cache: str | None = None,
    other: list[str] | None = None,
    port: int | None = None,
    health: str | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """The request body: what was given, under the API's names. Raises Usage."""
    if (model is None) == (image is None):
        raise Usage("Give a MODEL or an --image, and not both.", "For example: moorage deploy owner/name")
    asked = {"hf_model_id": model, "container_image": image, **fields}
    found = {name: value for name, value in asked.items() if value is not None}
    if image is not None and fields.get("hf_token") is not None:
        del found["hf_token"]  # from the environment, and of no use to an image
    if env:
        found["env"] = dict(_pair("--env", "NAME", text) for text in env)
    if cache is not None:
        found |= _cache(cache)
    if port is not None or health is not None:
        found["workload"] = _container(port, health)
    for text in other or ():
        name, value = _pair("--set", "FIELD", text)
        found[name] = _value(value)
    return found


def _container(port: int | None, health: str | None) -> dict[str, Any]:
    if port is None:
        raise Usage("--health goes with the --port that is asked.")
    workload: dict[str, Any] = {"ports": {"http": port}}
    if health is not None:
        workload["health"] = {"path": health, "port": port}
    return workload


def _pair(option: str, what: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Usage(f"{option} {name or '…'}: write it as {what}=VALUE.")
    return name, value


def _value(text: str) -> Any:
    """JSON where it is JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _cache(where: str) -> dict[str, Any]:
    """Keys come from the environment: other users of the machine can see options."""
    if where in ("off", "shared"):
        return {"cache_scope": where}
    names = {
        "user_aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "user_aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "user_aws_endpoint_url": "AWS_ENDPOINT_URL",
    }
    given = {field: os.environ[name] for field, name in names.items() if os.environ.get(name)}
    return {"cache_scope": "private", "user_s3_url": where, **given}
