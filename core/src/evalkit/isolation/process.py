"""The process of an isolated session, and the pipe to it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from evalkit.isolation.channel import Channel
from evalkit.processes import PATIENCE, LoggedProcess, inherited


class ChildProcess(LoggedProcess):
    """`evalkit.isolation.child` under another Python, in a process group of its own."""

    def __init__(self, python: str, name: str, environment: Mapping[str, str] | None = None) -> None:
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        self.channel = Channel(to_parent, from_parent)
        words = [python, "-u", "-m", "evalkit.isolation.child", str(to_child), str(from_child)]
        try:
            super().__init__(words, name, {**inherited(), **(environment or {})}, (to_child, from_child))
        except BaseException:
            self.channel.close()
            raise
        finally:
            os.close(to_child)
            os.close(from_child)

    def stop(self) -> None:
        """End it and all that it started: first by closing the pipe, then by force. May be called more than once."""
        self.channel.close()
        self.wait(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """End it and all that it started at once."""
        super().kill()
        self.channel.close()
