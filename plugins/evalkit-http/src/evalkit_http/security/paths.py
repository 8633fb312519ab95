"""Paths that clients name: inside the folders that the operator allows, symbolic links resolved."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError
from evalkit_http.security.settings import SecuritySettings

REMOTE_CODE = "trust_remote_code"


class ForbiddenError(EvalkitError):
    """What a client asks for is not allowed here; answered with status 403."""


def allowed_path(path: str | Path, roots: Sequence[Path]) -> Path:
    """`path` with its links resolved. Raises ForbiddenError outside `roots`, and for what is no file or folder.

    A relative path is looked up in each root. Use the returned path: the given one may lead elsewhere later.
    """
    text = os.fspath(path)
    if not text.strip() or "\0" in text or not _encodable(text):
        raise ForbiddenError("a path is empty or holds a character that no path has. Name a file or folder")
    given = Path(text)
    # A library would read "~" and "file:" in its own way, after we looked.
    if ".." in given.parts or text.startswith(("~", "file:")):
        raise ForbiddenError(f"path {text!r} holds '..', '~' or a scheme. Name the folder itself")
    for candidate in _candidates(given, roots):
        if (found := _inside(candidate, roots)) is not None:
            return found
    raise ForbiddenError(f"path {text!r} is outside of the folders that this server allows. Ask its operator for them")


def allowed_model(name: str, settings: SecuritySettings) -> str:
    """A model as a client names it: a local path inside the allowed folders resolved, any other name as it is."""
    return str(allowed_path(name, settings.model_roots)) if looks_like_path(name) else name


def check_arguments(arguments: Mapping[str, Any], settings: SecuritySettings) -> None:
    """Raise ForbiddenError where arguments name a path outside the allowed folders, or turn on remote code."""
    for name, value in _leaves("", arguments):
        if _asks_for_code(name, value) and not settings.trust_remote_code:
            raise ForbiddenError(
                f"{REMOTE_CODE} runs code of the model's repository, which this server does not allow. Leave it out, "
                "or ask its operator"
            )
        if isinstance(value, str) and looks_like_path(value):
            allowed_path(value, (*settings.model_roots, *settings.output_roots))


def looks_like_path(text: str) -> bool:
    """Whether `text` names something on this machine, rather than a model of a hub or a word."""
    if text.startswith(("/", "~", ".", "\\", "file:")) or "\0" in text or ".." in Path(text).parts:
        return True
    try:
        return Path(text).exists()
    except OSError:
        return False


def _asks_for_code(name: str, value: Any) -> bool:
    """Whether an option turns remote code on, however it is spelt; only what plainly says no does not."""
    says_no = value in (None, False, 0) or str(value).strip().lower() in ("", "false", "no", "0")
    return name.strip().lower().replace("-", "_") == REMOTE_CODE and not says_no


def _candidates(path: Path, roots: Sequence[Path]) -> list[Path]:
    if path.is_absolute():
        return [path]
    inside = [root / path for root in roots]
    # The one that exists is meant; a path that is still to be made belongs to the first root.
    return sorted(inside, key=lambda candidate: not os.path.lexists(candidate))


def _inside(path: Path, roots: Sequence[Path]) -> Path | None:
    try:
        resolved = path.resolve()
        if not any(resolved.is_relative_to(root.resolve()) for root in roots):
            return None
        mode = resolved.stat().st_mode
    except FileNotFoundError:
        return resolved
    except (OSError, RuntimeError):  # too long, a loop of links, a file where a folder should be
        return None
    return resolved if stat.S_ISDIR(mode) or stat.S_ISREG(mode) else None


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for key, item in value.items() for leaf in _leaves(str(key), item)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(name, item)]
    return [(name, value)]


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
