"""Generation: rows of one batch share forward passes, each keeps its own limits, seed and stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evalkit.errors import OutOfMemoryError, one_line
from evalkit.requests import FinishReason, GenerationOutput, GenerationRequest, Timing, TokenLogprob, Usage
from evalkit.scoring import StopWatch, cut_at_stops, plan_batches, run_with_backoff
from evalkit.sessions import DecodeRequest
from evalkit_transformers.memory import memory_errors
from evalkit_transformers.sampling import next_token
from evalkit_transformers.steps import make_steps

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession

ROWS = {"cpu": 48, "mps": 32, "cuda": 128}
CACHE_TOKENS_PER_ROW = 1024


@dataclass(slots=True)
class Row:
    """One sequence in the making. A request for n samples has n rows."""

    item: DecodeRequest
    sample: int
    watch: StopWatch
    generator: torch.Generator | None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None
    first_token: float = 0.0

    @property
    def request(self) -> GenerationRequest:
        """The request it answers."""
        return self.item.request


def stream(
    session: TransformersSession, items: list[DecodeRequest], batch_size: int | None
) -> Iterator[tuple[int, GenerationOutput]]:
    """Answer all requests, longest prompt first, yielding each once all its samples are there."""
    for item in items:
        if item.request.num_beams > 1:
            yield from _with_backoff([item], lambda part: [beam_search(session, part[0])])
    plain = [item for item in items if item.request.num_beams <= 1]
    plain.sort(key=lambda item: (-len(item.prompt), item.prompt, item.index))
    rows = batch_size or ROWS.get(session.device.type, 16)
    widths = [(len(item.prompt) + item.request.max_new_tokens) * item.request.n for item in plain]
    for batch in plan_batches(widths, max_tokens=lambda: rows * CACHE_TOKENS_PER_ROW, max_rows=rows):
        yield from _with_backoff([plain[i] for i in batch], lambda part: generate_batch(session, part))


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
    rows = [row for item in items for row in _rows(session, item)]
    with torch.inference_mode(), memory_errors(session.device):
        started = time.perf_counter()
        ended = _decode(session, rows, started)
    outputs: dict[int, list[GenerationOutput]] = {}
    for row in rows:
        outputs.setdefault(row.item.index, []).append(_output(session, row, ended[id(row)] - started))
    return [_merge(outputs[item.index]) for item in items]


def _rows(session: TransformersSession, item: DecodeRequest) -> list[Row]:
    return [
        Row(item, sample, _watch(session, item.request), _generator(item.request, sample))
        for sample in range(item.request.n)
    ]


def _watch(session: TransformersSession, request: GenerationRequest) -> StopWatch:
    # With special tokens, because a stop string may be one.
    return StopWatch(request.stop, lambda ids: session.tokenizer.decode(ids, skip_special=False))


def _generator(request: GenerationRequest, sample: int) -> torch.Generator | None:
    if not request.is_sampled:
        return None
    generator = torch.Generator()
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed + sample)
    return generator


def _decode(session: TransformersSession, rows: list[Row], started: float) -> dict[int, float]:
    """Run all rows to their end; the time at which each ended."""
    steps = make_steps(session, [row.item.prompt for row in rows])
    logits = steps.prefill()
    active, ended = list(rows), {}
    while active:
        tokens = [_advance(session, row, scores) for row, scores in zip(active, logits.float(), strict=True)]
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


def _advance(session: TransformersSession, row: Row, logits: Tensor) -> int:
    """Choose the row's next token and note whether it ends the row. `logits` is [vocabulary], float32."""
    request, eos = row.request, session.tokenizer.eos_token_ids
    allowed = logits
    if len(row.watch.ids) < request.min_new_tokens and eos:
        allowed = logits.index_fill(0, torch.tensor(sorted(eos), device=logits.device), -torch.inf)
    token = next_token(allowed, request, row.generator)
    if request.logprobs is not None:
        row.logprobs.append(_logprob(session, logits, token, request.logprobs))
    stopped = row.watch.push(token)
    enough = len(row.watch.ids) >= request.min_new_tokens
    if token in eos or (stopped and enough):
        row.finish = "stop"
    elif len(row.watch.ids) >= request.max_new_tokens:
        row.finish = "length"
    return token


def _logprob(session: TransformersSession, logits: Tensor, token: int, top: int) -> TokenLogprob:
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(top) if top else None
    spell = session.tokenizer.decode
    return TokenLogprob(
        token,
        spell([token], skip_special=False),
        float(logprobs[token]),
        tuple(
            (int(i), spell([int(i)], skip_special=False), float(v))
            for v, i in (zip(best.values, best.indices, strict=True) if best else ())
        ),
    )


def _output(session: TransformersSession, row: Row, seconds: float) -> GenerationOutput:
    ids = tuple(row.watch.ids)
    text = cut_at_stops(session.tokenizer.decode(ids), row.request.stop)
    return GenerationOutput(
        text=text,
        token_ids=ids,
        finish_reason=row.finish or "length",
        logprobs=tuple(row.logprobs) if row.request.logprobs is not None else None,
        usage=Usage(len(row.item.prompt), len(ids)),
        timing=Timing(row.first_token, seconds),
    )


def _merge(samples: Sequence[GenerationOutput]) -> GenerationOutput:
    return replace(samples[0], alternatives=tuple(samples[1:])) if len(samples) > 1 else samples[0]


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
    return _merge([_beam_output(session, item, sequence[skip:], seconds) for sequence in sequences])


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
