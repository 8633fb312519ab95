"""Server mode for engines whose library brings an OpenAI-compatible server: started by us, or attached."""

from __future__ import annotations

import dataclasses
import importlib.util
from abc import abstractmethod
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar

from annotated_types import Gt

from evalkit import options
from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.errors import ConfigError, MissingDependencyError
from evalkit.model import Model
from evalkit.options import NotNegative, Positive
from evalkit.plugins import get_plugins, load_engine_class
from evalkit.servers.interpreter import Interpreter, find_interpreter
from evalkit.servers.process import ServerCommand, ServerProcess
from evalkit.servers.session import ServedSession

CLIENT = "openai"
Seconds = Annotated[float, Gt(0)]
OF_A_STARTED_ONE = ("port", "start_timeout", "python", "env", "restarts", "server_args")
OF_A_SERVER = ("in_flight", "client_args", *OF_A_STARTED_ONE)
RETRIES = 2
"""For a server beside us: one that is gone does not come back by waiting."""


@dataclass(slots=True)
class ServableEngine(BaseEngine):
    """An engine whose model may also be asked through a server of its library.

    With `start_server` a server is started, found to be ready within `start_timeout` seconds, and ended with the
    session; one that dies is started again up to `restarts` times. It runs under `python`, or the environment `env`,
    by default as EVALKIT_<ENGINE>_PYTHON says or under this Python. Port 0 is one of its choice, `server_args` are
    further options of its command line by their names. With `base_url` a server is asked that runs already.
    `in_flight` requests are sent at once, `client_args` are options of the engine `openai`.
    """

    neutral_options: ClassVar[frozenset[str]] = frozenset({"port", "start_timeout", "restarts", "in_flight"})

    server_module: ClassVar[str]
    """The module that the server's Python must have."""
    server_chooses_port: ClassVar[bool] = True
    """Whether the server may be told port 0. Else a free one is chosen for it."""

    start_server: bool = False
    base_url: str | None = None
    port: NotNegative = 0
    start_timeout: Seconds = 900.0
    python: str | None = None
    env: str | None = None
    restarts: NotNegative = 0
    server_args: dict[str, Any] = field(default_factory=dict)
    in_flight: Positive = 64
    client_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.start_server and self.base_url:
            raise ValueError("start_server starts a server, base_url names one that runs: give one of them")
        wrong = OF_A_STARTED_ONE if self.base_url else () if self.start_server else OF_A_SERVER
        defaults = {item.name: item for item in dataclasses.fields(ServableEngine)}
        for name in wrong:
            factory, default = defaults[name].default_factory, defaults[name].default
            if getattr(self, name) != (factory() if callable(factory) else default):
                raise ValueError(f"{name} is an option of a server that evalkit starts: add start_server=true")
        if mine := sorted({"base_url"} & set(self.client_args)):
            raise ValueError(f"{mine[0]} is an option of its own, not one of client_args")

    @property
    def is_served(self) -> bool:
        """Whether a server is asked."""
        return self.start_server or self.base_url is not None

    @property
    def is_remote(self) -> bool:
        """Whether the model is a name on somebody else's server."""
        return self.base_url is not None

    @abstractmethod
    def server_command(self, model: Model, served_name: str, port: int) -> ServerCommand:
        """What starts a server that offers `model` as `served_name` on 127.0.0.1; port 0 is one of its choice."""

    def client_defaults(self) -> dict[str, Any]:
        """Options of the engine `openai` that suit a server that we start; `client_args` win."""
        # The checkpoint's tokenizer where it can be loaded here, else the server's. Conversations become texts here, as
        # they do in every other mode.
        tokenizer = "auto" if importlib.util.find_spec("transformers") is not None else "remote"
        return {"api": "completions", "retries": RETRIES, "tokenizer": tokenizer}

    def serve(self, engine: str, model: Model) -> ServedSession:
        """The session behind a server; `engine` is this engine's name. Raises EvalkitError of any kind."""
        client = _client()
        if self.base_url is not None:
            settings = {"base_url": self.base_url, "batch_size": self.in_flight, **self.client_args}
            attached = options.build(client, settings, f"engine {CLIENT!r}").build
            return ServedSession(
                lambda: None, lambda _: attached(model), description={"backend": engine, "mode": "attached"}
            )
        if not self.start_server:
            raise ConfigError("no server is asked for. Give start_server=true or base_url=")
        interpreter = find_interpreter(engine, self.server_module, python=self.python, env=self.env)
        return ServedSession(
            partial(self._started, engine, model, interpreter),
            partial(self._connected, client, model),
            description={"backend": engine, "mode": "server"},
            restarts=self.restarts,
        )

    def _started(self, engine: str, model: Model, interpreter: Interpreter) -> ServerProcess:
        server = ServerProcess(
            engine,
            interpreter,
            partial(self.server_command, model),
            port=self.port,
            chooses_port=self.server_chooses_port,
        )
        server.wait_ready(self.start_timeout)
        return server

    def _connected(self, client: type[BaseEngine], model: Model, server: ServerProcess | None) -> BaseInferenceSession:
        assert server is not None
        settings = {"batch_size": self.in_flight, **self.client_defaults(), **self.client_args}
        settings["base_url"] = server.base_url
        return options.build(client, settings, f"engine {CLIENT!r}").build(_served(model, server.served_name))


def _client() -> type[BaseEngine]:
    if CLIENT not in get_plugins().engines:
        raise MissingDependencyError(
            f"a server is asked through the engine {CLIENT!r}, which is not installed. "
            "Install it with: pip install evalkit-openai"
        )
    return load_engine_class(CLIENT)[0]


def _served(model: Model, name: str) -> Model:
    """The model as the client knows it: by its name there, with the tokenizer from here; the rest is the server's."""
    return dataclasses.replace(
        model,
        path=name,
        tokenizer_path=model.tokenizer_path or model.path,
        tokenizer_revision=model.tokenizer_revision or (None if model.tokenizer_path else model.revision),
        revision=None,
        dtype=None,
        adapter=None,
        options={},
    )


def flags(values: dict[str, Any]) -> list[str]:
    """Words of a command line: `--name value`; `--name` for true, `--no-name` for false, nothing for none.

    A mapping is JSON, and each value of a list is a word of its own.
    """
    import json

    words: list[str] = []
    for name, value in values.items():
        option = "--" + name.strip("-").replace("_", "-")
        if value is True:
            words.append(option)
        elif value is False:
            words.append(f"--no-{option[2:]}")
        elif isinstance(value, (list, tuple)):
            words += [option, *map(str, value)]
        elif value is not None:
            words += [option, json.dumps(value) if isinstance(value, dict) else str(value)]
    return words
