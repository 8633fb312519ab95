"""Who may ask a server, how much, and for which paths; both servers stand behind it.

secure(app, settings)             guards, error shapes and clean logs for a FastAPI app
Depends(requires("submit"))       the scope that a route needs; the dependency's value is the Caller
check_bind(host, settings)        no server without a token where others reach it
allowed_path(path, roots)         a client's path, its links resolved, inside the allowed folders
checked_arguments(args, settings) a client's arguments, their paths resolved; trust_remote_code refused
check_engine_options(options)     no endpoints, programs or free mappings but those that the operator allows
without_tokens(environ)           an environment for child processes
"""

from evalkit_http.security.engine_options import check_engine_options
from evalkit_http.security.paths import ForbiddenError, allowed_model, allowed_path, checked_arguments
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
    "check_bind",
    "check_engine_options",
    "checked_arguments",
    "is_loopback",
    "requires",
    "secure",
    "without_tokens",
]
