"""What opens a cluster, out of what a user gave: a kubeconfig, or an address with an authority and a token.

A kubeconfig is a program's input in disguise. It may name programs to run, files to read and proxies to go
by, all of this machine; it may switch off the check of certificates. None of it is ever used here: what is
kept are plain values, and what cannot be had from the text alone is refused, with what to do instead.

Nothing is asked, and no message repeats a value that may be secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any  # YAML of a user, of any shape until it is read
from urllib.parse import urlsplit

import yaml

from moorage.errors import FieldError, Rejected
from moorage_kubernetes.certificates import authority_problem, pair_problem
from moorage_kubernetes.settings import is_dns_label

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_TOKEN = 64 * 1024

_DIRECT = ("server", "certificate_authority", "token")
OPTIONAL = ("namespace", "prometheus_url", "rabbitmq_url", "redis_url", "gateway")
_SCHEMES = {
    "prometheus_url": ("http", "https"),
    "rabbitmq_url": ("amqp", "amqps"),
    "redis_url": ("redis", "rediss"),
}
ACCOUNT_ADVICE = (
    "Make a service account with a token of its own (a Secret of type kubernetes.io/service-account-token), "
    "and give server, certificate_authority and token."
)
INLINE_ADVICE = "Write the kubeconfig with its contents in it: kubectl config view --raw --flatten --minify."

# In a user or a cluster of a kubeconfig: what it would have us do, and what to do instead.
_REFUSED = {
    "exec": ("exec_plugin", "runs a program on this service's host", ACCOUNT_ADVICE),
    "auth-provider": ("auth_provider", "needs a login that this service cannot do", ACCOUNT_ADVICE),
    "username": ("basic_auth", "is a way to log in that Kubernetes has given up", ACCOUNT_ADVICE),
    "password": ("basic_auth", "is a way to log in that Kubernetes has given up", ACCOUNT_ADVICE),
    "as": ("impersonation", "acts in another's name", ACCOUNT_ADVICE),
    "tokenFile": ("file_path", "names a file on your machine", INLINE_ADVICE),
    "client-certificate": ("file_path", "names a file on your machine", INLINE_ADVICE),
    "client-key": ("file_path", "names a file on your machine", INLINE_ADVICE),
    "certificate-authority": ("file_path", "names a file on your machine", INLINE_ADVICE),
    "proxy-url": ("proxy", "leads through a proxy", "Give an address that can be reached directly."),
    "tls-server-name": (
        "tls_server_name",
        "has a certificate of another name",
        "Give an address that the certificate of the API server names.",
    ),
}
_INSECURE = (
    "insecure",
    "switches off the check of the server's certificate",
    "Give the certificate authority of the cluster's API server.",
)


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """One rule that is broken; `field` is within what was given."""

    field: str
    rule: str
    message: str
    advice: str | None = None


def read_access(given: Mapping[str, str], now: datetime) -> dict[str, str]:
    """The values of a credential: `server`, `certificate_authority` (empty: those that the system trusts),
    and `token` or `client_certificate` and `client_key`; and the optional ones. `given` has `kubeconfig`,
    with `context` perhaps, or the first three. Raises Rejected, by field."""
    try:
        if given.get("kubeconfig") is not None:
            values = _of_kubeconfig(given["kubeconfig"], given.get("context"))
            where = _WITHIN_KUBECONFIG
        else:
            values = {name: given.get(name, "").strip() for name in _DIRECT}
            if values["certificate_authority"]:
                values["certificate_authority"] += "\n"  # as PEM ends
            where = {}
        _check(values, where, now)
        values.update({name: given[name].strip() for name in OPTIONAL if given.get(name, "").strip()})
        for name in OPTIONAL:
            if name in values:
                _check_optional(name, values[name])
    except Refusal as refusal:
        field = f"body.{refusal.field}"
        error = FieldError(field, refusal.rule, refusal.message)
        raise Rejected(refusal.message, fields=(error,), advice=refusal.advice) from None
    return values


_WITHIN_KUBECONFIG = dict.fromkeys(
    ("server", "certificate_authority", "token", "client_certificate", "client_key"), "kubeconfig"
)


# -- a kubeconfig -------------------------------------------------------------------------------------------


def _of_kubeconfig(text: str, context: str | None) -> dict[str, str]:
    config = _mapping(_parsed(text), "kubeconfig", "The kubeconfig")
    name = context or config.get("current-context")
    if not isinstance(name, str) or not name:
        message = "The kubeconfig names no current-context."
        raise Refusal("kubeconfig", "current_context", message, "Set one, or say which context to use.")
    chosen = _named(config, "contexts", "context", name)
    cluster = _named(config, "clusters", "cluster", str(chosen.get("cluster") or ""))
    user = _named(config, "users", "user", str(chosen.get("user") or ""))
    _refuse(cluster, "cluster")
    _refuse(user, "user")
    values = {
        "server": _text(cluster.get("server"), "cluster.server"),
        "certificate_authority": _decoded(cluster, "certificate-authority-data"),
    }
    certificate, key = _decoded(user, "client-certificate-data"), _decoded(user, "client-key-data")
    token = _text(user.get("token"), "user.token")
    if token:
        values["token"] = token
    if certificate or key:
        values |= {"client_certificate": certificate, "client_key": key}
    namespace = _text(chosen.get("namespace"), "context.namespace")
    if namespace and namespace != "default":  # which is where nobody has chosen one
        values["namespace"] = namespace
    return values


class _Loader(yaml.SafeLoader):
    """Plain values only, without aliases, which no tool that writes kubeconfigs uses: a few lines of these
    can stand for more than fits into memory."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise Refusal("kubeconfig", "no_aliases", "The kubeconfig uses YAML aliases.", INLINE_ADVICE)
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > MAX_DEPTH:
            raise Refusal("kubeconfig", "depth", "The kubeconfig is nested too deeply.", INLINE_ADVICE)
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        return node


def _parsed(text: str) -> Any:
    if len(text.encode(errors="replace")) > MAX_BYTES:
        message = f"The kubeconfig has more than {MAX_BYTES // 1024} KiB."
        raise Refusal("kubeconfig", "size", message, INLINE_ADVICE)
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError):
        # What the parser says quotes the text, in which there may be a token.
        message = "The kubeconfig is no YAML."
        raise Refusal("kubeconfig", "yaml", message, INLINE_ADVICE) from None


def _mapping(value: object, field: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(field, "kubeconfig", f"{what} is not of the form of a kubeconfig.", INLINE_ADVICE)
    return value


def _named(config: Mapping[str, Any], plural: str, kind: str, name: str) -> dict[str, Any]:
    """The entry of a list by its name."""
    entries = config.get(plural)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name:
            return _mapping(entry.get(kind), "kubeconfig", f"Its {kind} of that name")
    message = f"The kubeconfig has no {kind} of the name that is asked for."
    raise Refusal("kubeconfig", f"known_{kind}", message, INLINE_ADVICE)


def _refuse(entry: Mapping[str, Any], kind: str) -> None:
    if entry.get("insecure-skip-tls-verify"):
        rule, why, advice = _INSECURE
        message = f"The {kind}'s insecure-skip-tls-verify {why}."
        raise Refusal("kubeconfig", rule, message, advice)
    for name, (rule, why, advice) in _REFUSED.items():
        if entry.get(name):
            raise Refusal("kubeconfig", rule, f"The {kind}'s {name} {why}.", advice)


def _text(value: object, what: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal("kubeconfig", "text", f"{what} of the kubeconfig is not a text.", INLINE_ADVICE)
    return value.strip()


def _decoded(entry: Mapping[str, Any], name: str) -> str:
    coded = _text(entry.get(name), name)
    try:
        return base64.b64decode("".join(coded.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        message = f"{name} of the kubeconfig is not the base64 of a PEM text."
        raise Refusal("kubeconfig", "base64", message, INLINE_ADVICE) from None


# -- the values ---------------------------------------------------------------------------------------------


def _check(values: Mapping[str, str], where: Mapping[str, str], now: datetime) -> None:
    for refusal in _broken(values, now):
        field = where.get(refusal.field, refusal.field)
        raise Refusal(field, refusal.rule, refusal.message, refusal.advice)


def _broken(values: Mapping[str, str], now: datetime) -> Iterator[Refusal]:
    yield from _server(values["server"])
    problem = authority_problem(values["certificate_authority"], now)
    if problem is not None:
        yield Refusal("certificate_authority", problem.rule, problem.message, problem.advice)
    token, certificate = values.get("token", ""), values.get("client_certificate", "")
    if certificate or values.get("client_key"):
        problem = pair_problem(certificate, values.get("client_key", ""), now)
        if problem is not None:
            yield Refusal(problem.field, problem.rule, problem.message, problem.advice)
    elif not token:
        yield Refusal("token", "required", "There is nothing that logs in to the cluster.", ACCOUNT_ADVICE)
    if len(token) > MAX_TOKEN or not (token.isascii() and token.isprintable() and " " not in token):
        yield Refusal("token", "token", "The token is not one that could go into a request.", ACCOUNT_ADVICE)


def _server(server: str) -> Iterator[Refusal]:
    advice = "Give the address of the API server, such as https://203.0.113.5:6443."
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if not server:
        yield Refusal("server", "required", "There is no server.", advice)
    elif parts.scheme == "http":
        yield Refusal("server", "https", "The server must be an https address: the token goes there.", advice)
    elif parts.scheme != "https" or not parts.hostname or port == 0 or re.search(r"[\s\\]", server):
        yield Refusal("server", "url", "The server is not an https address.", advice)
    elif parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        message = "The server's address has no user, query or fragment."
        yield Refusal("server", "url", message, advice)


def _check_optional(name: str, value: str) -> None:
    if name == "namespace":
        if not is_dns_label(value):
            message = "A namespace has at most 63 lower-case letters, digits and hyphens."
            raise Refusal(name, "namespace", message)
    elif name == "gateway":
        if len(value.split("/")) != 2 or not all(is_dns_label(part) for part in value.split("/")):
            raise Refusal(name, "gateway", "A gateway is named as namespace/name.")
    elif not _is_url(value, _SCHEMES[name]):
        schemes = " or ".join(_SCHEMES[name])
        raise Refusal(name, "url", f"{name} must be an address with {schemes}.")


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(value)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return good and not re.search(r"\s", value)
