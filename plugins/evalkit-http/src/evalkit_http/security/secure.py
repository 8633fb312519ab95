"""Put the guards in front of an app, and say on its routes who may use them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from evalkit_http.security.errors import SHAPES, install_errors
from evalkit_http.security.guards import OPEN, TOKEN_NEEDED, Guard
from evalkit_http.security.redaction import Cleaner, redact_logs
from evalkit_http.security.settings import SecuritySettings
from evalkit_http.security.tokens import SCOPES, Caller

bearer = HTTPBearer(auto_error=False, description="A token of the server; not needed where it has none.")


def secure(
    app: FastAPI, settings: SecuritySettings, *, errors: str = "detail", open_paths: tuple[str, ...] = OPEN
) -> None:
    """Guard `app`: call it once, before the app is started; `errors` is "detail" or "openai".

    Every path but `open_paths` (one that ends with "/" stands for all below it) needs a token where the settings
    have some. Bodies are JSON, and were checked when a handler sees them. `app.state.security` is the settings.
    """
    shape = SHAPES[errors]
    cleaner = Cleaner(settings.tokens)
    app.state.security = settings
    install_errors(app, shape, cleaner)
    redact_logs(cleaner)
    app.add_middleware(Guard, settings=settings, shape=shape, open_paths=open_paths)


def requires(scope: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency: `caller: Annotated[Caller, Depends(requires("submit"))]`. Answers 403 to other scopes' tokens."""
    if scope not in SCOPES:
        raise ValueError(f"scopes are {', '.join(SCOPES)}, not {scope!r}")

    async def check(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
    ) -> Caller:
        caller: Caller | None = request.scope.get("state", {}).get("caller")
        if caller is None:
            raise HTTPException(401, TOKEN_NEEDED, {"WWW-Authenticate": "Bearer"})
        if not caller.may(scope):
            raise HTTPException(403, f"this token may not {scope}. Ask the operator for one with the scope {scope!r}")
        return caller

    return check
