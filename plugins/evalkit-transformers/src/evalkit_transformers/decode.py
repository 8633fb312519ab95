"""Generation: rows of one batch share forward passes, each keeps its own limits, seed and stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from evalkit.errors import OutOfMemoryError, one_line
from evalkit.requests import GenerationOutput, Timing, Usage
from evalkit.scoring import cut_at_stops, plan_batches, run_with_backoff
from evalkit.sessions import DecodeRequest
from evalkit_transformers import continuous
from evalkit_transformers.memory import memory_errors
from evalkit_transformers.rows import Row, advance, make_output, make_rows, merge
from evalkit_transformers.steps import make_steps

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession

ROWS = {"cpu": 48, "mps": 32, "cuda": 128}
CACHE_TOKENS_PER_ROW = 1024


def stream(
    session: TransformersSession, items: list[DecodeRequest], batch_size: int | None
) -> Iterator[tuple[int, GenerationOutput]]:
    """Answer all requests, yielding each once all its samples are there."""
    for item in items:
        if item.request.num_beams > 1:
            yield from _with_backoff([item], lambda part: [beam_search(session, part[0])])
    plain = [item for item in items if item.request.num_beams <= 1]
    rows = batch_size or ROWS.get(session.device.type, 16)
    if session.shares_prefixes:
        yield from _continuous(session, plain, rows)
        return
    plain.sort(key=lambda item: (-len(item.prompt), item.prompt, item.index))
    widths = [(len(item.prompt) + item.request.max_new_tokens) * item.request.n for item in plain]
    for batch in plan_batches(widths, max_tokens=lambda: rows * CACHE_TOKENS_PER_ROW, max_rows=rows):
        yield from _with_backoff([plain[i] for i in batch], lambda part: generate_batch(session, part))


def _continuous(
    session: TransformersSession, items: list[DecodeRequest], rows: int
) -> Iterator[tuple[int, GenerationOutput]]:
    """Continuous generation; where memory runs out, what is left goes on with half the rows, then one by one."""
    left = {item.index: item for item in items}
    alone = False
    while left:
        asked, failure = list(left.values())[: 1 if alone else None], ""
        try:
            for index, output in continuous.stream(session, asked, rows):
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


def _with_backoff(
    items: list[DecodeRequest], run: Callable[[list[DecodeRequest]], list[GenerationOutput]]
) -> Iterator[tuple[int, GenerationOutput]]:
    while items:
        done, failure = 0, ""
        try:
            for item, output in run_with_backoff(items, run):
                done += 1
                yield item.index, output
        except OutOfMemoryError as error:
            failure = one_line(error)
        if failure:
            # Halves run in order: the first request that is not done is the one that does not fit alone.
            problem = f"out of memory for this request alone: {failure}"
            yield items[done].index, GenerationOutput(finish_reason="error", error=problem)
            done += 1
        items = items[done:]


def generate_batch(session: TransformersSession, items: list[DecodeRequest]) -> list[GenerationOutput]:
    """Outputs of one batch, in order. Raises OutOfMemoryError."""
    rows = [row for item in items for row in make_rows(session, item)]
    with torch.inference_mode(), memory_errors(session.device):
        started = time.perf_counter()
        ended = _decode(session, rows, started)
    outputs: dict[int, list[GenerationOutput]] = {}
    for row in rows:
        outputs.setdefault(row.item.index, []).append(make_output(session, row, ended[id(row)] - started))
    return [merge(outputs[item.index]) for item in items]


def _decode(session: TransformersSession, rows: list[Row], started: float) -> dict[int, float]:
    """Run all rows to their end; the time at which each ended."""
    steps = make_steps(session, [row.item.prompt for row in rows])
    logits = steps.prefill()
    active, ended = list(rows), {}
    while active:
        tokens = [advance(session, row, scores) for row, scores in zip(active, logits.float(), strict=True)]
        now = time.perf_counter()
        for row in active:
            row.first_token = row.first_token or now - started
        kept = [index for index, row in enumerate(active) if row.finish is None]
        ended.update({id(row): now for row in active if row.finish is not None})
        if not kept:
            break
        if len(kept) < len(active):
            steps.keep(kept)
            active = [active[index] for index in kept]
        logits = steps.step([tokens[index] for index in kept])
    return ended


def beam_search(session: TransformersSession, item: DecodeRequest) -> GenerationOutput:
    """One request by beam search, through Transformers' own implementation."""
    request, started = item.request, time.perf_counter()
    ids, mask = session.pad([item.prompt], left=True)
    options: dict[str, Any] = {
        "max_new_tokens": request.max_new_tokens,
        "min_new_tokens": request.min_new_tokens or None,
        "num_beams": request.num_beams,
        "num_return_sequences": min(request.n, request.num_beams),
        "do_sample": False,
        "pad_token_id": min(session.tokenizer.eos_token_ids, default=0),
    }
    if request.stop:
        options |= {"stop_strings": list(request.stop), "tokenizer": session.hf_tokenizer}
    with torch.inference_mode(), memory_errors(session.device):
        sequences = session.model.generate(input_ids=ids, attention_mask=mask, **options).tolist()
    session.count_computed(ids.numel() + sum(map(len, sequences)) * request.num_beams)
    skip = 1 if session.is_encoder_decoder else len(item.prompt)
    seconds = time.perf_counter() - started
    return merge([_beam_output(session, item, sequence[skip:], seconds) for sequence in sequences])


def _beam_output(session: TransformersSession, item: DecodeRequest, ids: list[int], seconds: float) -> GenerationOutput:
    eos = session.tokenizer.eos_token_ids
    end = next((index + 1 for index, token in enumerate(ids) if token in eos), len(ids))
    kept, raw = tuple(ids[:end]), session.tokenizer.decode(ids[:end])
    text = cut_at_stops(raw, item.request.stop)
    stopped = text != raw or (bool(kept) and kept[-1] in eos)
    return GenerationOutput(
        text=text,
        token_ids=kept,
        finish_reason="stop" if stopped else "length",
        usage=Usage(len(item.prompt), len(kept)),
        timing=Timing(seconds, seconds),
    )
