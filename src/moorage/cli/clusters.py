"""`clusters`: your own Kubernetes as compute, and the groups of nodes in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from moorage.cli import cluster_tables
from moorage.cli.client import Document
from moorage.cli.failures import NotThere, Usage
from moorage.cli.session import Json, Key, Url, session

clusters = typer.Typer(name="clusters", help="Import your own clusters.", no_args_is_help=True)
node_groups = typer.Typer(
    name="nodegroups", help="Groups of nodes: what they cost, and where to run.", no_args_is_help=True
)
clusters.add_typer(node_groups)

Cluster = Annotated[str, typer.Argument(metavar="CLUSTER", help="Its name or UUID.")]
_File = typer.Option(metavar="FILE", help="`-` is standard input.")


@clusters.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="To tell several apart.")],
    kubeconfig: Annotated[str | None, _File] = None,
    server: Annotated[str | None, typer.Option(help="https URL; with a CA and a token.")] = None,
    certificate_authority: Annotated[str | None, typer.Option(metavar="FILE", help="PEM.")] = None,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Of a service account; `-` is standard input.")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="Where deployments go.")] = None,
    prometheus_url: Annotated[str | None, typer.Option(help="Seen from the cluster.")] = None,
    gateway: Annotated[str | None, typer.Option(metavar="NAMESPACE/NAME")] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Import a cluster: its access is tried and sealed, and the cluster looked over.

    moorage clusters import production --kubeconfig <(kubectl config view --raw --flatten --minify)
    """
    with session(url, key, as_json) as s:
        if (kubeconfig is None) == (server is None):
            raise Usage("Give either --kubeconfig, or --server with a CA and a token.")
        token = _text(token_file)
        given = {
            "kubeconfig": _text(kubeconfig),
            "server": server,
            "certificate_authority": _text(certificate_authority),
            "token": None if token is None else token.strip(),
            "namespace": namespace,
            "prometheus_url": prometheus_url,
            "gateway": gateway,
        }
        body = {"name": name, **{field: value for field, value in given.items() if value is not None}}
        found = s.client.import_cluster(body)
        s.out.result(found, cluster_tables.cluster(found))


@clusters.command("ls")
def ls(url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List clusters."""
    with session(url, key, as_json) as s:
        found = s.client.clusters()
        s.out.result(found, cluster_tables.clusters(found))


@clusters.command("get")
def get(cluster: Cluster, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Show a cluster as the last check found it."""
    with session(url, key, as_json) as s:
        found = s.client.cluster(cluster)
        s.out.result(found, cluster_tables.cluster(found))


@clusters.command("check")
def check(cluster: Cluster, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Look a cluster over again."""
    with session(url, key, as_json) as s:
        found = s.client.check_cluster(s.client.cluster(cluster)["uuid"])
        s.out.result(found, cluster_tables.cluster(found))


@clusters.command("rm")
def rm(cluster: Cluster, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """Remove a cluster that no deployment uses. What else runs there stays."""
    with session(url, key, as_json) as s:
        uuid = s.client.cluster(cluster)["uuid"]
        s.client.remove_cluster(uuid)
        s.out.result({"uuid": uuid, "removed": True}, Text(f"{uuid} removed"))


@node_groups.command("ls")
def list_groups(cluster: Cluster, url: Url = None, key: Key = None, as_json: Json = False) -> None:
    """List a cluster's node groups, discovered and declared."""
    with session(url, key, as_json) as s:
        found = s.client.cluster(cluster)["nodegroups"]
        s.out.result(found, cluster_tables.node_groups(found))


@node_groups.command("add")
def add_group(
    cluster: Cluster,
    name: Annotated[str, typer.Argument(help="Of the group.")],
    selector: Annotated[
        list[str], typer.Option("--label", "-l", metavar="KEY=VALUE", help="That its nodes have; repeat it.")
    ],
    price: Annotated[float | None, typer.Option(help="USD per node and hour.")] = None,
    max_nodes: Annotated[int | None, typer.Option(help="That an autoscaler may make; needs a shape.")] = None,
    cpus: Annotated[float | None, typer.Option(help="Cores of a node.")] = None,
    memory_gib: Annotated[float | None, typer.Option(help="Of a node.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Such as NVIDIA-L4.")] = None,
    gpus: Annotated[int, typer.Option(help="Of a node.")] = 0,
    gpu_memory_gib: Annotated[float | None, typer.Option(help="Of one accelerator.")] = None,
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Declare a node group; it takes the place of one that was discovered by the same labels."""
    with session(url, key, as_json) as s:
        body: Document = {"name": name, "selector": _labels(selector)}
        body |= {k: v for k, v in (("price_per_hour", price), ("max_nodes", max_nodes)) if v is not None}
        if (cpus is None) != (memory_gib is None):
            raise Usage("A node's shape has --cpus and --memory-gib.")
        if cpus is not None:
            accelerator = {"gpu": gpu, "gpus": gpus, "gpu_memory_gib": gpu_memory_gib}
            body["shape"] = {"cpus": cpus, "memory_gib": memory_gib, **accelerator}
        made = s.client.declare_node_group(s.client.cluster(cluster)["uuid"], body)
        s.out.result(made, cluster_tables.node_groups([made]))


@node_groups.command("rm")
def remove_group(
    cluster: Cluster,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="Its name or UUID.")],
    url: Url = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Remove a declared node group that no deployment names."""
    with session(url, key, as_json) as s:
        found = s.client.cluster(cluster)
        uuids = [g["uuid"] for g in found["nodegroups"] if group in (g["uuid"], g["name"])]
        if not uuids:
            raise NotThere("node group", group, f"`moorage clusters nodegroups ls {cluster}` shows them.")
        s.client.remove_node_group(found["uuid"], uuids[0])
        s.out.result({"uuid": uuids[0], "removed": True}, Text(f"{uuids[0]} removed"))


def _text(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text()
    except (OSError, UnicodeError) as error:
        raise Usage(f"{path} cannot be read: {error}.") from error
    if not text.strip():
        raise Usage(f"{path} is empty.")
    return text


def _labels(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    wrong = [key for key, equals, _ in pairs if not equals]
    if wrong:
        raise Usage(f"{wrong[0]!r} is no label.", "Write it as KEY=VALUE.")
    return {key: value for key, _, value in pairs}
