"""What a server allows: who may ask, from where, how much, and which paths."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.errors import ConfigError
from evalkit_http.security.tokens import VARIABLE, Tokens

MIB = 2**20
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
RATE = 500.0
"""Requests a second and client where a server can be reached from elsewhere."""


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """Safe where nothing is given: loopback only, paths below the working folder, no code of a model's repository.

    `requests_per_second` counts for each client, with bursts of ten seconds' worth; 0 is no limit, None is no limit
    on loopback and 500 elsewhere. `allowed_hosts` are names in the Host header; without any, a server on loopback
    without tokens answers to loopback's names only, and every other server to every name.
    """

    host: str = "127.0.0.1"
    tokens: Tokens = field(default_factory=Tokens)
    allow_unauthenticated: bool = False
    model_roots: tuple[Path, ...] = field(default_factory=lambda: (Path.cwd(),))
    output_roots: tuple[Path, ...] = field(default_factory=lambda: (Path.cwd(),))
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: int = 8 * MIB
    requests_per_second: float | None = None
    trust_remote_code: bool = False
    body_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1:
            raise ConfigError(f"the largest body is 1 byte or more, not {self.max_body_bytes}. Leave it out for 8 MiB")
        rate = self.requests_per_second
        if rate is not None and not (rate >= 0 and math.isfinite(rate)):
            raise ConfigError(f"requests a second are 0 (no limit) or more, not {rate}")

    @property
    def rate(self) -> float:
        """Requests a second and client; 0: no limit."""
        if self.requests_per_second is not None:
            return self.requests_per_second
        return 0.0 if is_loopback(self.host) else RATE

    @property
    def host_names(self) -> tuple[str, ...]:
        """Names that the Host header may hold; empty: any."""
        # A page that rebinds its name to 127.0.0.1 knows no token: where there are some, every name will do.
        open_to_pages = is_loopback(self.host) and not self.tokens
        return self.allowed_hosts or (LOOPBACK_NAMES if open_to_pages else ())


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, settings: SecuritySettings) -> None:
    """Raise ConfigError where a server would be open to others without a token."""
    if is_loopback(host) or settings.tokens or settings.allow_unauthenticated:
        return
    raise ConfigError(
        f"a server on {host or 'every address'} can be reached by others and has no token. Set {VARIABLE} or "
        "--token-file, bind to 127.0.0.1, or say --allow-unauthenticated"
    )
