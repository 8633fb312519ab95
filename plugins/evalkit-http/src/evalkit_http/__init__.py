"""Evaluation as a service over HTTP, and any of evalkit's engines as an OpenAI-compatible server."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit_http.client import AsyncEvalClient as AsyncEvalClient
    from evalkit_http.client import EvalClient as EvalClient
    from evalkit_http.launch_server import launch_server as launch_server
    from evalkit_http.openai.server import build_openai_compatible_server as build_openai_compatible_server
    from evalkit_http.service.args import ServerArgs as ServerArgs

__version__ = "0.1.0"

# Named here, loaded on use: the plugin is imported by every command.
_PLACES = {
    "AsyncEvalClient": "evalkit_http.client",
    "EvalClient": "evalkit_http.client",
    "ServerArgs": "evalkit_http.service.args",
    "build_openai_compatible_server": "evalkit_http.openai.server",
    "launch_server": "evalkit_http.launch_server",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
