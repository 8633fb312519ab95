"""The session: prompts and requests in SGLang's hands, and its answers as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any

from evalkit.arrivals import with_notes
from evalkit.decoding import Feed, LiveAnswers
from evalkit.errors import ConfigError, ModelError, RequestError, one_line
from evalkit.model import Model
from evalkit.prompts import Answer, PromptSession, Work
from evalkit.pump import Arrival, Pump
from evalkit.requests import GenerationOutput, GenerationPart
from evalkit.scoring.prompts import Prompt, PromptLimits
from evalkit.sessions import DecodeRequest
from evalkit.tokenizers import load_tokenizer
from evalkit_sglang.arguments import ADAPTER, RESERVED
from evalkit_sglang.engine import SGLang
from evalkit_sglang.replies import Reply, prompt_scores, scoring_arguments
from evalkit_sglang.sampling import SEED_IGNORED, sampling_params
from evalkit_sglang.writing import Writing

DESCRIBED = (
    *("dtype", "quantization", "kv_cache_dtype", "tp_size", "pp_size", "dp_size", "device"),
    *("attention_backend", "sampling_backend", "page_size", "disable_radix_cache"),
    *("chunked_prefill_size", "enable_deterministic_inference"),
)
"""What is told of SGLang's arguments, as it has resolved them."""
MOST_NEXT_IDS = 1024
Key = tuple[int, int]
"""Number of a piece of work, and of its sample."""


class SGLangSession(PromptSession):
    """A session over a running `sglang.Engine`, which it owns."""

    def __init__(self, engine: SGLang, model: Model, library: Any) -> None:
        self.engine, self.library = engine, library
        self._pump: Pump[Reply] = Pump(library.loop)
        self._work: dict[Key, Prompt | Writing] = {}
        self._sent = 0
        try:
            self.information: dict[str, Any] = library.get_server_info()
            limit = library.tokenizer_manager.context_len - RESERVED
            super().__init__(load_tokenizer(model), max_length=limit, batch_tokens=engine.scored_tokens)
        except BaseException:
            self.close()
            raise
        self.rows = engine.queued
        self.adapter = None if model.adapter is None else ADAPTER
        self.checkpoint = model.path
        self.seeds_count = bool(self.information.get("enable_deterministic_inference"))
        block = 0 if self.information.get("disable_radix_cache") else self.information.get("page_size") or 1
        self.limits = PromptLimits(next_ids=MOST_NEXT_IDS, block=block, in_flight=engine.scored_tokens)

    # ── work ────────────────────────────────────────────────────────────────────────────────────────────
    def send(self, number: int, work: Work) -> None:
        """Hand work to SGLang. Raises RequestError for what it cannot do."""
        if isinstance(work, Prompt):
            self._start((number, 0), work, scoring_arguments(work))
            return
        request = work.item.request
        ends = self.tokenizer.eos_token_ids
        asked = [sampling_params(request, sample=sample, ends=ends) for sample in range(request.n)]
        for sample, params in enumerate(asked):
            writing = Writing(work, sample, self._spell, self._decode)
            self._start((number, sample), writing, writing.arguments(params))

    def _start(self, key: Key, work: Prompt | Writing, arguments: dict[str, Any]) -> None:
        self._sent += 1
        if self.adapter is not None:
            arguments["lora_path"] = self.adapter
        self._work[key] = work
        self._pump.start(key, self._replies(f"evalkit-{self._sent}", arguments))

    async def _replies(self, rid: str, arguments: dict[str, Any]) -> AsyncIterator[Reply]:
        finished = False
        try:
            answer = await self.library.async_generate(rid=rid, **arguments)
            if not arguments.get("stream"):
                finished = True
                yield answer
                return
            async for reply in answer:
                finished = reply["meta_info"]["finish_reason"] is not None
                yield reply
        finally:
            if not finished:
                # Nobody waits for it any more; SGLang forgives what it has forgotten.
                self.library.tokenizer_manager.abort_request(rid)

    def receive(self) -> Iterable[tuple[int, Answer]]:
        """What SGLang has answered; waits until there is something."""
        for arrival in self._pump.arrivals():
            work = self._work.get(arrival.key)
            if work is None:
                continue
            for answer in self._answers(work, arrival):
                yield arrival.key[0], answer
            if arrival.is_last or (isinstance(work, Writing) and work.is_finished):
                self._forget(arrival.key)

    def _answers(self, work: Prompt | Writing, arrival: Arrival[Reply]) -> Iterator[Answer]:
        if arrival.error is not None:
            yield one_line(arrival.error)
        elif arrival.item is None:
            return
        elif isinstance(work, Writing):
            yield from work.take(arrival.item)
        else:
            try:
                yield prompt_scores(work, arrival.item)
            except RequestError as error:
                yield one_line(error)

    def withdraw(self, number: int) -> None:
        """Abort what is left of a piece of work."""
        for key in [key for key in self._work if key[0] == number]:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        self._work.pop(key, None)
        self._pump.stop(key)

    def _spell(self, token: int) -> str:
        return self._decode([token])

    def _decode(self, ids: Sequence[int]) -> str:
        # A stop string may be a special token.
        return self.tokenizer.decode(ids, skip_special=False)

    # ── generation ──────────────────────────────────────────────────────────────────────────────────────
    def decode_stream(
        self, requests: list[DecodeRequest], *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GenerationOutput]]:
        """Generate; an output says where its request's seed did not count."""
        seeded = {item.index for item in requests if self._ignores_seed(item)}
        for index, output in super().decode_stream(requests, batch_size=batch_size):
            yield index, with_notes(output, (SEED_IGNORED,)) if index in seeded else output

    def decode_live(self, feed: Feed, wants_parts: Callable[[int], bool]) -> LiveAnswers:
        """Generate for a feed, with the same notes."""
        seeded: set[int] = set()

        def read() -> Feed:
            for arrival in feed:
                if isinstance(arrival, DecodeRequest) and self._ignores_seed(arrival):
                    seeded.add(arrival.index)
                yield arrival

        for answer in super().decode_live(read(), wants_parts):
            if answer is None or answer[0] not in seeded or isinstance(answer[1], GenerationPart):
                yield answer
            else:
                seeded.discard(answer[0])
                yield answer[0], with_notes(answer[1], (SEED_IGNORED,))

    def _ignores_seed(self, item: DecodeRequest) -> bool:
        return item.request.is_sampled and item.request.seed is not None and not self.seeds_count

    # ── weights and memory ──────────────────────────────────────────────────────────────────────────────
    def reload(self, path: str) -> None:
        """Replace the weights by those in `path`, a checkpoint of the same shape. Raises ModelError."""
        success, message, *_ = self.library.update_weights_from_disk(path)
        if not success:
            raise ModelError(f"sglang cannot load the weights of {path!r}: {' '.join(str(message).split())}")
        self.checkpoint = path

    def sleep(self) -> None:
        """Give the GPU's memory back until `wake`. Raises ConfigError where SGLang was not started for it."""
        if not self.engine.enable_memory_saver:
            raise ConfigError("sglang can sleep only where it was told so. Give --engine-arg enable_memory_saver=true")
        self.library.release_memory_occupation()

    def wake(self) -> None:
        """Take the GPU's memory again; weights that were given up are to be loaded by `reload`."""
        self.library.resume_memory_occupation()

    def gc(self) -> None:
        """Release cached prefixes."""
        self.library.flush_cache()

    def close(self) -> None:
        """End SGLang's processes. May be called more than once."""
        if self.library is not None:
            self._pump.close()
            self.library.shutdown()
            self.library = None

    def describe_execution(self) -> dict[str, Any]:
        """SGLang's version, and its arguments as it has resolved them."""
        found = {name: self.information.get(name) for name in DESCRIBED}
        return {
            "backend": "sglang",
            "sglang": self.information.get("version"),
            "checkpoint": self.checkpoint,
            "max_length": self.max_length,
            "scoring": "behind cached prefixes" if self.limits.block else "prompt by prompt",
            **{name: value for name, value in found.items() if isinstance(value, (str, int, float))},
        }
