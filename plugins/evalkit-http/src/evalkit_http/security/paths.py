"""Paths that clients name: inside the folders that the operator allows, symbolic links resolved."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import EvalkitError
from evalkit_http.security.settings import SecuritySettings

REMOTE_CODE, TEMPLATE = "trust_remote_code", "chat_template"
PATHS = ("tokenizer_path", "tokenizer", "adapter")
"""Options that hold a path or a name of a hub; what is in a folder of models is meant before the hub."""


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
    raise _outside(text)


def allowed_model(name: str, settings: SecuritySettings) -> str:
    """A model as a client names it: a local path inside the allowed folders resolved, any other name as it is."""
    return str(allowed_path(name, settings.model_roots)) if looks_like_path(name) else name


def checked_arguments(arguments: Mapping[str, Any], settings: SecuritySettings) -> dict[str, Any]:
    """`arguments` with their paths resolved: what is opened later is what was looked at.

    Raises ForbiddenError where they name a path outside the folders of models, or turn on remote code.
    """
    return {name: _checked(str(name), value, settings) for name, value in arguments.items()}


def looks_like_path(text: str) -> bool:
    """Whether `text` names something on this machine, rather than a model of a hub or a word."""
    return _is_written_as_path(text) or _is_here(text)


def _is_written_as_path(text: str) -> bool:
    return text.startswith(("/", "~", ".", "\\", "file:")) or "\0" in text or ".." in Path(text).parts


def _is_here(text: str) -> bool:
    """Whether a program that is started in the working folder finds a file of this name."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _checked(name: str, value: Any, settings: SecuritySettings) -> Any:
    if isinstance(value, Mapping):
        return {key: _checked(str(key), item, settings) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_checked(name, item, settings) for item in value]
    if _asks_for_code(name, value) and not settings.trust_remote_code:
        raise ForbiddenError(
            f"{REMOTE_CODE} runs code of the model's repository, which this server does not allow. Leave it out, "
            "or ask its operator"
        )
    return _resolved(name, value, settings.model_roots) if isinstance(value, str) else value


def _resolved(name: str, text: str, roots: Sequence[Path]) -> str:
    """A path as it is opened, and any other text as it is."""
    if name == TEMPLATE:
        # Told apart as it is when it is read: a template holds braces.
        return text if "{" in text or not text else str(allowed_path(text, roots))
    is_in_a_root = name in PATHS and any(os.path.lexists(root / text) for root in roots)
    if text and (is_in_a_root or _is_written_as_path(text)):
        return str(allowed_path(text, roots))
    # A word, or a model of a hub: but a job would find the file of that name before.
    if text and _is_here(text) and _inside(Path(text).absolute(), roots) is None:
        raise _outside(text)
    return text


def _asks_for_code(name: str, value: Any) -> bool:
    """Whether an option turns remote code on, however it is spelt; only what plainly says no does not."""
    says_no = value in (None, False, 0) or str(value).strip().lower() in ("", "false", "no", "0")
    return name.strip().lower().replace("-", "_") == REMOTE_CODE and not says_no


def _outside(text: str) -> ForbiddenError:
    return ForbiddenError(f"path {text!r} is outside of the folders that this server allows. Ask its operator for them")


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


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
