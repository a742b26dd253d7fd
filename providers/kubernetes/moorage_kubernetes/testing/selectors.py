"""Label and field selectors, as queries and as objects carry them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from moorage_kubernetes.testing.statuses import Json, bad_request

Test = Callable[[Json], bool]
_SET = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<how>in|notin)\s+\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<how>==|=|!=)\s*(?P<value>[^\s!=,()]*)$")
_KEY = re.compile(r"^(?P<no>!?)\s*(?P<key>[^\s!=,()]+)$")
_PART = re.compile(r",(?![^(]*\))")
_ALWAYS = ("metadata.name", "metadata.namespace")
_FIELDS = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP", "spec.serviceAccountName"),
    "Event": (
        *("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid"),
        *("reason", "type", "reportingComponent", "source"),
    ),
    "Secret": ("type",),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
    "ReplicaSet": ("status.replicas",),
}


def labels(text: str) -> Test:
    """A test of an object by `a=b,c!=d,e in (f,g),h,!i`. Raises ApiError 400."""
    wanted = [_requirement(part.strip()) for part in _PART.split(text) if part.strip()]
    return lambda value: all(one(value["metadata"].get("labels") or {}) for one in wanted)


def fields(text: str, kind: str) -> Test:
    """A test of an object by `metadata.name=a,status.phase!=Running`. Raises ApiError 400."""
    tests: list[Test] = []
    for part in text.split(","):
        if not part.strip():
            continue
        met = _EQUAL.match(part.strip())
        if met is None:
            raise bad_request(f"invalid field selector: {part}")
        known = (*_ALWAYS, *_FIELDS.get(kind, ()))
        if met["key"] not in known:
            raise bad_request(f'field label not supported: "{met["key"]}"')
        tests.append(_field(met["key"], met["value"], met["how"] != "!="))
    return lambda value: all(one(value) for one in tests)


def matches(selector: Json | None, given: Mapping[str, str]) -> bool:
    """Whether labels meet a LabelSelector; an empty one meets all, an absent one none."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if given.get(key) != value:
            return False
    return all(
        expression(given, one["key"], one["operator"], one.get("values") or [])
        for one in selector.get("matchExpressions") or ()
    )


def expression(given: Mapping[str, str], key: str, operator: str, values: Sequence[str]) -> bool:
    """One requirement of a label selector or of a node's affinity."""
    value = given.get(key)
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and value.isdigit() and int(value) > int(values[0])
        case "Lt":
            return value is not None and value.isdigit() and int(value) < int(values[0])
    return False


def _requirement(part: str) -> Callable[[Mapping[str, str]], bool]:
    if met := _SET.match(part):
        values = [value.strip() for value in met["values"].split(",")]
        return _labelled(met["key"], "In" if met["how"] == "in" else "NotIn", values)
    if met := _EQUAL.match(part):
        return _labelled(met["key"], "NotIn" if met["how"] == "!=" else "In", [met["value"]])
    if met := _KEY.match(part):
        return _labelled(met["key"], "DoesNotExist" if met["no"] else "Exists", [])
    raise bad_request(f"unable to parse requirement: {part}")


def _labelled(key: str, operator: str, values: Sequence[str]) -> Callable[[Mapping[str, str]], bool]:
    return lambda given: expression(given, key, operator, values)


def _field(path: str, wanted: str, same: bool) -> Test:
    def test(value: Json) -> bool:
        found: object = value
        for step in path.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, dict):
            found = found.get("component")  # an event's source
        text = str(found).lower() if isinstance(found, bool) else str(found or "")
        return (text == wanted) is same

    return test
