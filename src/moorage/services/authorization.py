"""The one place that turns "this role may not" into an answer."""

from __future__ import annotations

from moorage.domain.identity import Permission, Principal
from moorage.errors import Forbidden


def require(principal: Principal, permission: Permission) -> None:
    """Raises Forbidden unless the principal's role has the permission."""
    if not principal.may(permission):
        raise Forbidden(
            f"The role {principal.role} may not {permission.value.replace('_', ' ')}.",
            advice="Use a key or a user with a role that may.",
        )
