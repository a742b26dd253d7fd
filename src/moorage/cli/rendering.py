"""The API's documents as tables and text for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any  # the API's documents are JSON

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Document = dict[str, Any]

_STYLES = {
    "ready": "green",
    "failed": "red",
    "deleted": "dim",
    "deleting": "yellow",
    "stopped": "dim",
    "hibernated": "dim",
}


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def phase(name: str) -> Text:
    return Text(name, _STYLES.get(name, "cyan"))


def source(deployment: Document) -> str:
    return str(deployment["hf_model_id"] or deployment["model_id"] or deployment["container_image"])


def hardware(gpu: str | None, count: int) -> str:
    return f"{gpu} ×{count}" if gpu else "CPU"


def per_hour(price: float | None) -> str:
    return "–" if price is None else f"${price:.4f}"


def cost(deployment: Document) -> str:
    """Enough digits to see that a small model costs something after seconds."""
    accrued = deployment["cost"]["accrued"]
    return f"${accrued:.2f}" if accrued >= 10 else f"${accrued:.6f}"


def size(count: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def age(instant: str, now: datetime | None = None) -> str:
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(instant)).total_seconds()
    for unit, scale in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= scale:
            return f"{seconds / scale:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def clock(instant: str) -> str:
    """Local time of day, with milliseconds."""
    return datetime.fromisoformat(instant).astimezone().strftime("%H:%M:%S.%f")[:-3]


def deployments(found: Sequence[Document], *, wide: bool = True) -> RenderableType:
    """`wide` has the ids; names do as well, and fit a narrow terminal."""
    if not found:
        return Text("No deployments. `moorage deploy MODEL` makes one; --all shows deleted ones.", "dim")
    rows = table(
        "NAME", "MODEL", "STATUS", "READY", "ON", "PER HOUR", "COST", "AGE", *(["ID"] if wide else [])
    )
    for d in found:
        replicas = f"{d['replicas']['ready']}/{d['replicas']['desired']}"
        on = f"{d['provider']} {hardware(d['gpu_allocated'], d['gpu_count'])}" if d["runtime"] else "–"
        cells = [replicas, on, per_hour(d["price_per_hour"]), cost(d), age(d["created_at"])]
        rows.add_row(
            d["name"], source(d), phase(d["status"]), *cells, *([d["deployment_id"]] if wide else [])
        )
    return rows


def deployment(d: Document) -> RenderableType:
    """All of it, conditions included."""
    return Group(summary(d), Text(), conditions(d["conditions"]))


def summary(d: Document) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")

    def fact(name: str, value: RenderableType | None) -> None:
        if value is not None:
            facts.add_row(name, value)

    fact("id", d["deployment_id"])
    fact("name", d["name"])
    fact("status", phase(d["status"]))
    fact("model", source(d) + (f" @ {d['revision']}" if d["revision"] else ""))
    fact("task", d["task"])
    if d["runtime"]:
        region = f" in {d['region']}" if d["region"] else ""
        fact("runs on", f"{d['provider']}, {hardware(d['gpu_allocated'], d['gpu_count'])}{region}")
        fact("runtime", d["runtime"])
    fact(
        "price",
        None if d["price_per_hour"] is None else f"{per_hour(d['price_per_hour'])} per hour and replica",
    )
    fact("cost so far", cost(d))
    loading = d.get("loading")
    if loading and d["status"] == "loading_model":
        percent = "" if loading["percent"] is None else f" {loading['percent']:.0f} %"
        fact("worker", f"{loading['stage'] or loading['state']}{percent}")
    fact("replicas", f"{d['replicas']['ready']} of {d['replicas']['desired']} ready")
    fact("endpoint", d["endpoint_url"])
    fact("phases", ", ".join(f"{name} {seconds:.2f} s" for name, seconds in d["phase_durations"].items()))
    if d["error"]:
        fact("error", Text(f"{d['error']['detail']} ({d['error']['code']})", "red"))
        fact("advice", d["error"]["advice"])
    return facts


def conditions(found: Sequence[Document]) -> RenderableType:
    rows = table("CONDITION", "STATUS", "REASON", "MESSAGE")
    for c in found:
        rows.add_row(c["type"], c["status"], c["reason"], c["message"])
    return rows if found else Text("")


def plan(document: Document) -> list[RenderableType]:
    ladder, refused = _ladder(document["ladder"]), _refused(document["refused"])
    return [_estimate(document["estimate"]), Text(), ladder, Text(), refused]


def _estimate(estimate: Document | None) -> RenderableType:
    if estimate is None:
        return Text("Memory: unknown; nothing can be read of a container image.", "dim")
    rows = table("MEMORY", "BYTES", "HOW", right=("BYTES",))
    for item in estimate["items"]:
        rows.add_row(item["name"], f"{item['bytes']:,}", item["how"])
    rows.add_row("total", f"{estimate['total_bytes']:,}", f"= {size(estimate['total_bytes'])}", style="bold")
    return rows


def _ladder(ladder: Sequence[Document]) -> RenderableType:
    if not ladder:
        return Text("It fits nowhere.", "red")
    regions = any(rung["region"] for rung in ladder)
    columns = [
        "TRY",
        "PROVIDER",
        "ON",
        "MEMORY",
        "PER HOUR",
        "STOCK",
        *(["REGION"] if regions else []),
        "NOTE",
    ]
    rows = table(*columns, right=("TRY",))
    for number, rung in enumerate(ladder, 1):
        rows.add_row(
            str(number),
            rung["provider"],
            f"{hardware(rung['gpu'], rung['count'])} ({rung['runtime']})",
            f"{rung['memory_gb']:g} GB",
            per_hour(rung["price_per_hour"]) + (" spot" if rung["spot"] else ""),
            rung["availability"],
            *([rung["region"] or "–"] if regions else []),
            rung["note"] or "",
        )
    sources = sorted({f"{r['provider']}: {r['price_source']}, {r['price_as_of']}" for r in ladder})
    return Group(rows, Text("Prices: " + "; ".join(sources) + ".", "dim"))


def _refused(refused: Sequence[Document]) -> RenderableType:
    if not refused:
        return Text("No offer was refused.", "dim")
    rows = table("REFUSED", "ON", "WHY", "SMALLEST CHANGE THAT HELPS")
    for r in refused:
        whole = r["price_per_hour"] is None and r["gpu"] is None
        on = "–" if whole else hardware(r["gpu"], r["count"])
        rows.add_row(r["provider"], on, r["reason"], r["smallest_change"] or "–")
    return rows


def market(document: Document) -> list[RenderableType]:
    rows = table("PROVIDER", "OFFER", "ON", "MEMORY", "PER HOUR", "STOCK", "NOTE")
    for o in document["items"]:
        on = hardware(o["gpu"], o["count"])
        memory, price = (
            f"{o['memory_gb']:g} GB",
            per_hour(o["price_per_hour"]) + (" spot" if o["spot"] else ""),
        )
        rows.add_row(o["provider"], o["id"], on, memory, price, o["availability"], o["note"] or "")
    offered = rows if document["items"] else Text("Nothing can be had now.", "red")
    silent = [Text(f"{r['provider']}: {r['reason']}", "dim") for r in document["refused"]]
    return [offered, *([Text(), *silent] if silent else [])]


def deployment_cost(c: Document) -> RenderableType:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    facts.add_row("so far", f"${c['accrued']:.6f}, measured here")
    facts.add_row("now", f"{per_hour(c['per_hour_now'])} per hour")
    if c["price_per_hour"] is not None:
        source = f"({c['price_source']}, {c['price_as_of']})"
        facts.add_row("price", f"{per_hour(c['price_per_hour'])} per hour and replica {source}")
    billed = c["billed"]
    facts.add_row("billed", c["billed_unknown"] if billed is None else f"${billed['amount']:.6f}")
    return facts


def credentials(found: Sequence[Document]) -> RenderableType:
    if not found:
        return Text("No accounts. `moorage credentials store PROVIDER` stores one.", "dim")
    rows = table("ID", "PROVIDER", "NAME", "BEGINS", "STORED")
    for c in found:
        rows.add_row(c["id"], c["provider"], c["name"], c["hint"], f"{age(c['created_at'])} ago")
    return rows


def event(e: Document) -> Text:
    name = e["type"].removeprefix("deployment.")
    return Text.assemble((clock(e["at"]), "dim"), "  ", _padded(name), e["message"])


def _padded(name: str) -> Text:
    padded = phase(name)
    padded.pad_right(max(1, 20 - len(name)))
    return padded


def log_line(line: Document) -> Text:
    return Text.assemble((clock(line["at"]), "dim"), "  ", (line["replica"], "cyan"), "  ", line["text"])


def keys(found: Sequence[Document]) -> RenderableType:
    rows = table("ID", "NAME", "ROLE", "BEGINS", "CREATED", "REVOKED")
    for k in found:
        revoked = f"{age(k['revoked_at'])} ago" if k["revoked_at"] else "–"
        rows.add_row(k["id"], k["name"], k["role"], f"{k['hint']}…", f"{age(k['created_at'])} ago", revoked)
    return rows


def scores(outputs: object) -> RenderableType | None:
    """Labels with their scores as a table; None for every other form of answer."""
    listed = [outputs] if isinstance(outputs, dict) else outputs
    if not isinstance(listed, list) or not listed:
        return None
    if not all(isinstance(o, dict) and o.keys() == {"label", "score"} for o in listed):
        return None
    rows = table("LABEL", "SCORE", right=("SCORE",))
    for o in listed:
        rows.add_row(str(o["label"]), f"{o['score']:.4f}")
    return rows
