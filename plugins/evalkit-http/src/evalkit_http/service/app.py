"""The app: routes, guards, and a scheduler that lives as long as it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from evalkit_http import __version__
from evalkit_http.merge import routes as merging
from evalkit_http.page import routes as page
from evalkit_http.security import secure
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.routes import router
from evalkit_http.service.service import Service


def create_app(args: ServerArgs, service: Service | None = None) -> FastAPI:
    """The evaluation service as an ASGI app; `app.state` has its `args`, and while it runs `service` and `scheduler`.

    Without a `service`, one is opened when the app starts. Either is closed when it stops.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = service or Service(args)
        app.state.service, app.state.scheduler = opened, opened.scheduler
        await opened.start()
        try:
            yield
        finally:
            await opened.stop()

    app = FastAPI(
        title="evalkit",
        summary="Evaluation of language models as a service",
        version=__version__,
        lifespan=lifespan,
    )
    app.state.args = args
    app.include_router(router)
    app.include_router(merging.router)
    app.include_router(page.router)
    secure(app, args.guards)
    return app
