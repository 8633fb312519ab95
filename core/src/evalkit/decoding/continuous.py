"""Continuous generation: sequences join and leave as they finish, and a shared prefix is computed once.

Where few sequences are running, their texts' own repetitions are guessed and checked in the same pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from evalkit.decoding import sampling
from evalkit.decoding.group import Answers, Choose, Decoder, Group, Limits
from evalkit.decoding.rows import MakeGenerator, make_rows
from evalkit.errors import OutOfMemoryError, one_line
from evalkit.requests import GenerationOutput
from evalkit.scoring import Tokenizer
from evalkit.scoring.shared import prefix_groups
from evalkit.sessions import DecodeRequest


def stream(
    decoder: Decoder,
    tokenizer: Tokenizer,
    items: list[DecodeRequest],
    limits: Limits,
    generator: MakeGenerator = sampling.generator,
    choose: Choose | None = None,
) -> Answers:
    """Answer all requests. `choose(row, logits)` takes the row's next token; by default with numpy.

    Raises OutOfMemoryError.
    """
    choose = choose or functools.partial(sampling.choose, tokenizer)
    for group in prefix_groups([item.prompt for item in items]):
        rows = [row for index in group.members for row in make_rows(tokenizer, items[index], generator)]
        yield from Group(decoder, tokenizer, rows, group.prefix, limits, choose).run()


def without_beams(items: list[DecodeRequest]) -> tuple[list[tuple[int, GenerationOutput]], list[DecodeRequest]]:
    """For engines without beam search: answers that refuse it, and the requests that do not ask for it."""
    problem = "this engine has no beam search: ask for num_beams 1, or use --engine transformers"
    refusal = GenerationOutput(finish_reason="error", error=problem)
    refused = [(item.index, refusal) for item in items if item.request.num_beams > 1]
    return refused, [item for item in items if item.request.num_beams <= 1]


def with_backoff(run: Callable[[list[DecodeRequest], int], Answers], items: list[DecodeRequest], rows: int) -> Answers:
    """`run(items, rows)`; where memory runs out, what is left goes on with half the rows, then one by one."""
    left = {item.index: item for item in items}
    alone = False
    while left:
        asked, failure = list(left.values())[: 1 if alone else None], ""
        try:
            for index, output in run(asked, rows):
                del left[index]
                yield index, output
        except OutOfMemoryError as error:
            failure = one_line(error)
        if failure and alone:
            problem = f"out of memory for this request alone: {failure}"
            del left[asked[0].index]
            yield asked[0].index, GenerationOutput(finish_reason="error", error=problem)
        elif failure:
            rows, alone = max(1, rows // 2), rows == 1
