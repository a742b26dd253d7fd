"""Which access modes a storage class can do. The API does not tell: its provisioner's name does.

An unknown provisioner has no modes here, which means that nobody knows, not that it can do none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any  # the client's models are not typed

from moorage.domain.cluster import StorageClass
from moorage.domain.workload import AccessMode

_DEFAULT_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_FOLDER = (AccessMode.READ_WRITE_ONCE,)  # of one node, made without a CSI driver
_DISK = (AccessMode.READ_WRITE_ONCE, AccessMode.READ_WRITE_ONCE_POD)
_DISK_FOR_READERS = (AccessMode.READ_WRITE_ONCE, AccessMode.READ_ONLY_MANY, AccessMode.READ_WRITE_ONCE_POD)
_SHARED = (
    AccessMode.READ_WRITE_ONCE,
    AccessMode.READ_ONLY_MANY,
    AccessMode.READ_WRITE_MANY,
    AccessMode.READ_WRITE_ONCE_POD,
)

PROVISIONERS = {
    "ebs.csi.aws.com": _DISK,
    "ebs.csi.eks.amazonaws.com": _DISK,
    "kubernetes.io/aws-ebs": _DISK,
    "efs.csi.aws.com": _SHARED,
    "fsx.csi.aws.com": _SHARED,
    "pd.csi.storage.gke.io": _DISK_FOR_READERS,
    "kubernetes.io/gce-pd": _DISK_FOR_READERS,
    "filestore.csi.storage.gke.io": _SHARED,
    "disk.csi.azure.com": _DISK,
    "kubernetes.io/azure-disk": _DISK,
    "file.csi.azure.com": _SHARED,
    "kubernetes.io/azure-file": _SHARED,
    "blob.csi.azure.com": _SHARED,
    "dobs.csi.digitalocean.com": _DISK,
    "linodebs.csi.linode.com": _DISK,
    "csi.hetzner.cloud": _DISK,
    "cinder.csi.openstack.org": _DISK,
    "rbd.csi.ceph.com": _DISK_FOR_READERS,
    "cephfs.csi.ceph.com": _SHARED,
    "driver.longhorn.io": _SHARED,
    "nfs.csi.k8s.io": _SHARED,
    "k8s-sigs.io/nfs-subdir-external-provisioner": _SHARED,
    "smb.csi.k8s.io": _SHARED,
    "topolvm.io": _DISK,
    "rancher.io/local-path": _FOLDER,
    "openebs.io/local": _FOLDER,
    "k8s.io/minikube-hostpath": _FOLDER,
    "microk8s.io/hostpath": _FOLDER,
    "docker.io/hostpath": _FOLDER,
}
# Operators that install a driver put their namespace before its name.
_INSTALLED_BY_OPERATORS = ("rbd.csi.ceph.com", "cephfs.csi.ceph.com", "nfs-subdir-external-provisioner")


def access_modes(provisioner: str) -> tuple[AccessMode, ...]:
    if provisioner in PROVISIONERS:
        return PROVISIONERS[provisioner]
    for name in _INSTALLED_BY_OPERATORS:
        if provisioner.endswith((f".{name}", f"/{name}")):
            return PROVISIONERS.get(name, _SHARED)
    return ()


def storage_classes(found: Iterable[Any]) -> tuple[StorageClass, ...]:
    """Of `V1StorageClass`es, the default first."""
    classes = [
        StorageClass(
            name=each.metadata.name,
            provisioner=each.provisioner,
            default=any(
                (each.metadata.annotations or {}).get(name) == "true" for name in _DEFAULT_ANNOTATIONS
            ),
            access_modes=access_modes(each.provisioner),
        )
        for each in found
    ]
    return tuple(sorted(classes, key=lambda c: (not c.default, c.name)))
