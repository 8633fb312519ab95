"""The 25 checkers of IFEval, as lm-evaluation-harness keeps them: Google's own, with later corrections.

Other copies that can be installed judge differently (one drops empty answers from the number of instructions), so that
scores would not be the harness's.
"""

from __future__ import annotations

import functools
import importlib
import io
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.errors import MissingDependencyError, one_line
from evalkit.tasks.fewshot import Doc

INSTALL = "pip install 'evalkit-tasks-instruct[ifeval]'"
SENTENCES = "tokenizers/punkt_tab"
# The checkers draw from the generator that all threads share, and langdetect sets itself up without a lock.
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Followed:
    """Whether each instruction of a prompt was followed, in their order: as written, and with some indulgence."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]


def judge(doc: Doc, texts: Sequence[str]) -> list[Followed]:
    """Which instructions of `doc` each text follows. Raises MissingDependencyError."""
    harness = need_checkers()
    with _LOCK:
        state = random.getstate()
        try:
            return [_judged(harness, doc, text) for text in texts]
        finally:
            random.setstate(state)


def check_instructions(doc: Doc) -> None:
    """Raise where the checkers could judge no answer to `doc`. Raises MissingDependencyError."""
    known = need_checkers().instructions_registry.INSTRUCTION_DICT
    if not isinstance(doc["key"], int | str):
        raise TypeError(f"{doc['key']!r} is no key")
    options = len(doc["kwargs"])
    names = doc["instruction_id_list"]
    if len(names) != options:
        raise ValueError(f"{len(names)} instructions have options for {options}")
    for name in names:
        if name not in known:
            raise ValueError(f"there is no instruction {name!r}")
    # An empty answer follows nothing, and each checker is made with its options.
    judge(doc, [""])


def _judged(harness: Any, doc: Doc, text: str) -> Followed:
    # Where "#" or "!" is to be counted, the checker counts a letter drawn at random: the same in every run here.
    random.seed(doc["key"])
    found = harness.process_results(doc, [text])
    return Followed(tuple(found["inst_level_strict_acc"]), tuple(found["inst_level_loose_acc"]))


@functools.cache
def need_checkers() -> Any:
    """The harness's module. Raises MissingDependencyError where it, or data that it needs, is missing."""
    _need_sentences()
    try:
        langdetect = importlib.import_module("langdetect")
        harness = importlib.import_module("lm_eval.tasks.ifeval.utils")
    except ImportError as error:
        raise MissingDependencyError(f"ifeval needs its checkers ({one_line(error)}): {INSTALL}") from error
    # Without a seed it guesses the language of a short answer differently from run to run.
    langdetect.DetectorFactory.seed = 0
    return harness


def _need_sentences() -> None:
    """Have NLTK's data for splitting sentences, fetched if need be: the checkers go on without and fail later."""
    try:
        nltk = importlib.import_module("nltk")
    except ImportError as error:
        raise MissingDependencyError(f"ifeval needs nltk, which is not installed: {INSTALL}") from error
    if not (_has_sentences(nltk) or _fetch_sentences(nltk)):
        raise MissingDependencyError(
            "ifeval needs NLTK's data set punkt_tab, which is neither here nor could be fetched. With network: "
            "python -m nltk.downloader -d FOLDER punkt_tab; then copy FOLDER here and set NLTK_DATA to it"
        )


def _fetch_sentences(nltk: Any) -> bool:
    # It prints what went wrong, in lines that say less than the error above.
    nltk.download("punkt_tab", quiet=True, print_error_to=io.StringIO())
    return _has_sentences(nltk)


def _has_sentences(nltk: Any) -> bool:
    try:
        nltk.data.find(SENTENCES)
    except LookupError:
        return False
    return True
