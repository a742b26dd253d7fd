"""The Pod Security Standards, as far as a container of a model server can break them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from moorage_kubernetes.testing.statuses import Json


def violations(spec: Json, level: str) -> list[str]:
    """What a pod breaks of `privileged`, `baseline` or `restricted`, as the server words it."""
    if level == "privileged":
        return []
    found = list(_baseline(spec))
    return found + list(_restricted(spec)) if level == "restricted" else found


def _baseline(spec: Json) -> Iterable[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield f"host namespaces ({name}=true)"
    mounted = [volume["name"] for volume in spec.get("volumes") or () if "hostPath" in volume]
    if mounted:
        yield f"hostPath volumes (volume{_many(mounted)})"
    privileged = _breaking(spec, lambda own, _: bool(own.get("privileged")))
    if privileged:
        yield f"privileged (container{_many(privileged)} must not set securityContext.privileged=true)"


def _restricted(spec: Json) -> Iterable[str]:
    escalating = _breaking(spec, lambda own, _: own.get("allowPrivilegeEscalation") is not False)
    if escalating:
        yield (
            f"allowPrivilegeEscalation != false (container{_many(escalating)} must set "
            "securityContext.allowPrivilegeEscalation=false)"
        )
    capable = _breaking(spec, lambda own, _: "ALL" not in (own.get("capabilities") or {}).get("drop", ()))
    if capable:
        yield (
            f"unrestricted capabilities (container{_many(capable)} must set "
            'securityContext.capabilities.drop=["ALL"])'
        )
    rooted = _breaking(spec, lambda own, pod: not own.get("runAsNonRoot", pod.get("runAsNonRoot")))
    if rooted:
        yield (
            f"runAsNonRoot != true (pod or container{_many(rooted)} must set "
            "securityContext.runAsNonRoot=true)"
        )
    profiled = _breaking(spec, lambda own, pod: not (own.get("seccompProfile") or pod.get("seccompProfile")))
    if profiled:
        yield (
            f"seccompProfile (pod or container{_many(profiled)} must set securityContext.seccompProfile.type "
            'to "RuntimeDefault" or "Localhost")'
        )


def _breaking(spec: Json, breaks: Callable[[Json, Json], bool]) -> list[str]:
    pod = spec.get("securityContext") or {}
    containers = (*spec.get("containers", ()), *spec.get("initContainers", ()))
    return [one["name"] for one in containers if breaks(one.get("securityContext") or {}, pod)]


def _many(names: list[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"s {listed}" if len(names) > 1 else f" {listed}"
