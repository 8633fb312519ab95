"""A server of one model: a socket, an app and the scheduler behind it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import uvicorn

from evalkit.engine import BaseEngine
from evalkit.model import Model
from evalkit.options import build
from evalkit.runner import BoundModel
from evalkit.runs.resolve import build_engine
from evalkit_http.openai.app import make_app
from evalkit_http.openai.hosts import Hosts
from evalkit_http.openai.metrics import Metrics
from evalkit_http.openai.scheduler import Scheduler
from evalkit_http.openai.served import Served
from evalkit_http.security import SecuritySettings, check_bind
from evalkit_http.sockets import address, bind

GRACE_SECONDS = 30
"""For answers that are under way when the server is stopped."""


class ModelServer:
    """Serves a model. `start` returns once it is ready; use it as a context manager, or call `stop`."""

    def __init__(self, app: Any, scheduler: Scheduler, listener: socket.socket) -> None:
        self.app, self.scheduler, self._listener = app, scheduler, listener
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS, ws="none"
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None
        # Of all addresses, the one that this machine's own clients can use. Kept: a closed socket has none.
        self._url = address(listener).replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        self.on_ready: Callable[[], None] = lambda: None
        scheduler.on_ready, scheduler.on_end = self._ready, self._leave

    @property
    def url(self) -> str:
        """Where it listens, without a path: OpenAI clients want `url + "/v1"`."""
        return self._url

    def start(self) -> Self:
        """Serve from a thread of its own. Raises what the model's loading raises."""
        self._thread = threading.Thread(target=self._run, name="evalkit-http", daemon=True)
        self._thread.start()
        self.scheduler.settled.wait()
        if not self.scheduler.ready.is_set():
            self.stop()
            self._raise_failure()
        return self

    def serve(self) -> None:
        """Serve from this thread until a signal ends it. Raises what the model's loading raises."""
        with contextlib.suppress(KeyboardInterrupt):
            self._run()
        self._raise_failure()

    def stop(self) -> None:
        """Let running answers end, release the model, free the port. May be called more than once."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.scheduler.stop()
        self._listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])

    def _ready(self) -> None:
        self.on_ready()

    def _leave(self) -> None:
        """The scheduler has ended: so does the server."""
        self._server.should_exit = True

    def _raise_failure(self) -> None:
        if self.scheduler.failure is not None:
            raise self.scheduler.failure


def build_openai_compatible_server(
    engine: str | BaseEngine,
    model: str | Model,
    *,
    engine_args: dict[str, Any] | None = None,
    model_args: dict[str, Any] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    served_model_name: str | None = None,
    max_running: int = 64,
    max_waiting: int = 1024,
    security: SecuritySettings | None = None,
    hosts: Hosts | None = None,
) -> ModelServer:
    """An OpenAI-compatible server of `model` on `engine`, not started yet; port 0 takes a free one.

    `max_running` generations run side by side, `max_waiting` requests wait; more are answered with 429. The arguments
    are those of `--engine-arg` and `--model-arg`, for an engine and a model that are given by name. Raises ConfigError.
    """
    security = security or SecuritySettings(host=host)
    check_bind(host, security)
    built = build_engine(engine, engine_args or {})[0] if isinstance(engine, str) else engine
    chosen = build(Model, {"path": model, **(model_args or {})}, "the model") if isinstance(model, str) else model
    scheduler = Scheduler(
        BoundModel(built, chosen).session,
        metrics=Metrics(),
        hosts=hosts,
        max_running=max_running,
        max_waiting=max_waiting,
    )
    served = Served(served_model_name or _name(chosen.path), scheduler)
    return ModelServer(make_app(served, security), scheduler, bind(host, port))


def _name(path: str) -> str:
    # Where a checkpoint lies on this machine is nobody's business.
    return Path(path).name if Path(path).exists() else path
