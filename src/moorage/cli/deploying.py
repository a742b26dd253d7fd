"""`plan`, `deploy` and `delete`: what changes, or would."""

from __future__ import annotations

from typing import Annotated, Any  # the body is JSON

import typer
from rich.text import Text

from moorage.cli import rendering, waiting
from moorage.cli import request_options as ask
from moorage.cli.session import Json, Key, Session, Url, session

NoWait = Annotated[bool, typer.Option("--no-wait", help="Return as soon as the service has accepted it.")]


def plan(
    model: ask.Model = None,
    image: ask.Image = None,
    revision: ask.Revision = None,
    provider: ask.Provider = None,
    gpu_tier: ask.GpuTier = None,
    region: ask.Region = None,
    spot: ask.Spot = None,
    max_price: ask.MaxPrice = None,
    min_replicas: ask.MinReplicas = None,
    max_replicas: ask.MaxReplicas = None,
    hf_token: ask.HfToken = None,
    task: ask.Task = None,
    context_length: ask.ContextLength = None,
    concurrency: ask.Concurrency = None,
    credential: ask.Credential = None,
    workers_min: ask.WorkersMin = None,
    workers_max: ask.WorkersMax = None,
    cache: ask.CacheUrl = None,
    cluster: ask.Cluster = None,
    port: ask.Port = None,
    health: ask.Health = None,
    other: ask.Set = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Explain where a model would run, what it would cost, and why. Creates nothing."""
    with session(url, key, as_json) as s:
        document = s.client.plan(
            ask.body(
                model,
                image,
                None,
                cache,
                other,
                port,
                health,
                cluster=None if cluster is None else s.client.cluster(cluster)["uuid"],
                revision=revision,
                provider=provider,
                gpu_tier=gpu_tier,
                region=region,
                spot=spot,
                max_price_per_hour=max_price,
                min_replicas=min_replicas,
                max_replicas=max_replicas,
                hf_token=hf_token,
                task=task,
                context_length=context_length,
                concurrency=concurrency,
                credential=credential,
                workers_min=workers_min,
                workers_max=workers_max,
            )
        )
        s.out.result(document, *rendering.plan(document))


def deploy(
    model: ask.Model = None,
    image: ask.Image = None,
    revision: ask.Revision = None,
    name: ask.Name = None,
    no_wait: NoWait = False,
    provider: ask.Provider = None,
    gpu_tier: ask.GpuTier = None,
    region: ask.Region = None,
    spot: ask.Spot = None,
    max_price: ask.MaxPrice = None,
    deadline: ask.Deadline = None,
    min_replicas: ask.MinReplicas = None,
    max_replicas: ask.MaxReplicas = None,
    env: ask.Env = None,
    hf_token: ask.HfToken = None,
    task: ask.Task = None,
    context_length: ask.ContextLength = None,
    concurrency: ask.Concurrency = None,
    credential: ask.Credential = None,
    workers_min: ask.WorkersMin = None,
    workers_max: ask.WorkersMax = None,
    cache: ask.CacheUrl = None,
    cluster: ask.Cluster = None,
    port: ask.Port = None,
    health: ask.Health = None,
    other: ask.Set = None,
    webhook: ask.Webhook = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Deploy a model to the cheapest compute that it fits on, and wait until it answers.

    Exits with 0 when it is ready and 1 when it failed. Interrupting the wait does not end the deployment.
    """
    with session(url, key, as_json) as s:
        _deploy(
            s,
            ask.body(
                model,
                image,
                env,
                cache,
                other,
                port,
                health,
                cluster=None if cluster is None else s.client.cluster(cluster)["uuid"],
                revision=revision,
                name=name,
                provider=provider,
                gpu_tier=gpu_tier,
                region=region,
                spot=spot,
                max_price_per_hour=max_price,
                capacity_deadline_seconds=deadline,
                min_replicas=min_replicas,
                max_replicas=max_replicas,
                hf_token=hf_token,
                task=task,
                context_length=context_length,
                concurrency=concurrency,
                credential=credential,
                workers_min=workers_min,
                workers_max=workers_max,
                user_webhook_url=webhook,
            ),
            wait=not no_wait,
        )


def _deploy(s: Session, body: dict[str, Any], *, wait: bool) -> None:
    with waiting.interruptible(s, "The service may have accepted it: `moorage ls` shows it."):
        accepted = s.client.create(body)
    id_, name = accepted["deployment_id"], accepted["name"]
    if not wait:
        s.out.result(accepted, Text(id_))
        return
    with waiting.interruptible(
        s,
        f"{name} goes on by itself, and costs what it costs.",
        f"  moorage events -f {name}   follows it",
        f"  moorage delete {name}      ends it",
    ):
        s.out.note(Text.assemble("Deploying ", (name, "bold"), f" as {id_}"))
        waiting.until(s, id_, waiting.OVER)
        deployment = s.client.deployment(id_)
    if deployment["status"] in ("failed", "deleting", "deleted"):
        raise waiting.failure(deployment)
    s.out.result(deployment, rendering.summary(deployment))


def delete(
    references: Annotated[list[str], typer.Argument(metavar="DEPLOYMENT...", help="Ids or names.")],
    no_wait: NoWait = False,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Delete deployments, and wait until nothing of them is left at the provider."""
    with session(url, key, as_json) as s:
        found = [s.client.find(reference) for reference in references]
        for deployment in found:
            s.client.delete(deployment["deployment_id"])
        for deployment in found:
            _deleted(s, deployment, wait=not no_wait)


def _deleted(s: Session, deployment: dict[str, Any], *, wait: bool) -> None:
    id_, name = deployment["deployment_id"], deployment["name"]
    if wait:
        s.out.note(Text.assemble("Deleting ", (name, "bold")))
        with waiting.interruptible(
            s, f"{name} goes on being deleted: `moorage events -f {name}` follows it."
        ):
            for event in s.client.follow_events(id_):
                if event["type"] in (
                    "deployment.deleting",
                    "deployment.deleted",
                    "deployment.endpoint_removed",
                ):
                    s.out.note(rendering.event(event))
    current = s.client.deployment(id_)
    s.out.line(current, Text(f"{id_} {current['status']}"))
