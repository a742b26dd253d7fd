"""Routes that may be called with a slash at the end or without: one route, no redirect.

A redirect would lose the body with some clients, and the bearer token with others.
"""

from __future__ import annotations

import re
from typing import Any  # the framework's arguments, passed on as they are

from fastapi.routing import APIRoute


class EitherSlash(APIRoute):
    """For `route_class=` of a router. The path that is declared is the one that is documented."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        bare = self.path_regex.pattern.removesuffix("$").removesuffix("/")
        self.path_regex = re.compile(f"{bare}/?$")
