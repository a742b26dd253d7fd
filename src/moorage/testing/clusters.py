"""A provider in memory whose accounts are clusters, for tests of what a service does with clusters.

What opens a cluster is a token; its kubeconfig is the same as JSON. Each server is a world of its own: what a
check finds there, whether it answers, and which token it takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from moorage.domain.cluster import ClusterReport
from moorage.errors import FieldError, Rejected, Retry, Unauthorized
from moorage.ports.provider import Account, Credentials
from moorage.testing.provider import InProcessCompute, InProcessProvider

OPENS = "open sesame"


@dataclass(slots=True)
class FakeCluster:
    token: str = OPENS
    answers: bool = True
    report: ClusterReport = field(default_factory=lambda: ClusterReport(datetime.now(UTC), version="v1.34.0"))


class InProcessClusters(InProcessProvider):
    """`Clusters` beside all that an `InProcessProvider` is. A server that `clusters` does not know does not
    answer."""

    def __init__(self, compute: InProcessCompute | None = None) -> None:
        super().__init__(compute or InProcessCompute(name="clusters"))
        self.credential_fields = {"server": "the URL of the cluster", "token": "a token for it"}
        self.clusters: dict[str, FakeCluster] = {}

    def read_access(self, given: Mapping[str, str]) -> Mapping[str, str]:
        values = dict(given)
        if "kubeconfig" in values:
            try:
                values |= json.loads(values.pop("kubeconfig"))
            except ValueError as error:
                raise _rejected("kubeconfig", "readable", "The kubeconfig is not JSON.") from error
        if not values.get("server", "").startswith("https://"):
            raise _rejected("server", "scheme", "The server must begin with https://.")
        if "token" not in values:
            raise _rejected("token", "required", "A token is needed.")
        return values

    async def check_credentials(self, credentials: Credentials | None) -> Account:
        await super().check_credentials(credentials)
        return Account(self._opened(credentials).report.version or "")

    async def check(self, credentials: Credentials) -> ClusterReport:
        return replace(self._opened(credentials).report, checked_at=datetime.now(UTC))

    def _opened(self, credentials: Credentials | None) -> FakeCluster:
        values = {} if credentials is None else credentials.values
        cluster = self.clusters.get(values.get("server", ""))
        if cluster is None or not cluster.answers:
            raise Retry(f"{values.get('server')} does not answer")
        if values.get("token") != cluster.token:
            raise Unauthorized("The cluster refuses the token.", advice="Make a new one.")
        return cluster


def _rejected(name: str, rule: str, message: str) -> Rejected:
    return Rejected(message, fields=(FieldError(f"body.{name}", rule, message),))
