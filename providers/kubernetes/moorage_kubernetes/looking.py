"""One look at an endpoint: from the kept copy where it can be believed, else from the cluster.

What serves costs no call. Only where something is not ready are events read, and a log only where a container
crashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any  # Kubernetes objects as they are read

from moorage.domain.observation import Access, Observation, Trouble
from moorage.errors import Gone, ProviderError
from moorage_kubernetes import marks
from moorage_kubernetes.applying import Objects
from moorage_kubernetes.client import ClusterClient
from moorage_kubernetes.findings import Finding, Told, parse_time, told
from moorage_kubernetes.judging import LOG_LINES, Sight, Urls, findings_of, is_ready, judge, living
from moorage_kubernetes.kinds import CLAIM, DEPLOYMENT, POD
from moorage_kubernetes.log_reading import last_lines
from moorage_kubernetes.settings import KubernetesSettings
from moorage_kubernetes.watching import ClusterView

Object = dict[str, Any]

PODS_ASKED = 4  # whose events are read in one look
EVENTS = 50


@dataclass(frozen=True, slots=True)
class Looker:
    """On one cluster. `now` gives the time of today, which the cluster's clock is taken to agree with."""

    client: ClusterClient
    objects: Objects
    view: ClusterView
    settings: KubernetesSettings
    now: Callable[[], datetime]

    async def look(self, namespace: str, name: str) -> tuple[Observation, Object]:
        """What is seen, and the Deployment that it was seen of. Raises Gone."""
        sight = await self._sight(namespace, name)
        now = self.now()
        findings = findings_of(sight, self.settings, now)
        if findings:
            sight = replace(sight, events=tuple(await self._events(namespace, sight, findings)))
            sight = replace(sight, log=await self._log(namespace, sight, now))
        seen = judge(sight, self._urls(namespace, sight), access_of(self.client), self.settings, now)
        return seen, sight.deployment

    async def _sight(self, namespace: str, name: str) -> Sight:
        deployment = self.view.known(namespace, name)
        if deployment is not None:
            pods = self.view.pods(name)
        else:
            deployment = await self.objects.get(DEPLOYMENT, namespace, name)
            if deployment is None:
                raise Gone(f"The cluster has no deployment {name}")
            selector = marks.selector(self.settings.installation, name)
            pods = await self.objects.list(POD, namespace, selector)
        front = await self._front(namespace, deployment)
        return Sight(
            deployment,
            tuple(p for p in pods if _role(p) != marks.FRONT),
            front,
            tuple(p for p in pods if _role(p) == marks.FRONT),
        )

    async def _front(self, namespace: str, deployment: Object) -> Object | None:
        metadata = deployment["metadata"]
        if (metadata.get("annotations") or {}).get(marks.FRONTED) != "true":
            return None
        name = marks.front_name(metadata["name"])
        found = self.view.known(namespace, name) or await self.objects.get(DEPLOYMENT, namespace, name)
        return found or {**deployment, "status": {}}

    async def _events(self, namespace: str, sight: Sight, findings: dict[str, Finding]) -> Iterable[Told]:
        """Oldest first. Who may not list them sees less."""
        names = [*sorted(findings)[:PODS_ASKED], *_claims(sight)]
        found: list[Object] = []
        for name in names:
            try:
                page = await self.client.read(
                    self.client.core.list_namespaced_event,
                    namespace=namespace,
                    field_selector=f"involvedObject.name={name}",
                    limit=EVENTS,
                )
            except ProviderError:
                break
            found += page.get("items") or ()
        return [told(event) for event in sorted(found, key=_when)]

    async def _log(self, namespace: str, sight: Sight, now: datetime) -> tuple[str, ...]:
        findings = findings_of(sight, self.settings, now)
        ready = any(is_ready(pod) for pod in living(sight.pods))
        crashed = [f.logs for f in findings.values() if f.logs and f.trouble is Trouble.CRASH_LOOP]
        unready = [f.logs for f in findings.values() if f.logs]
        for pod in (*crashed, *unready)[:1]:
            if pod is not None and not ready:
                return await last_lines(self.client, namespace, pod, LOG_LINES, previous=pod in crashed)
        return ()

    def _urls(self, namespace: str, sight: Sight) -> Urls:
        metadata = sight.deployment["metadata"]
        base = f"{self.client.server}/api/v1/namespaces/{namespace}"
        port = sight.deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"]
        return Urls(
            f"{base}/pods/http:{{pod}}:{port}/proxy",
            f"{base}/services/http:{metadata['name']}:http/proxy",
        )


def access_of(client: ClusterClient) -> Access:
    """What goes with requests to the API server's proxy. The authority is named even where its value is
    empty: that stands for those that the system trusts, and the host is a user's all the same."""
    values = client.values
    with_certificate = bool(values.get("client_certificate"))
    return Access(
        bearer="token" if values.get("token") else None,
        authority="certificate_authority",
        certificate="client_certificate" if with_certificate else None,
        key="client_key" if with_certificate else None,
    )


def _claims(sight: Sight) -> list[str]:
    """Of a pod that no node was found for, for a claim may be the reason."""
    waits = any(not pod["spec"].get("nodeName") for pod in living(sight.pods))
    volumes = sight.deployment["spec"]["template"]["spec"].get("volumes") or ()
    return [v[_CLAIM]["claimName"] for v in volumes if _CLAIM in v] if waits else []


_CLAIM = CLAIM.name[0].lower() + CLAIM.name[1:]


def _role(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(marks.ROLE, ""))


def _when(event: Object) -> float:
    texts = (event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    found = next((t for text in texts if (t := parse_time(text)) is not None), None)
    return 0.0 if found is None else found.timestamp()
