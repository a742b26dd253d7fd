"""The operator's clusters, as kubeconfig files that the settings name.

The rules are those for what organizations upload, though the file is the operator's own: one mechanism, and
a service that needs no program and no second file of its host to reach a cluster.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from moorage.errors import Rejected
from moorage.ports.provider import Credentials
from moorage_kubernetes.kubeconfig import MAX_BYTES, read_access
from moorage_managed.settings import PREFIX

VARIABLE = f"{PREFIX}KUBECONFIGS"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def read_kubeconfigs(setting: str, now: datetime) -> Mapping[str, Credentials]:
    """By the clusters' names, out of `path` or `name=path`, separated as in PATH; a file without a name has
    that of its stem. Blocks. Raises ValueError with the file and the rule that it breaks."""
    found: dict[str, Credentials] = {}
    servers: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in setting.split(os.pathsep))):
        name, path = _named(entry)
        if name in found:
            raise ValueError(f"{VARIABLE}: two clusters have the name {name!r}. Write name=path for one.")
        credentials = _read(path, now)
        server = credentials.values["server"].rstrip("/")
        if server in servers:
            raise ValueError(f"{VARIABLE}: {servers[server]} and {name} are one cluster, {server}.")
        servers[server] = name
        found[name] = credentials
    if not found:
        raise ValueError(
            f"{VARIABLE} must name the kubeconfig of at least one cluster, with {PREFIX}DRIVER=kubernetes"
        )
    return found


def _named(entry: str) -> tuple[str, Path]:
    name, equals, path = entry.partition("=")
    if not equals or "/" in name:
        name, path = Path(entry).stem, entry
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{VARIABLE}: {name!r} is no name for a cluster: up to 63 letters, digits, '.', '_' and '-'. "
            "Write name=path."
        )
    return name, Path(path).expanduser()


def _read(path: Path, now: datetime) -> Credentials:
    """The namespace of its context is left out: each organization has another one."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1).decode()
        values = dict(read_access({"kubeconfig": text}, now))
    except OSError as error:
        raise ValueError(f"{VARIABLE}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{VARIABLE}: {path} is not text in UTF-8") from None
    except Rejected as error:
        rules = ", ".join(field.rule for field in error.fields)
        advice = f" {error.advice}" if error.advice else ""
        raise ValueError(f"{VARIABLE}: {path} breaks the rule {rules}: {error.detail}{advice}") from None
    values.pop("namespace", None)
    return Credentials(values)
