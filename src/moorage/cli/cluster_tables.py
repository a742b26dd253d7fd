"""Clusters and node groups as tables and text for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from moorage.cli.client import Document
from moorage.cli.rendering import age, per_hour, table


def clusters(found: Sequence[Document]) -> RenderableType:
    if not found:
        return Text("No clusters. `moorage clusters import NAME --kubeconfig FILE` imports one.", "dim")
    rows = table("NAME", "SERVER", "STATE", "VERSION", "GROUPS", "CHECKED", "UUID")
    for c in found:
        report = c["report"]
        checked = "–" if report is None else f"{age(report['checked_at'])} ago"
        version = (report or {}).get("version") or "–"
        groups = str(len(c["nodegroups"]))
        rows.add_row(c["name"], c["server"], _state(report), version, groups, checked, c["uuid"])
    return rows


def cluster(c: Document) -> RenderableType:
    """All of it: what was found, what is missing, what may not be done."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("uuid", c["uuid"])
    facts.add_row("name", c["name"])
    facts.add_row("server", c["server"])
    report = c["report"]
    facts.add_row("state", _state(report))
    if report is not None:
        for name, value in _facts(report):
            facts.add_row(name, value)
    return Group(facts, Text(), node_groups(c["nodegroups"]))


def node_groups(found: Sequence[Document]) -> RenderableType:
    if not found:
        return Text("No node groups. `moorage clusters nodegroups add` declares one.", "dim")
    rows = table("NODE GROUP", "NODES", "A NODE HAS", "PER HOUR", "PRICE FROM", "LABELS", "UUID")
    for g in found:
        nodes = "–" if g["nodes"] is None else str(g["nodes"])
        most = f" of {g['max_nodes']}" if g["max_nodes"] else ""
        labels = ", ".join(f"{key}={value}" for key, value in g["selector"].items())
        price = (per_hour(g["price_per_hour"]), g["price_source"] or "–")
        rows.add_row(g["name"], f"{nodes}{most}", _shape(g["shape"]), *price, labels, g["uuid"])
    return rows


def _state(report: Document | None) -> Text:
    if report is None:
        return Text("not checked", "dim")
    if report["reachable"]:
        return Text("reachable", "green")
    return Text("not reachable", "red")


def _facts(report: Document) -> list[tuple[str, RenderableType]]:
    """What a check found, in a row each; what is not there is left out."""
    there = [_tool(t) for t in report["tools"] if t["installed"]]
    lacking = [t["name"] for t in report["tools"] if not t["installed"]]
    denied = [
        f"{p['verb']} {p['resource']} ({p['needed_for']})" for p in report["permissions"] if not p["allowed"]
    ]
    storage = [_storage(s) for s in report["storage_classes"]]
    gpus = [f"{g['node']}: {g['product']} ×{g['count']}, {g['free']} free" for g in report["gpu_nodes"]]
    rows = (
        ("problem", report["problem"] or "", "red"),
        ("version", report["version"] or "", ""),
        ("installed", ", ".join(there), ""),
        ("not installed", ", ".join(lacking), "dim"),
        ("gateway classes", ", ".join(report["gateway_classes"]), ""),
        ("storage", "\n".join(storage), ""),
        ("GPUs", "\n".join(gpus), ""),
        ("may not", "\n".join(denied), "red"),
        ("warnings", "\n".join(report["warnings"]), "yellow"),
    )
    return [(name, Text(value, style)) for name, value, style in rows if value]


def _tool(tool: Document) -> str:
    return f"{tool['name']} {tool['version'] or ''}".rstrip()


def _storage(storage_class: Document) -> str:
    default = " (default)" if storage_class["default"] else ""
    modes = ", ".join(storage_class["access_modes"]) or "access modes not known"
    return f"{storage_class['name']}{default}: {modes}"


def _shape(shape: Document | None) -> str:
    if shape is None:
        return "–"
    gpu = f", {shape['gpu']} ×{shape['gpus']}" if shape["gpu"] else ""
    return f"{shape['cpus']:g} CPUs, {shape['memory_gib']:g} GiB{gpu}"
