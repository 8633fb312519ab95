"""ServerArgs: everything that `evalkit serve` is told, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from evalkit.errors import ConfigError
from evalkit.runs.folder import runs_root
from evalkit_http.security.settings import SecuritySettings
from evalkit_http.security.tokens import Tokens

ANY_HOST = "*"


class ServerArgsError(ConfigError, ValueError):
    """A setting of the server that cannot be used."""


@dataclass(frozen=True, slots=True)
class ServerArgs:
    """Settings of the service. Times are in seconds, folders are made where they are missing.

    `state_dir` keeps the jobs; its default is the folder `service` below that of runs. `devices` are names such as
    "cuda:1" or "cpu"; empty: all GPUs of the machine and `cpu_slots` slots without one. `free_port` takes any free port
    instead of `port`. `security` says who may ask and for which paths; by default it has the tokens of EVALKIT_TOKENS.
    Webhooks go to `webhook_hosts` alone ("*": to any). Requests may let a job ask endpoints at `endpoint_hosts` alone,
    which may then get secrets of the environment. `allow_engine_options` lets requests hand mappings to a backend and
    name programs, which can run any code. `allow_references` lets requests name engines and tasks that no
    plugin registered, by "module:attribute" or by file: that is, run any code.
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
    webhook_hosts: tuple[str, ...] = ()
    webhook_secret: str | None = field(default=None, repr=False)
    endpoint_hosts: tuple[str, ...] = ()
    allow_engine_options: bool = False
    allow_references: bool = False
    allow_code_execution: bool = False
    free_port: bool = False
    security: SecuritySettings | None = None

    def __post_init__(self) -> None:
        """Raises ServerArgsError, which is a ValueError, for a value that cannot be used."""
        _check("host", bool(self.host.strip()), self.host, "the name or address of an interface, such as 127.0.0.1")
        _check("port", _is_count(self.port) and 1 <= self.port <= 65535, self.port, "from 1 to 65535")
        for name in ("max_completed_jobs", "cpu_slots", "max_queued_jobs"):
            value = getattr(self, name)
            least = 0 if name == "cpu_slots" and self.devices else 1
            _check(name, _is_count(value) and value >= least, value, f"a number from {least} on")
        prefix = self.temp_dir_prefix
        _check(
            "temp_dir_prefix", Path(prefix + "x").name == prefix + "x" and prefix != ".", prefix, "part of a file name"
        )
        for name in ("job_timeout", "max_age_days"):
            value = getattr(self, name)
            _check(name, value is None or _is_positive(value), value, "a positive number, or None for no limit")
        for name in ("kill_after", "checkpoint_wait", "checkpoint_settle"):
            value = getattr(self, name)
            _check(name, value == 0 or _is_positive(value), value, "a number of seconds")
        given = self.security or SecuritySettings(tokens=Tokens.read())
        # The class is frozen for its users, not for its own making.
        object.__setattr__(self, "security", replace(given, host=self.host))

    @property
    def guards(self) -> SecuritySettings:
        """The security settings, for this host."""
        assert self.security is not None
        return self.security

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
