"""From a row of a sample file to what is listed of it (verdict, answer) and shown of it (prompt, answers)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalkit.reading.aligned import Aligned
from evalkit.runs.samples import OFFSET, Row

RIGHT, WRONG, ERROR, OTHER, MISSING = "r", "w", "e", "o", "-"
PREVIEW = 110


def verdict(row: Row | None, higher_is_better: Mapping[str, bool]) -> str:
    """Right or wrong by the sample's first metric, where that is 0 or 1; other values are neither."""
    if row is None:
        return MISSING
    if row.get("error"):
        return ERROR
    name = next(iter(row.get("metrics", ())), "")
    value = row.get(name)
    if not isinstance(value, (int, float)) or value not in (0, 1):
        return OTHER
    return RIGHT if bool(value) is higher_is_better.get(name, True) else WRONG


def is_flipped(verdicts: str) -> bool:
    """Whether some run is right and another wrong."""
    return RIGHT in verdicts and WRONG in verdicts


def choice_logprobs(row: Row) -> list[float] | None:
    """The log-probability of every choice of a multiple-choice sample; None for any other sample."""
    filtered = row.get("filtered_resps")
    if not isinstance(filtered, list) or len(filtered) < 2:
        return None
    # As the harness writes them, each has beside it whether it is the greedy one.
    found = [item[0] if isinstance(item, list) and len(item) == 2 else item for item in filtered]
    if not all(map(_is_number, found)):
        return None
    if OFFSET in row and "arguments" not in row:
        # A light row: what it has here are log-probabilities of continuations.
        return found
    pairs = row.get("arguments", ())[: len(found)]
    if len(pairs) < len(found):
        return None
    return found if all(len(pair) == 2 and isinstance(pair[1], str) for pair in pairs) else None


def probabilities(logprobs: Sequence[float]) -> list[float]:
    """Softmax."""
    highest = max(logprobs)
    if not math.isfinite(highest):
        return [1 / len(logprobs)] * len(logprobs)
    weights = [math.exp(value - highest) for value in logprobs]
    return [weight / sum(weights) for weight in weights]


def generated_texts(row: Row) -> list[str]:
    """The generated answers of a sample; none where log-probabilities were asked for."""
    return [text for group in row.get("resps", ()) for text in group if isinstance(text, str)]


def describe(rows: Aligned) -> dict[str, Any]:
    """All that is shown of a sample: the prompt and target once, the answers of every run."""
    first = next(row for row in rows if row is not None)
    prompt = _prompt(first)
    runs = []
    for row in rows:
        own = None if row is None else _answers(row)
        if own is not None and row is not None and (other := _prompt(row)) != prompt:
            own["prompt"] = other
        runs.append(own)
    return {"prompt": prompt, "target": target_text(first), "runs": runs}


def target_text(row: Row) -> str:
    """The right answer; a multiple-choice target's text instead of its number."""
    target = row.get("target")
    if choice_logprobs(row) and isinstance(target, int) and 0 <= target < len(row["arguments"]):
        return _choice(row, target)
    return _text(target)


def answer_text(row: Row | None) -> str:
    """What the model answered, for a line in a list."""
    if row is None:
        return ""
    if row.get("error"):
        return str(row["error"])
    if logprobs := choice_logprobs(row):
        return _choice(row, logprobs.index(max(logprobs)))
    return _text(row.get("filtered_resps"))


def preview(text: str, *, end: bool = False, width: int = PREVIEW) -> str:
    """A line's worth of `text`: its beginning, or its end, where a prompt has its question."""
    # A prompt may be as long as a book: only what can be seen is worth splitting into words.
    cut = text[-4 * width :] if end else text[: 4 * width]
    line = " ".join(cut.split())
    if len(line) <= width:
        return line
    return "…" + line[1 - width :] if end else line[: width - 1] + "…"


def prompt_end(rows: Aligned, *, width: int = PREVIEW) -> str:
    """The last of the prompt, for a line in a list."""
    first = next(row for row in rows if row is not None)
    return preview(_prompt(first) or _context(first), end=True, width=width)


def texts(row: Row) -> Iterator[str]:
    """All that a reader may look for in a sample: prompts, continuations, answers, target and error."""
    yield from dict.fromkeys(part for asked in row.get("arguments", ()) for part in asked if isinstance(part, str))
    yield from generated_texts(row)
    yield target_text(row)
    yield answer_text(row)
    yield str(row.get("error") or "")


def _answers(row: Row) -> dict[str, Any]:
    logprobs = choice_logprobs(row)
    shares = probabilities(logprobs) if logprobs else []
    answers = [
        _answer(pair, response, shares[index] if index < len(shares) else None)
        for index, (pair, response) in enumerate(zip(row.get("arguments", ()), row.get("resps", ()), strict=False))
    ]
    if _prompt(row):
        for answer in answers:
            answer.pop("context", None)
    return {
        "answers": answers,
        "filtered": None if logprobs else _text(row.get("filtered_resps")),
        "metrics": {name: _text(row.get(name)) for name in row.get("metrics", ())},
        "notes": list(row.get("notes", ())),
        "error": row.get("error"),
    }


def _answer(pair: Sequence[Any], response: Any, share: float | None) -> dict[str, Any]:
    value = response[0] if isinstance(response, list) and response else response
    if isinstance(value, str):
        return {"text": value}
    found: dict[str, Any] = {"context": _text(pair[0])}
    if len(pair) == 2 and isinstance(pair[1], str):
        found["text"] = pair[1]
    logprob, greedy = value if isinstance(value, list) and len(value) == 2 else (value, None)
    found["logprob"] = _number(logprob)
    if greedy is not None:
        found["greedy"] = bool(greedy)
    if share is not None:
        found["share"] = round(share, 4)
    return found


def _prompt(row: Row) -> str:
    """The prompt that all requests of the sample share; empty where each has its own."""
    contexts = [_text(pair[0]) for pair in row.get("arguments", ()) if pair]
    # The requests without context, which some metrics want, come last.
    shared = {context for context in contexts if context}
    return shared.pop() if len(shared) == 1 else ""


def _context(row: Row) -> str:
    return next((_text(pair[0]) for pair in row.get("arguments", ()) if pair), "")


def _choice(row: Row, index: int) -> str:
    """A choice's text: what differs between the requests."""
    context, continuation = row["arguments"][index]
    return str(continuation if _prompt(row) else context).strip()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any) -> float | str | None:
    """A number that JSON can hold; others as text."""
    if not _is_number(value):
        return None if value is None else _text(value)
    return round(float(value), 6) if math.isfinite(value) else str(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return value[0]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
