"""What objects, labels and annotations may be called."""

from __future__ import annotations

import re

from moorage_kubernetes.testing import resources as known
from moorage_kubernetes.testing.causes import Causes, invalid
from moorage_kubernetes.testing.resources import Resource
from moorage_kubernetes.testing.statuses import Json

LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SERVICE = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_QUALIFIED = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character"
)
LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
    "and end with an alphanumeric character"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character"
)


def metadata_rules(resource: Resource, metadata: Json) -> Causes:
    name = metadata["name"]
    strict = resource in (known.SERVICES, known.NAMESPACES)
    most = 63 if strict else 253
    pattern, rule = (LABEL, LABEL_RULE) if strict else (_SUBDOMAIN, _SUBDOMAIN_RULE)
    if resource == known.SERVICES:
        pattern = _SERVICE
        rule = "a DNS-1035 label must start with an alphabetic character and be of lower case"
    if resource.group != "rbac.authorization.k8s.io" and (len(name) > most or not pattern.match(name)):
        why = rule if not pattern.match(name) else f"must be no more than {most} characters"
        yield invalid("metadata.name", name, why)
    for key, value in (metadata.get("labels") or {}).items():
        yield from label_rules("metadata.labels", key, value)
    for key in metadata.get("annotations") or {}:
        yield from key_rules("metadata.annotations", key)


def label_rules(field: str, key: str, value: str) -> Causes:
    yield from key_rules(field, key)
    if value and (len(value) > 63 or not _QUALIFIED.match(value)):
        yield invalid(field, value, _VALUE_RULE if len(value) <= 63 else "must be no more than 63 characters")


def key_rules(field: str, key: str) -> Causes:
    prefix, slash, name = key.rpartition("/")
    if len(name) > 63 or not _QUALIFIED.match(name) or (slash and not _SUBDOMAIN.match(prefix.lower())):
        yield invalid(field, key, "name part must consist of alphanumeric characters, '-', '_' or '.'")
