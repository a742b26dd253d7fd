"""Claims: bound to a volume by their storage class, or not and why; kept while a pod uses them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.clock import now
from moorage_kubernetes.testing.controllers.owners import deleting
from moorage_kubernetes.testing.faults import named
from moorage_kubernetes.testing.nodes import ACCESS_MODES, ANY_MODE
from moorage_kubernetes.testing.statuses import Json
from moorage_kubernetes.testing.store import Change, Key, clone, key_of
from moorage_kubernetes.testing.world import World

PROTECTION = "kubernetes.io/pvc-protection"


class Volumes:
    def __init__(self, world: World) -> None:
        self._world = world

    def concerned(self, change: Change) -> Iterable[Key]:
        if change.resource == known.CLAIMS:
            if change.kind == "DELETED" and change.object["spec"].get("volumeName"):
                self._release(change.object)
                return []
            return [key_of(change.object)]
        if change.resource == known.STORAGE_CLASSES:
            return self.everything()
        if change.resource == known.PODS:
            namespace = change.object["metadata"]["namespace"]
            return [(namespace, name) for name in _claims(change.object)]
        return []

    def everything(self) -> Iterable[Key]:
        return [key_of(value) for value in self._world.store.of(known.CLAIMS)]

    def reconcile(self, key: Key) -> None:
        claim = self._world.store.get(known.CLAIMS, *key)
        if claim is None:
            return
        users = [pod for pod in self._world.store.of(known.PODS, key[0]) if key[1] in _claims(pod)]
        if deleting(claim):
            if not users:
                self._unprotect(claim)
            return
        if claim["status"]["phase"] == "Pending":
            self._bind(claim, placed=any(pod["spec"].get("nodeName") for pod in users))

    def _bind(self, claim: Json, *, placed: bool) -> None:
        name = claim["spec"].get("storageClassName")
        if not name:
            told = "no persistent volumes available for this claim and no storage class is set"
            self._event(claim, "FailedBinding", told, normal=True)
            return
        kind = self._world.store.get(known.STORAGE_CLASSES, "", name)
        if kind is None:
            self._event(claim, "ProvisioningFailed", f'storageclass.storage.k8s.io "{name}" not found')
            return
        if kind["volumeBindingMode"] == "WaitForFirstConsumer" and not placed:
            told = "waiting for first consumer to be created before binding"
            self._event(claim, "WaitForFirstConsumer", told, normal=True)
            return
        marked = (kind["metadata"].get("annotations") or {}).get(ACCESS_MODES)
        able = marked.split(",") if marked else ANY_MODE
        wrong = [mode for mode in claim["spec"]["accessModes"] if mode not in able]
        metadata = claim["metadata"]
        failing = named(self._world.faults.provisioning, metadata["name"], "/".join(key_of(claim)))
        if wrong or failing:
            why = f"unsupported access mode {wrong[0]}" if wrong else "the quota of disks is used up"
            code = "InvalidArgument" if wrong else "ResourceExhausted"
            rpc = f"rpc error: code = {code} desc = {why}"
            told = f'failed to provision volume with StorageClass "{name}": {rpc}'
            self._event(claim, "ProvisioningFailed", told)
            return
        self._provision(claim, kind)

    def _provision(self, claim: Json, kind: Json) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        size = spec["resources"]["requests"]["storage"]
        name = f"pvc-{metadata['uid']}"
        volume: Json = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": now()},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": spec["accessModes"],
                "storageClassName": kind["metadata"]["name"],
                "persistentVolumeReclaimPolicy": kind["reclaimPolicy"],
                "claimRef": {"kind": "PersistentVolumeClaim", "namespace": metadata["namespace"]},
                "csi": {"driver": kind["provisioner"], "volumeHandle": name},
            },
            "status": {"phase": "Bound"},
        }
        volume["spec"]["claimRef"] |= {"name": metadata["name"], "uid": metadata["uid"]}
        self._world.store.put(known.VOLUMES, volume)
        made = clone(claim)
        made["spec"]["volumeName"] = name
        made["status"] = {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": {"storage": size}}
        self._world.store.put(known.CLAIMS, made)
        self._event(made, "ProvisioningSucceeded", f"Successfully provisioned volume {name}", normal=True)

    def _release(self, claim: Json) -> None:
        volume = self._world.store.get(known.VOLUMES, "", claim["spec"]["volumeName"])
        if volume is None:
            return
        if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete":
            self._world.store.remove(known.VOLUMES, volume)
        else:
            self._world.set_status(known.VOLUMES, volume, {"phase": "Released"})

    def _unprotect(self, claim: Json) -> None:
        made = clone(claim)
        made["metadata"]["finalizers"] = [f for f in made["metadata"]["finalizers"] if f != PROTECTION]
        if not self._world.objects.remove_if_done(known.CLAIMS, made):
            self._world.store.put(known.CLAIMS, made)

    def _event(self, claim: Json, reason: str, message: str, *, normal: bool = False) -> None:
        self._world.event(claim, reason, message, normal=normal, source="persistentvolume-controller")


def _claims(pod: Json) -> list[str]:
    volumes = pod["spec"].get("volumes") or ()
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
