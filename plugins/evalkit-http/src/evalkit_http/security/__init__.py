"""Who may ask a server, how much, and for which paths; both servers stand behind it.

secure(app, settings)             guards, error shapes and clean logs for a FastAPI app
Depends(requires("submit"))       the scope that a route needs; the dependency's value is the Caller
check_bind(host, settings)        no server without a token where others reach it
allowed_path(path, roots)         a client's path, its links resolved, inside the allowed folders
check_arguments(args, settings)   the same for every path in a client's arguments; trust_remote_code refused
without_tokens(environ)           an environment for child processes
"""

from evalkit_http.security.paths import ForbiddenError, allowed_model, allowed_path, check_arguments
from evalkit_http.security.secure import requires, secure
from evalkit_http.security.settings import SecuritySettings, check_bind, is_loopback
from evalkit_http.security.tokens import Caller, Tokens, without_tokens

__all__ = [
    "Caller",
    "ForbiddenError",
    "SecuritySettings",
    "Tokens",
    "allowed_model",
    "allowed_path",
    "check_arguments",
    "check_bind",
    "is_loopback",
    "requires",
    "secure",
    "without_tokens",
]
