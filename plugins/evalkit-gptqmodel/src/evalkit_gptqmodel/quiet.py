"""GPTQModel prints a banner, its log and more to standard output, where evalkit's own answers go: keep it apart."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*, verbose: bool) -> Iterator[None]:
    """Within it, what libraries print and log goes to standard error where `verbose` asks for it, else nowhere.

    Logging is afterwards as it was before: libraries on the way set it up for the whole process.
    """
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    output = contextlib.redirect_stdout(sys.stderr if verbose else io.StringIO())
    with output, warnings.catch_warnings():
        warnings.simplefilter("default" if verbose else "ignore")
        if not verbose:
            logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
            root.handlers[:] = handlers
            root.setLevel(level)


def set_log_level(*, verbose: bool) -> None:
    """Let GPTQModel's logger, one for the process, say errors only."""
    from logbar import LogBar

    LogBar.shared().setLevel(logging.INFO if verbose else logging.ERROR)
