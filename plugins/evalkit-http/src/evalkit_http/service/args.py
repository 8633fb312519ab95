"""ServerArgs: everything that `evalkit serve` is told, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.errors import ConfigError
from evalkit.runs.folder import runs_root

ANY_HOST = "*"


class ServerArgsError(ConfigError, ValueError):
    """A setting of the server that cannot be used."""


@dataclass(frozen=True, slots=True)
class ServerArgs:
    """Settings of the service. Times are in seconds, folders are made where they are missing.

    `state_dir` keeps the jobs; its default is the folder `service` below that of runs. `devices` are names such as
    "cuda:1" or "cpu"; empty: all GPUs of the machine and `cpu_slots` slots without one. `free_port` takes any free port
    instead of `port`. Paths that a request names must lie in `model_roots` and `output_roots`; without model roots any
    model may be named, without output roots no `output_dir`. Webhooks go to `webhook_hosts` alone ("*": to any).
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_completed_jobs: int = 200
    temp_dir_prefix: str = "evalkit_"
    state_dir: str | Path | None = None
    devices: tuple[str, ...] = ()
    cpu_slots: int = 1
    max_queued_jobs: int = 100_000
    job_timeout: float | None = None
    kill_after: float = 10.0
    max_age_days: float | None = None
    checkpoint_wait: float = 600.0
    checkpoint_settle: float = 5.0
    data_dir: str | None = None
    model_roots: tuple[str, ...] = ()
    output_roots: tuple[str, ...] = ()
    webhook_hosts: tuple[str, ...] = ()
    webhook_secret: str | None = field(default=None, repr=False)
    allow_references: bool = False
    allow_code_execution: bool = False
    trust_remote_code: bool = False
    free_port: bool = False

    def __post_init__(self) -> None:
        """Raises ServerArgsError, which is a ValueError, for a value that cannot be used."""
        _check("host", bool(self.host.strip()), self.host, "the name or address of an interface, such as 127.0.0.1")
        _check("port", _is_count(self.port) and 1 <= self.port <= 65535, self.port, "from 1 to 65535")
        for name in ("max_completed_jobs", "cpu_slots", "max_queued_jobs"):
            value = getattr(self, name)
            least = 0 if name == "cpu_slots" and self.devices else 1
            _check(name, _is_count(value) and value >= least, value, f"a number from {least} on")
        prefix = self.temp_dir_prefix
        _check("temp_dir_prefix", Path(prefix + "x").name == prefix + "x" and prefix != ".", prefix, "part of a file name")
        for name in ("job_timeout", "max_age_days"):
            value = getattr(self, name)
            _check(name, value is None or _is_positive(value), value, "a positive number, or None for no limit")
        for name in ("kill_after", "checkpoint_wait", "checkpoint_settle"):
            value = getattr(self, name)
            _check(name, value == 0 or _is_positive(value), value, "a number of seconds")

    @property
    def folder(self) -> Path:
        """Where jobs are kept."""
        return Path(self.state_dir) if self.state_dir else runs_root() / "service"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _check(name: str, holds: bool, value: object, wanted: str) -> None:
    if not holds:
        raise ServerArgsError(f"server setting {name!r} is {value!r}. Give {wanted}")
