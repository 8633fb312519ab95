"""The command line of SGLang's server."""

from __future__ import annotations

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.servers import ServerCommand, flags
from evalkit_sglang.arguments import VARIABLES, all_arguments
from evalkit_sglang.engine import SGLang


def server_command(engine: SGLang, model: Model, served_name: str, port: int) -> ServerCommand:
    """SGLang's own server with this model. Raises ConfigError for what a server cannot do."""
    if model.adapter is not None:
        raise ConfigError("an adapter cannot be asked for through a server of sglang. Leave out start_server")
    given = all_arguments(engine, model)
    if twice := sorted(set(given) & set(engine.server_args)):
        raise ConfigError(f"{twice[0]} is given twice: by itself, and in server_args. Leave one out")
    own = {"served_model_name": served_name, "host": "127.0.0.1", "port": port}
    # Its switches have no opposites.
    values = {name: value for name, value in {**own, **given, **engine.server_args}.items() if value is not False}
    return ServerCommand(("-m", "sglang.launch_server", *flags(values)), dict(VARIABLES))
