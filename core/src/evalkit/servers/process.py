"""A server of a library as a process: started, found to be ready, watched and ended."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from evalkit.errors import ConfigError, EngineDiedError, ServerStartError
from evalkit.processes import PATIENCE, LoggedProcess, inherited
from evalkit.servers import guard, memory, ports, wire
from evalkit.servers.interpreter import Interpreter

MARGIN = 5.0
"""Seconds that the guard may need beside what it gives the server."""
STEP = 0.1
GLANCE = 2.0
"""Seconds for a server that is ready to list its models."""
PROBE_SECONDS = 60.0
"""Seconds for a busy server to write a token."""
NOT_YET = (0, 408, 409, 425, 429)


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """What follows the interpreter on a server's command line, and what to add to its environment."""

    words: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


Builder = Callable[[str, int], ServerCommand]
"""Makes the command of a server that offers its model under a name and listens on a port (0: one of its choice)."""


class ServerProcess(LoggedProcess):
    """A server of `engine`, which offers its model under `served_name`, known to nobody else.

    It ends with this process, however that ends, and takes along all that it started. With `port` 0 the server
    chooses one, unless it is not one that can (`chooses_port`). Raises PluginError where it cannot be started, and
    ConfigError where the port is taken.
    """

    # The guard first ends what the server started.
    dying_seconds: ClassVar[float] = PATIENCE + MARGIN

    def __init__(
        self, engine: str, interpreter: Interpreter, build: Builder, *, port: int = 0, chooses_port: bool = True
    ) -> None:
        self.engine, self.about = engine, interpreter.about
        self.served_name = f"evalkit-{uuid.uuid4().hex[:16]}"
        self.port = self._wanted_port(port, chooses_port)
        """0 until it is known."""
        self._memory = memory.used()
        command = build(self.served_name, self.port)
        environment = {**inherited(), **interpreter.variables, **command.variables}
        watched, self._held = os.pipe()
        # The guard runs without packages: it starts at once, under any settings of this Python.
        words = [sys.executable, "-I", "-S", str(Path(guard.__file__)), str(watched), str(PATIENCE)]
        try:
            super().__init__([*words, interpreter.python, *command.words], f"{engine}-server", environment, (watched,))
        except BaseException:
            self._let_go()
            raise
        finally:
            os.close(watched)

    def _wanted_port(self, port: int, chooses_port: bool) -> int:
        if port and ports.is_taken(port):
            raise ConfigError(self._taken(port))
        if port or (chooses_port and ports.can_be_told()):
            return port
        return ports.free_port()

    def _taken(self, port: int) -> str:
        names = wire.models(port, GLANCE) or []
        offers = f" server, which offers {', '.join(names)}" if names else " process"
        return (
            f"port {port} is taken by another{offers}. Choose another port, or 0 for a free one; "
            f"base_url=http://{ports.HOST}:{port}/v1 asks a server that runs already"
        )

    @property
    def base_url(self) -> str:
        """Its address up to "/v1"."""
        return f"http://{ports.HOST}:{self.port}/v1"

    # ── readiness ───────────────────────────────────────────────────────────────────────────────────────
    def wait_ready(self, seconds: float) -> None:
        """Return once it lists its name and has completed a text; else end it.

        Raises EngineDiedError where it ends instead, and ServerStartError after so many seconds.
        """
        deadline = time.monotonic() + seconds
        try:
            problem = "it does not answer"
            while problem:
                if not self.is_alive():
                    raise EngineDiedError(
                        f"the server of engine {self.engine!r} ended before it was ready: {self.epitaph()}"
                    )
                if time.monotonic() > deadline:
                    raise ServerStartError(
                        f"the server of engine {self.engine!r} is not ready after {seconds:g} seconds ({problem}); "
                        f"allow more with start_timeout{self.last_words()}"
                    )
                time.sleep(STEP)
                problem = self._problem(deadline)
        except BaseException:
            self.stop()
            raise

    def _problem(self, deadline: float) -> str:
        """What is still to wait for; nothing once it is ready."""
        if not self._is_listed():
            return "it does not list its model"
        left = max(1.0, deadline - time.monotonic())
        status, said = wire.complete(self.port, self.served_name, left)
        if 400 <= status < 500 and status not in NOT_YET:
            raise ServerStartError(
                f"the server of engine {self.engine!r} refuses to complete a text ({status}: {said}){self.last_words()}"
            )
        return "" if status == 200 else f"it completes no text, {status}: {said}"

    def _is_listed(self) -> bool:
        """Whether this very server answers, as the name that it was given shows."""
        own = ports.listening(guard.descendants(self.pid)) if ports.can_be_told() else None
        for port in sorted(own or ()) if self.port == 0 else [self.port]:
            names = wire.models(port, GLANCE)
            if names is not None and self.served_name in names:
                self.port = port
                return True
            if names is not None and own is not None and port not in own:
                raise ServerStartError(self._taken(port))
        return False

    def answers(self) -> bool:
        """Whether it still writes texts; busy as it is, it has a minute for a token."""
        return self.is_alive() and wire.complete(self.port, self.served_name, PROBE_SECONDS)[0] == 200

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────
    def stop(self) -> None:
        """End it, by force after ten seconds, and wait until accelerators have its memory back. May be repeated."""
        self._let_go()
        # Where the guard itself was ended by force, its group is left.
        if not self.wait(PATIENCE + MARGIN) or self._process.returncode < 0:
            self.kill()
        memory.wait_until_back(self._memory)

    def kill(self) -> None:
        """End it and all that it started at once."""
        left = guard.descendants(self.pid)
        super().kill()
        guard.end(left)
        self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, -1
        if held >= 0:
            with suppress(OSError):
                os.close(held)
