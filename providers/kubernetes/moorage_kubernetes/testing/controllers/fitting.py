"""Which node a pod fits on, and the scheduler's words where it fits on none. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from moorage_kubernetes.testing.quantities import quantity
from moorage_kubernetes.testing.selectors import expression
from moorage_kubernetes.testing.statuses import Json

Amounts = Mapping[str, Fraction]
HARD = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Choice:
    """`node` is None where none fits; `message` says why then."""

    node: str | None
    message: str = ""


def asked(pod: Json) -> dict[str, Fraction]:
    """What the pod's containers request together, and one of `pods`."""
    total = {"pods": Fraction(1)}
    for container in pod["spec"]["containers"]:
        for name, text in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, Fraction(0)) + quantity(text)
    return total


def choose(pod: Json, nodes: Sequence[Json], used: Mapping[str, Amounts]) -> Choice:
    """The node with the fewest pods of those that fit."""
    if not nodes:
        return Choice(None, "no nodes available to schedule pods")
    fitting: list[Json] = []
    reasons: Counter[str] = Counter()
    helpless = 0
    for node in nodes:
        hard = _unfit(pod, node)
        short = [] if hard else list(_short(pod, node, used.get(node["metadata"]["name"], {})))
        if hard:
            reasons[hard] += 1
            helpless += 1
        for reason in short:
            reasons[reason] += 1
        if not hard and not short:
            fitting.append(node)
    if fitting:
        best = min(fitting, key=lambda node: _load(node, used))
        return Choice(str(best["metadata"]["name"]))
    return Choice(None, _told(len(nodes), reasons, helpless))


def unschedulable(nodes: int) -> str:
    """As if no node had a free accelerator."""
    return _told(nodes, Counter({"Insufficient nvidia.com/gpu": nodes}), 0)


def _told(nodes: int, reasons: Counter[str], helpless: int) -> str:
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    preemption = []
    if helpless:
        preemption.append(f"{helpless} Preemption is not helpful for scheduling")
    if nodes - helpless:
        preemption.append(f"{nodes - helpless} No preemption victims found for incoming pod")
    return (
        f"0/{nodes} nodes are available: {listed}. "
        f"preemption: 0/{nodes} nodes are available: {', '.join(sorted(preemption))}."
    )


def _load(node: Json, used: Mapping[str, Amounts]) -> tuple[Fraction, str]:
    name = node["metadata"]["name"]
    return used.get(name, {}).get("pods", Fraction(0)), name


def _unfit(pod: Json, node: Json) -> str:
    """Why the pod may never run there; "" where it may."""
    spec = node.get("spec") or {}
    if spec.get("unschedulable"):
        return "node(s) were unschedulable"
    for taint in spec.get("taints") or ():
        if taint["effect"] in HARD and not tolerated(taint, pod["spec"].get("tolerations") or ()):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    labels = node["metadata"].get("labels") or {}
    chosen = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in chosen.items()) or not _affine(pod, node, labels):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def tolerated(taint: Json, tolerations: Iterable[Json]) -> bool:
    for one in tolerations:
        if one.get("effect") not in (None, "", taint["effect"]):
            continue
        if one.get("operator", "Equal") == "Exists":
            if one.get("key") in (None, "", taint["key"]):
                return True
        elif one.get("key") == taint["key"] and one.get("value", "") == taint.get("value", ""):
            return True
    return False


def _affine(pod: Json, node: Json, labels: Mapping[str, str]) -> bool:
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    if affinity is None:
        return True
    names = {"metadata.name": node["metadata"]["name"]}
    for term in affinity["nodeSelectorTerms"]:
        wanted = [(labels, one) for one in term.get("matchExpressions") or ()]
        wanted += [(names, one) for one in term.get("matchFields") or ()]
        if wanted and all(
            expression(given, one["key"], one["operator"], one.get("values") or []) for given, one in wanted
        ):
            return True
    return False


def _short(pod: Json, node: Json, used: Amounts) -> Iterable[str]:
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    for name, amount in asked(pod).items():
        if amount and used.get(name, Fraction(0)) + amount > quantity(allocatable.get(name, 0)):
            yield "Too many pods" if name == "pods" else f"Insufficient {name}"
