"""The secret that the workers of one endpoint sign their reports with.

It is computed from the service's keys and the endpoint's name, so that nothing has to be stored, and a worker
that gives its secret away gives away its own endpoint only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

PURPOSE = "worker-callback"  # what the key is derived for


def endpoint_secret(key: bytes, endpoint: str) -> str:
    """`whsec_…` for the external name `endpoint`; `key` is 32 bytes."""
    return "whsec_" + base64.b64encode(hmac.digest(key, endpoint.encode(), hashlib.sha256)).decode()
