"""What can be had now: `/v1/gpus`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from moorage.api.context import Caller, services
from moorage.api.json import as_json
from moorage.api.problems import responses
from moorage.api.schemas import MarketDocument

router = APIRouter(prefix="/v1", tags=["compute"])


@router.get(
    "/gpus",
    response_model=MarketDocument,
    summary="List the compute that can be had now",
    responses=responses(403),
)
async def gpus(request: Request, caller: Caller) -> Response:
    """Every offer of every provider that you can use, with live price and stock where the provider tells
    them; and the providers that sell you nothing, with the reason."""
    return as_json(await services(request).prices.market(caller))
