"""However sequences join, leave and guess: each gives what it gives alone, within the limits."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings

from evalkit.decoding import Limits, with_backoff
from evalkit.errors import OutOfMemoryError
from evalkit.requests import GenerationOutput, GenerationRequest
from evalkit.sessions import DecodeRequest
from evalkit.testing.toy import END, LIMITS, Letters, asked, following, toy_requests


def alone(item: DecodeRequest) -> tuple[int, ...]:
    """What one request gives by itself."""
    text = list(item.prompt)
    while True:
        text.append(following(text))
        new = text[len(item.prompt) :]
        written = Letters().decode(new, skip_special=False)
        if text[-1] == END or len(new) == item.request.max_new_tokens or any(s in written for s in item.request.stop):
            return tuple(new)


@settings(deadline=None)
@given(toy_requests(), LIMITS)
def test_every_request_gives_what_it_gives_alone(items: list[DecodeRequest], limits: Limits) -> None:
    """Whatever shares a pass, the cache or a prefix, and whatever is guessed; limits are kept to."""
    outputs, _ = asked(items, limits)
    for item in items:
        output = outputs[item.index]
        samples = [output, *output.alternatives]
        assert [sample.token_ids for sample in samples] == [alone(item)] * item.request.n


def test_guesses_save_passes() -> None:
    """A text that repeats itself takes fewer passes than it has tokens."""
    request = GenerationRequest(max_new_tokens=60)
    item = max(
        (DecodeRequest(0, (a, b), request) for a in range(1, 6) for b in range(1, 6)), key=lambda i: len(alone(i))
    )
    plain, guessing = (asked([item], Limits(4, 100, tokens, 32))[1].passes for tokens in (0, 8))
    assert len(alone(item)) == plain + 1
    assert guessing < plain


def test_memory_that_runs_out_halves_the_rows_then_asks_one_by_one() -> None:
    """What does not fit alone fails alone; everything else is answered once."""
    items = [DecodeRequest(index, (1,), GenerationRequest(max_new_tokens=3)) for index in range(5)]
    seen: list[tuple[int, int]] = []

    def run(part: list[DecodeRequest], rows: int) -> Iterator[tuple[int, GenerationOutput]]:
        seen.append((len(part), rows))
        for item in part:
            if item.index == 2:
                raise OutOfMemoryError("no memory")
            yield item.index, GenerationOutput(text=str(item.index))

    found = dict(with_backoff(run, items, 4))
    assert seen[:3] == [(5, 4), (3, 2), (3, 1)]
    assert [found[index].text for index in (0, 1, 3, 4)] == ["0", "1", "3", "4"]
    assert found[2].error == "out of memory for this request alone: no memory"
