"""GET /v1/models, /health, /ready and /metrics: what is served, and how it fares."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from evalkit_http.openai.answers import json_response
from evalkit_http.openai.metrics import CONTENT_TYPE
from evalkit_http.openai.served import Ready, Served

router = APIRouter()


@router.get("/v1/models")
async def models(served: Ready) -> Response:
    """The one model."""
    return json_response({"object": "list", "data": [_model(served)]})


@router.get("/v1/models/{name:path}")
async def model(served: Ready, name: str) -> Response:
    """The same, by its name."""
    if name != served.name:
        raise HTTPException(404, f"this server has the model {served.name!r} only")
    return json_response(_model(served))


def _model(served: Served) -> dict[str, Any]:
    found = {"id": served.name, "object": "model", "created": served.created, "owned_by": "evalkit"}
    return {**found, "root": served.name, "max_model_len": served.max_length}


@router.get("/health")
async def health() -> Response:
    """The server runs; its model may still be loading."""
    return json_response({"status": "ok"})


@router.get("/ready")
async def ready(served: Ready) -> Response:
    """The model is loaded, and has generated a token."""
    return json_response({"status": "ready", "model": served.name})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counts and times, for Prometheus."""
    served: Served = request.app.state.served
    return Response(served.scheduler.metrics.text(), media_type=CONTENT_TYPE)
