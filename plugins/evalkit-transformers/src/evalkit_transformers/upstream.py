"""Generation by Transformers' own continuous batching manager: paged caches, prefix sharing by block, CUDA graphs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import transformers

from evalkit.decoding import Row, make_output, make_rows, take
from evalkit.errors import ConfigError, one_line
from evalkit.requests import GenerationOutput, GenerationRequest
from evalkit.sessions import DecodeRequest
from evalkit_transformers.sampling import generator

if TYPE_CHECKING:
    from evalkit_transformers.session import TransformersSession

WAIT = 1.0
"""Seconds until we look again whether the manager still runs."""


class ManagerFailedError(RuntimeError):
    """The manager did not answer everything."""


def is_wanted(session: TransformersSession, scheduler: str) -> bool:
    """Whether the manager is to be used. Raises ConfigError where it is asked for and is not there."""
    exists = hasattr(transformers, "ContinuousBatchingConfig") and hasattr(session.model, "init_continuous_batching")
    if scheduler == "transformers":
        if not exists or session.is_encoder_decoder:
            raise ConfigError("scheduler=transformers needs a decoder-only model and a newer Transformers. Use auto")
        return True
    return exists and scheduler == "auto" and session.device.type == "cuda" and session.shares_prefixes


def takes(session: TransformersSession, request: GenerationRequest) -> bool:
    """Whether the manager can answer a request exactly: it has one source of chance and no processors of its own."""
    plain = request.n == 1 and request.num_beams <= 1 and request.min_new_tokens == 0
    return plain and not request.is_sampled and request.logprobs is None and not session.processors


def make_config(options: dict[str, Any]) -> Any:
    """The manager's configuration. Raises ConfigError for what it does not know."""
    try:
        return transformers.ContinuousBatchingConfig(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"scheduler_options are refused ({one_line(error)}). See ContinuousBatchingConfig in Transformers' manual"
        ) from error


def stream(session: TransformersSession, items: list[DecodeRequest]) -> Iterator[tuple[int, GenerationOutput]]:
    """Answer requests in order of completion. Raises ManagerFailedError, with the rest unanswered."""
    rows = {str(item.index): row for item in items for row in make_rows(session.tokenizer, item, generator)}
    started = time.perf_counter()
    with session.model.continuous_batching_context_manager(
        generation_config=transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=make_config(session.scheduler_options),
    ) as manager:
        for name, row in rows.items():
            # Every token is looked at here: stop strings and all of the tokenizer's end tokens count.
            manager.add_request(
                list(row.item.prompt), request_id=name, max_new_tokens=row.request.max_new_tokens, streaming=True
            )
        failure = ""
        while rows:
            found = manager.get_result(timeout=WAIT)
            if found is None and not manager.is_running():
                raise ManagerFailedError("Transformers' continuous batching ended early")
            if found is None or found.request_id not in rows:
                continue
            row = rows[found.request_id]
            output = None if found.error else _advance(session, row, found, time.perf_counter() - started)
            if found.error or output is not None:
                del rows[found.request_id]
                failure = failure or str(found.error or "")
            if output is not None:
                if not found.is_finished():
                    manager.cancel_request(found.request_id)
                yield row.item.index, output
    if failure:
        raise ManagerFailedError(f"Transformers' continuous batching failed ({failure})")


def _advance(session: TransformersSession, row: Row, found: Any, seconds: float) -> GenerationOutput | None:
    """Take a row's new tokens; its output, if that ends it."""
    for token in found.generated_tokens[len(row.watch.ids) :]:
        row.first_token = row.first_token or seconds
        take(session.tokenizer, row, token)
        if row.finish is not None:
            # At most this many: the manager computes blocks that prompts share only once.
            session.count_computed(len(row.item.prompt) + len(row.watch.ids) - 1)
            return make_output(session.tokenizer, row, seconds)
    return None
