"""Every search that is sent to Firestore, by its shape, so that the indexes can be told from it (`indexes`).

A shape is what an index is made for: which fields are compared how, and the order. `search` adds the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from moorage.adapters.firestore.documents import PARTS, SIGNALS
from moorage.adapters.firestore.kinds import (
    API_KEY,
    BY_NAME,
    CLUSTER,
    DELIVERY,
    DEPLOYMENT,
    EVENTS,
    JOB,
    MODEL_VERSION,
    NODE_GROUP,
    PROVIDER_CREDENTIAL,
    USER,
)

Operator = Literal["==", "in", "<=", ">", ">="]
Direction = Literal["ASCENDING", "DESCENDING"]
UP: Direction = "ASCENDING"
DOWN: Direction = "DESCENDING"
_EQUALITIES = ("==", "in")


@dataclass(frozen=True)
class Shape:
    """`fields`: only these are read, all where none are named. `sums`: of these fields, beside the count.
    `joined`: any of several conditions may be missing, and an index for each is joined with the others'."""

    collection: str
    where: tuple[tuple[str, Operator], ...] = ()
    order: tuple[tuple[str, Direction], ...] = ()
    fields: tuple[str, ...] = ()
    sums: tuple[str, ...] = ()
    joined: bool = False

    @property
    def equalities(self) -> tuple[str, ...]:
        return tuple(name for name, operator in self.where if operator in _EQUALITIES)

    @property
    def ranges(self) -> tuple[str, ...]:
        return tuple(name for name, operator in self.where if operator not in _EQUALITIES)

    def search(
        self,
        chosen: Mapping[str, Any] | None = None,
        *,
        limit: int | None = None,
        after: Mapping[str, Any] | None = None,  # Any: values of fields, and a document's id as `__name__`
        **values: Any,
    ) -> Search:
        values |= chosen or {}
        conditions = tuple((name, operator, values.pop(name)) for name, operator in self.where)
        if values:
            raise TypeError(f"the search has no condition on {', '.join(values)}")
        return Search(self, conditions, limit, after)


@dataclass(frozen=True)
class Search:
    shape: Shape
    conditions: tuple[tuple[str, Operator, Any], ...]
    limit: int | None
    after: Mapping[str, Any] | None


SHAPES: list[Shape] = []


def _shape(
    collection: str,
    where: str = "",
    order: str = "",
    fields: Iterable[str] = (),
    sums: str = "",
    *,
    joined: bool = False,
) -> Shape:
    """`where` is like "home in, claim_at <=", `order` like "created_at, -__name__"."""
    conditions: list[tuple[str, Operator]] = []
    for condition in filter(None, where.split(", ")):
        name, operator = condition.split(" ")
        conditions.append((name, _OPERATORS[operator]))
    orders = tuple(
        (name.lstrip("-"), DOWN if name[0] == "-" else UP) for name in filter(None, order.split(", "))
    )
    shape = Shape(collection, tuple(conditions), orders, tuple(fields), tuple(sums.split()), joined)
    SHAPES.append(shape)
    return shape


_OPERATORS: Mapping[str, Operator] = {"==": "==", "in": "in", "<=": "<=", ">": ">", ">=": ">="}
_NEWEST = "-created_at, -__name__"
# What a change of lease or due time reads and writes.
LEASE_FIELDS = ("id", "due_at", "lease_token", "lease_until", "woken_at", "home", "expires_at")


def _listing(collection: str, always: str, optional: tuple[str, ...]) -> Mapping[frozenset[str], Shape]:
    """A shape for each choice of filters, by the names of their fields; newest first."""
    shapes = {}
    for count in range(len(optional) + 1):
        for chosen in combinations(optional, count):
            names = frozenset(condition.split(" ")[0] for condition in chosen)
            shapes[names] = _shape(collection, ", ".join((always, *chosen)), _NEWEST, joined=True)
    return shapes


# -- deployments and deliveries

DEPLOYMENTS = _listing(
    DEPLOYMENT.collection, "organization_id ==", ("phase in", "provider ==", "model ==", "name ==")
)
DEPLOYMENT_NAMED = _shape(DEPLOYMENT.collection, "unique ==")
SERVING = _shape(DEPLOYMENT.collection, "serving ==")
SERVING_VERSIONS = _shape(DEPLOYMENT.collection, "serving ==", fields=["id", "version"])
DUE_AT_HOME = _shape(DEPLOYMENT.collection, "home in, claim_at <=", "due_at")
DUE_ELSEWHERE = _shape(DEPLOYMENT.collection, "away_at <=", "due_at")
NEXT_AT_HOME = _shape(DEPLOYMENT.collection, "home in", "claim_at", ["claim_at"])
NEXT_ELSEWHERE = _shape(DEPLOYMENT.collection, "", "away_at", ["away_at"])

DELIVERIES = _listing(DELIVERY.collection, "organization_id ==", ("state ==", "subject_id =="))
DUE_DELIVERIES = _shape(DELIVERY.collection, "claim_at <=", "due_at")
NEXT_DELIVERY = _shape(DELIVERY.collection, "", "claim_at", ["claim_at"])

EVENTS_OF = _shape(EVENTS, "subject_id ==, id >", "id")

# -- jobs

DUE_JOBS = _shape(JOB.collection, "deployment_id ==, claim_at <=", "rank, created_at")
JOB_QUEUES = _shape(JOB.collection, "deployment_id >, claim_at <=", "deployment_id", ["deployment_id"])
JOBS_IN_STATE = _shape(JOB.collection, "deployment_id ==, state ==", sums="retries")
JOB_BACKLOG = _shape(JOB.collection, "deployment_id ==, state ==", sums="size")
QUEUED_JOBS = _shape(JOB.collection, "deployment_id ==, state ==", "created_at, __name__")
UNENDED_JOBS = _shape(JOB.collection, "deployment_id ==", "expires_at, __name__", LEASE_FIELDS)
NEXT_MOMENTS = tuple(
    _shape(JOB.collection, f"{name} >", name, [name]) for name in ("due_at", "expires_at", "lease_until")
)
NEXT_JOB = _shape(JOB.collection, "", "claim_at", ["claim_at"])
EXPIRED_JOBS = _shape(JOB.collection, "expires_at <=", "expires_at, __name__")
FORGOTTEN_JOBS = _shape(JOB.collection, "forget_at <=", "forget_at, __name__", ["id"])

# -- what organizations have

USER_NAMED = _shape(USER.collection, "username ==")
API_KEYS = _shape(API_KEY.collection, "organization_id ==")
API_KEY_BY_HASH = _shape(API_KEY.collection, "hash ==")
CREDENTIALS = {
    frozenset(names): _shape(PROVIDER_CREDENTIAL.collection, ", ".join(f"{name} ==" for name in names))
    for names in ((), ("organization_id",), ("provider",), ("organization_id", "provider"))
}
CLUSTERS = _shape(CLUSTER.collection, "organization_id ==, there ==")
NODE_GROUPS = _shape(NODE_GROUP.collection, "organization_id ==, there ==")
NODE_GROUPS_OF = _shape(NODE_GROUP.collection, "organization_id ==, cluster_id ==, there ==")
MODEL_VERSIONS = _shape(MODEL_VERSION.collection, "organization_id ==, there ==", _NEWEST)

# -- the store's own

LOST_PARTS = _shape(PARTS, "pending_since <=", "pending_since", ["pending_since"])
OLD_SIGNALS = _shape(SIGNALS, "at <=", "at", ["at"])
ARCHIVES: Mapping[str, Shape] = {
    **{name: _shape(kind.collection, "id >", "id") for name, kind in BY_NAME.items()},
    "event": _shape(EVENTS, "key >", "key"),
}
