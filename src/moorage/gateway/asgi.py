"""The names of the ASGI interface, as far as the gateway uses it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

# ASGI messages and scopes are dictionaries whose values depend on their type: Any is the interface's own
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RawHeaders = Sequence[tuple[bytes, bytes]]  # names in lower case, as ASGI has them
