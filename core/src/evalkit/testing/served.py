"""The fake engine with server mode: `--engine evalkit.testing.served:ServedFake --engine-arg start_server=true`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from evalkit.engine import BaseInferenceSession
from evalkit.model import Model
from evalkit.servers import ServableEngine, ServerCommand, flags
from evalkit.testing.fake import Fake

NAME = "served-fake"


@dataclass(slots=True)
class ServedFake(ServableEngine):
    """In this process the fake engine; as a server `evalkit.testing.server`."""

    neutral_options: ClassVar[frozenset[str]] = ServableEngine.neutral_options | {"delay"}
    server_module: ClassVar[str] = "evalkit"

    delay: float = 0.0
    max_length: int = 2048

    def build(self, model: Model) -> BaseInferenceSession:
        """A session; any model path will do."""
        if self.is_served:
            return self.serve(NAME, model)
        return Fake(delay=self.delay, max_length=self.max_length).build(model)

    def client_defaults(self) -> dict[str, Any]:
        """The tokenizer of bytes is the server's: there is no checkpoint that has it."""
        # Without super(), which dataclasses with slots break.
        return {**ServableEngine.client_defaults(self), "tokenizer": "remote"}

    def server_command(self, model: Model, served_name: str, port: int) -> ServerCommand:
        """`evalkit.testing.server` under the sources of this process."""
        own = {"model": model.path, "served_model_name": served_name, "port": port, "delay": self.delay}
        words = flags({**own, "max_length": self.max_length, **self.server_args})
        sources = os.pathsep.join(path for path in sys.path if Path(path, "evalkit").is_dir())
        return ServerCommand(("-m", "evalkit.testing.server", *words), {"PYTHONPATH": sources} if sources else {})
