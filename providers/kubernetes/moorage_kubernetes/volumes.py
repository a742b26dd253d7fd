"""Persistent volume claims: which are made, which are found and used, and which can never be. Pure.

A claim has the name that its owner chose. One that is there and not of our making is used, and never deleted;
one of another deployment is not shared by accident.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any  # Kubernetes objects as they are read and sent

from moorage.domain.cluster import StorageClass
from moorage.domain.workload import AccessMode, Volume
from moorage.errors import FieldError, Rejected
from moorage_kubernetes import marks
from moorage_kubernetes.quantities import memory_quantity

Object = dict[str, Any]

ONE_NODE = (AccessMode.READ_WRITE_ONCE, AccessMode.READ_WRITE_ONCE_POD)


def claim(volume: Volume, namespace: str, labels: Mapping[str, str]) -> Object:
    spec: Object = {
        "accessModes": [volume.access_mode.value],
        "resources": {"requests": {"storage": memory_quantity(volume.size)}},
    }
    if volume.storage_class is not None:
        spec["storageClassName"] = volume.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume.name, "namespace": namespace, "labels": dict(labels)},
        "spec": spec,
    }


def held_by_one(volumes: Sequence[Volume]) -> bool:
    """Whether a new pod cannot have its volumes before the old one has let go of them."""
    return any(volume.access_mode in ONE_NODE for volume in volumes)


def claims_to_make(
    volumes: Sequence[Volume],
    there: Mapping[str, Object],
    installation: str,
    deployment_id: str,
) -> list[Volume]:
    """Those that are missing, and those that are this deployment's own; `there` are the claims of these names
    that exist. Raises Rejected for a claim of another deployment."""
    refusals = [
        FieldError(
            _field(place, "name"),
            "belongs_to_another_deployment",
            f"the claim {volume.name} belongs to another deployment ({_owner(there[volume.name])})",
        )
        for place, volume in enumerate(volumes)
        if volume.name in there and _anothers(there[volume.name], installation, deployment_id)
    ]
    if refusals:
        raise Rejected(
            "; ".join(e.message for e in refusals), fields=refusals, advice="Choose another name for it."
        )
    return [
        volume
        for volume in volumes
        if volume.name not in there or marks.is_ours(_labels(there[volume.name]), installation)
    ]


def refuse_access_modes(
    volumes: Sequence[Volume], there: Collection[str], classes: Sequence[StorageClass], *, replicas: int
) -> None:
    """Of the claims that are not `there` by name. `classes` are those of the cluster, `replicas` the most
    that there may be. A class of which nobody knows what it can do is believed. Raises Rejected."""
    refusals = [
        error
        for place, volume in enumerate(volumes)
        if volume.name not in there
        for error in _impossible(place, volume, classes, replicas)
    ]
    if refusals:
        raise Rejected(
            "; ".join(e.message for e in refusals),
            fields=refusals,
            advice="Ask for an access mode that the storage class can do, or name another class.",
        )


def _impossible(
    place: int, volume: Volume, classes: Sequence[StorageClass], replicas: int
) -> Iterator[FieldError]:
    mode = volume.access_mode
    if mode is AccessMode.READ_WRITE_ONCE_POD and replicas > 1:
        message = f"{mode} lets one replica have the volume, and there may be {replicas}"
        yield FieldError(_field(place, "access_mode"), "one_replica_only", message)
    if not classes:
        return  # they could not be read
    wanted = volume.storage_class
    found = next((c for c in classes if c.name == wanted or (wanted is None and c.default)), None)
    if found is None and wanted is not None:
        known = ", ".join(c.name for c in classes)
        message = f"the cluster has no storage class {wanted}; it has {known}"
        yield FieldError(_field(place, "storage_class"), "known_storage_class", message)
    if found is not None and found.access_modes and mode not in found.access_modes:
        can = ", ".join(found.access_modes)
        message = f"the storage class {found.name} ({found.provisioner}) cannot do {mode}; it can do {can}"
        yield FieldError(_field(place, "access_mode"), "possible_access_mode", message)


def _anothers(found: Object, installation: str, deployment_id: str) -> bool:
    labels = _labels(found)
    if labels.get(marks.MANAGED_BY) != marks.MANAGER:
        return False
    return not marks.is_ours(labels, installation) or labels.get(marks.DEPLOYMENT) != deployment_id


def _owner(found: Object) -> str:
    return _labels(found).get(marks.DEPLOYMENT, "unknown")


def _labels(found: Object) -> Mapping[str, str]:
    return found["metadata"].get("labels") or {}


def _field(place: int, name: str) -> str:
    return f"workload.volumes[{place}].{name}"
