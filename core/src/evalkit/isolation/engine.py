"""An engine that builds its session in another process."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from evalkit.engine import BaseEngine, redact
from evalkit.isolation.process import ChildProcess
from evalkit.isolation.session import IsolatedSession
from evalkit.model import Model


@dataclass(slots=True)
class IsolatedEngine(BaseEngine):
    """Engine `engine` with `engine_args` under the interpreter `python`, by default this one.

    A process that dies is started again up to `restarts` times. `variables` are added to its environment.
    """

    neutral_options: ClassVar[frozenset[str]] = frozenset({"restarts"})

    engine: str
    engine_args: dict[str, Any] = field(default_factory=dict)
    python: str = sys.executable
    variables: dict[str, str] = field(default_factory=dict)
    restarts: int = 0

    def build(self, model: Model) -> IsolatedSession:
        """Start the process and load `model` there. Raises EngineDiedError, and what the engine itself raises."""
        name = self.engine.rpartition(":")[2].lower()
        start = partial(ChildProcess, self.python, name, self.variables)
        build = {"engine": self.engine, "engine_args": self.engine_args, "model": dataclasses.asdict(model)}
        return IsolatedSession(start, build, self.restarts)

    def to_dict(self) -> dict[str, Any]:
        """The engine's name and options as plain data, secrets redacted."""
        return {"class": self.engine.rpartition(":")[2], "isolated": True, **redact(self.engine_args)}
