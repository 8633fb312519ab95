"""Ask every request once, write each answer to the journal as it arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.encoding import kind_of
from evalkit.engine import BaseInferenceSession, batched
from evalkit.errors import RequestError
from evalkit.requests import Output, Request
from evalkit.runs.journal import Journal, Spent

if TYPE_CHECKING:
    from evalkit.answers.cache import AnswerCache

LOOKUP = 1000
"""Requests that are looked up in the answer cache at once."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far inference is; `restored` answers came from an earlier attempt's journal, or the answer cache."""

    kind: str
    done: int
    total: int
    restored: int


OnProgress = Callable[[Progress], None]
OnAnswer = Callable[[int, Output], None]
"""Is called with the number of requests that have an answer, and with the newest answer."""


def check_lengths(session: BaseInferenceSession, requests: Mapping[str, Sequence[Request]], *, truncate: bool) -> None:
    """Raise RequestError for prompts longer than the context; with `truncate` only where cutting cannot help."""
    for task, asked in requests.items():
        found = [item for item in session.too_long(asked) if item.fatal or not truncate]
        if not found:
            continue
        worst = max(found, key=lambda item: item.length)
        step = "Pass --truncate to keep their last tokens, as lm-evaluation-harness does, or use fewer examples"
        if any(item.fatal for item in found):
            step = "Use a model with a longer context, or leave the task out"
        raise RequestError(
            f"task {task!r}: {len(found)} of {len(asked)} prompts are longer than the context "
            f"({worst.length} tokens, {worst.limit} fit). {step}"
        )


def infer(
    session: BaseInferenceSession,
    requests: Mapping[str, Request],
    journal: Journal,
    *,
    batch_size: int | None,
    on_progress: OnProgress | None = None,
    on_answer: OnAnswer | None = None,
    answers: AnswerCache | None = None,
    spent: Callable[[], Spent] | None = None,
) -> dict[str, Output]:
    """All outputs by request key; those in the journal or among `answers` are not asked again.

    `spent` says what this attempt has cost so far, which is journaled with each answer.
    """
    restored = journal.outputs()
    outputs = {key: restored[key] for key in requests if key in restored}
    by_kind: dict[str, list[tuple[str, Request]]] = {}
    for key, request in requests.items():
        by_kind.setdefault(kind_of(request), []).append((key, request))
    for kind, asked in by_kind.items():
        if answers is not None:
            outputs |= _found(answers, [pair for pair in asked if pair[0] not in outputs], journal)
        pending = [(key, request) for key, request in asked if key not in outputs]
        before = len(asked) - len(pending)
        for done, (key, output) in enumerate(_ask(session, kind, pending, batch_size), start=1):
            journal.put(key, output, spent() if spent else None)
            outputs[key] = output
            if answers is not None:
                answers.add(key, requests[key], output)
            if on_progress:
                on_progress(Progress(kind, before + done, len(asked), before))
            if on_answer:
                on_answer(len(outputs), output)
        session.gc()
    return outputs


def _found(answers: AnswerCache, pending: list[tuple[str, Request]], journal: Journal) -> dict[str, Output]:
    """What the answer cache knows of `pending`, journaled like any other answer."""
    found: dict[str, Output] = {}
    for some in batched(pending, LOOKUP):
        known = answers.find(dict(some))
        journal.put_all(known)
        found |= known
    return found


def _ask(
    session: BaseInferenceSession, kind: str, pending: list[tuple[str, Request]], batch_size: int | None
) -> Iterator[tuple[str, Output]]:
    ask: dict[str, Any] = {
        "generation": session.generate_continuous,
        "loglikelihood": session.loglikelihood_continuous,
        "rolling": session.loglikelihood_rolling_continuous,
    }
    if pending:
        yield from ask[kind](pending, batch_size=batch_size)
