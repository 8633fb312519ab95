"""Tokens and what each may do. Only their hashes are kept, so no log, record or traceback can show one."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evalkit.errors import ConfigError

VARIABLE = "EVALKIT_TOKENS"
SCOPES = ("submit", "read", "admin")
SHORTEST = 16
HELP = "Write one token a line as TOKEN, or as SCOPES:TOKEN with scopes from submit, read and admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `name` is the beginning of the token's hash, safe to log; without tokens "anyone"."""

    name: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the caller has this scope; admin holds the others."""
        return scope in self.scopes or "admin" in self.scopes


ANYONE = Caller("anyone", frozenset(SCOPES))


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens a server accepts; false where there is none."""

    by_hash: Mapping[bytes, frozenset[str]] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return bool(self.by_hash)

    def __or__(self, other: Tokens) -> Tokens:
        return Tokens({**self.by_hash, **other.by_hash})

    def caller(self, token: str) -> Caller | None:
        """Who has this token, or None. Takes the same time whichever token it resembles."""
        asked = _hash(token)
        found = None
        for known, scopes in self.by_hash.items():
            if hmac.compare_digest(asked, known):
                found = Caller(asked.hex()[:8], scopes)
        return found

    def holds(self, word: str) -> bool:
        """Whether `word` is one of the tokens."""
        return len(word) >= SHORTEST and self.caller(word) is not None

    @classmethod
    def parse(cls, entries: Iterable[str], source: str) -> Tokens:
        """Tokens from `SCOPES:TOKEN` entries. Raises ConfigError that names the entry by its number only."""
        return cls(dict(_entry(entry, f"token {number} of {source}") for number, entry in enumerate(entries, 1)))

    @classmethod
    def read(cls, file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Tokens:
        """Those of a file, one a line, and those of EVALKIT_TOKENS, separated by spaces or line ends."""
        variable = (os.environ if environ is None else environ).get(VARIABLE, "")
        return (_read_file(Path(file)) if file else cls()) | cls.parse(variable.split(), VARIABLE)


def without_tokens(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment for child processes, which have no use for the server's tokens."""
    return {name: value for name, value in environ.items() if name not in (VARIABLE, "EVALKIT_TOKEN")}


def _read_file(path: Path) -> Tokens:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token file {path} cannot be read: {type(error).__name__}. {HELP}") from error
    entries = [text for line in lines if (text := line.strip()) and not text.startswith("#")]
    if not entries:
        raise ConfigError(f"token file {path} holds no token. {HELP}")
    return Tokens.parse(entries, str(path))


def _entry(entry: str, name: str) -> tuple[bytes, frozenset[str]]:
    listed, colon, token = entry.rpartition(":")
    # A token without scopes is the only one of a small installation: it may do everything.
    scopes = frozenset(listed.split(",")) if colon else frozenset(SCOPES)
    if not scopes <= set(SCOPES):
        raise ConfigError(f"{name} has an unknown scope. {HELP}")
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"{name} is no token: it needs {SHORTEST} or more ASCII characters and no space. "
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return _hash(token), scopes


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
