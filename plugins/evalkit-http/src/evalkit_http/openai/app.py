"""The app: routes, guards and the life of the scheduler."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evalkit_http import __version__
from evalkit_http.openai import chat, completions, scoring, state, tokenizing
from evalkit_http.openai.metrics import Metrics
from evalkit_http.openai.served import Served
from evalkit_http.security import SecuritySettings, requires, secure


def make_app(served: Served, security: SecuritySettings) -> FastAPI:
    """The app of a model. It begins to load the model when it is started."""
    scheduler = served.scheduler

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        try:
            yield
        finally:
            await run_in_threadpool(scheduler.stop)

    app = FastAPI(title=f"evalkit: {served.name}", version=__version__, lifespan=life)
    app.state.served = served
    for module in (completions, chat, scoring):
        app.include_router(module.router, dependencies=[Depends(requires("submit"))])
    for module in (tokenizing, state):
        app.include_router(module.router)
    app.add_middleware(Counted, metrics=scheduler.metrics)
    secure(app, security, errors="openai")
    return app


class Counted:
    """Counts answers by route and status, and takes their time; as pure ASGI, for streams too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counted)
        finally:
            # By the route's own path: a client could make up any number of others.
            route: Any = scope.get("route")
            path = getattr(route, "path", "other")
            self.metrics.responses.labels(path, str(status)).inc()
            self.metrics.request_seconds.labels(path).observe(time.perf_counter() - started)
