"""The engine, over a model whose next-token scores are a hash of all tokens before.

It answers as SGLang 0.5.23 was seen to answer on a CPU: what a reply holds, where its log-probabilities begin, and what
it keeps of prompts. Requests advance a token at a time, side by side.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from evalkit.scoring.logits import log_softmax
from evalkit.testing.fake import next_scores

RECORD = json.loads(Path(__file__).parents[4].joinpath("sglang_api.json").read_text(encoding="utf-8"))
ARGUMENTS = set(RECORD["fields"]["sglang.srt.arg_groups.fields"])
SAMPLING = set(RECORD["fields"]["sglang.srt.sampling.sampling_params:SamplingParams"])
VOCABULARY = 512


class TokenizerManager:
    """Knows the requests that run."""

    def __init__(self, context_len: int) -> None:
        self.context_len = context_len
        self.aborted: set[str] = set()
        self.running: set[str] = set()

    def abort_request(self, rid: str = "") -> None:
        """Stop a request; one that is unknown is forgiven."""
        if rid in self.running:
            self.aborted.add(rid)


class Engine:
    """`sglang.Engine`; keeps what it was asked in `asked`, for tests."""

    def __init__(self, **kwargs: Any) -> None:
        if unknown := sorted(set(kwargs) - ARGUMENTS):
            raise TypeError(f"Unexpected keyword argument {unknown[0]!r}")
        if not Path(kwargs["model_path"]).exists():
            raise OSError(f"{kwargs['model_path']} is not a local folder")
        self.arguments = {"page_size": 1, "disable_radix_cache": False, **kwargs}
        self.tokenizer = Tokenizer.from_file(str(Path(kwargs["tokenizer_path"], "tokenizer.json")))
        self.loop = asyncio.new_event_loop()
        self.tokenizer_manager = TokenizerManager(kwargs.get("context_length") or 256)
        self.asked: list[dict[str, Any]] = []
        self.cached: set[tuple[int, ...]] = set()
        self.weights = 0
        self.asleep = False

    async def async_generate(
        self,
        sampling_params: dict[str, Any] | None = None,
        input_ids: list[int] | None = None,
        return_logprob: bool = False,
        logprob_start_len: int | None = None,
        top_logprobs_num: int | None = None,
        token_ids_logprob: list[int] | None = None,
        lora_path: str | None = None,
        stream: bool = False,
        rid: str | None = None,
    ) -> Any:
        """Write behind `input_ids`: a reply, or replies that each hold all so far."""
        asked = {name: value for name, value in locals().items() if name != "self"}
        self.asked.append(asked)
        replies = self._replies(asked)
        if stream:
            return replies
        return [reply async for reply in replies][-1]

    async def _replies(self, asked: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        params, prompt, rid = asked["sampling_params"], list(asked["input_ids"]), asked["rid"]
        self._check(params, prompt, asked["lora_path"])
        self.tokenizer_manager.running.add(rid)
        try:
            start = asked["logprob_start_len"]
            cached = self._read(tuple(prompt), len(prompt) if start is None else start)
            text = _Text(self, asked, cached)
            while text.finish is None:
                await asyncio.sleep(0)
                if rid in self.tokenizer_manager.aborted:
                    text.finish = {"type": "abort", "message": "Aborted"}
                else:
                    text.step()
                if len(text.ids) == 1:
                    self._keep(tuple(prompt))
                yield text.reply()
        finally:
            self.tokenizer_manager.running.discard(rid)

    def _check(self, params: dict[str, Any], prompt: list[int], lora_path: str | None) -> None:
        if unknown := sorted(set(params) - SAMPLING):
            raise TypeError(f"Unexpected keyword argument {unknown[0]!r}")
        length, context = len(prompt), self.tokenizer_manager.context_len
        if not prompt or length > context - 6 or length + params["max_new_tokens"] > context:
            raise ValueError(
                f"Input length ({length} tokens) exceeds the maximum allowed length ({context - 6} tokens)."
            )
        if lora_path is not None and lora_path not in (self.arguments.get("lora_paths") or {}):
            raise ValueError(f"The following requested LoRA adapters are not loaded: {lora_path}")
        if self.asleep:
            raise ValueError("the memory is released")

    def _read(self, prompt: tuple[int, ...], start: int) -> int:
        """Tokens that the radix cache has, of those before the first that needs logits."""
        limit = min(len(prompt) - 1, start)
        ends = range(1, limit + 1) if not self.arguments["disable_radix_cache"] else ()
        return max((end for end in ends if prompt[:end] in self.cached), default=0)

    def _keep(self, prompt: tuple[int, ...]) -> None:
        """What was read is cached, and not before."""
        self.cached |= {prompt[:end] for end in range(1, len(prompt) + 1)}

    def logprobs(self, ids: list[int]) -> np.ndarray:
        """Of all tokens behind `ids`, under the weights of now."""
        scores = next_scores([self.weights, *ids], VOCABULARY)
        return log_softmax(np.array([scores], np.float32))[0]

    def spell(self, ids: list[int]) -> str:
        """The text of tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def get_server_info(self) -> dict[str, Any]:
        """Arguments as they are resolved."""
        known = {"version": RECORD["version"], "max_req_input_len": self.tokenizer_manager.context_len - 6}
        return {**self.arguments, **known, "attention_backend": "torch_native"}

    def update_weights_from_disk(self, model_path: str) -> tuple[bool, str, int]:
        """Other weights: other scores."""
        if not Path(model_path).exists():
            return False, f"Failed to get weights iterator:\n {model_path}", 0
        self.weights = 1 + self.weights
        self.cached.clear()
        return True, "Succeeded to update model weights.", 0

    def release_memory_occupation(self) -> None:
        """Sleep."""
        self.asleep = True

    def resume_memory_occupation(self) -> None:
        """Wake."""
        self.asleep = False

    def flush_cache(self) -> None:
        """Forget all prompts."""
        self.cached.clear()

    def shutdown(self) -> None:
        """End; what still runs would be lost."""
        assert not self.tokenizer_manager.running
        self.loop.close()


class _Text:
    """A text in the making."""

    def __init__(self, engine: Engine, asked: dict[str, Any], cached: int) -> None:
        self.engine, self.asked, self.cached = engine, asked, cached
        self.params, self.prompt = asked["sampling_params"], list(asked["input_ids"])
        self.ids: list[int] = []
        self.rows: list[np.ndarray] = []
        self.finish: dict[str, Any] | None = None
        seeded = engine.arguments.get("enable_deterministic_inference")
        self.chance = random.Random(self.params.get("sampling_seed") if seeded else None)

    def step(self) -> None:
        """Write a token."""
        row = self.engine.logprobs([*self.prompt, *self.ids])
        self.rows.append(row)
        self.ids.append(self._choose(row.astype(np.float64)))
        enough = len(self.ids) >= self.params.get("min_new_tokens", 0)
        if self.ids[-1] in self.params.get("stop_token_ids", ()) and enough:
            self.finish = {"type": "stop", "matched": self.ids[-1]}
        elif any(stop in self.engine.spell(self.ids) for stop in self.params.get("stop", ())):
            # Stop strings end a text however short it is.
            self.finish = {"type": "stop", "matched": "a stop string"}
        elif len(self.ids) >= self.params["max_new_tokens"]:
            self.finish = {"type": "length", "length": len(self.ids)}

    def _choose(self, row: np.ndarray) -> int:
        if len(self.ids) < self.params.get("min_new_tokens", 0):
            row[list(self.params.get("stop_token_ids", ()))] = -np.inf
        temperature = self.params["temperature"]
        if temperature == 0:
            return int(row.argmax())
        weights = np.exp(row / temperature)
        kept = self.params.get("top_k", -1)
        if kept > 0:
            weights[np.argsort(-weights)[kept:]] = 0
        return self.chance.choices(range(VOCABULARY), weights.tolist())[0]

    def reply(self) -> dict[str, Any]:
        """All so far."""
        meta: dict[str, Any] = {
            "finish_reason": self.finish,
            "prompt_tokens": len(self.prompt),
            "cached_tokens": self.cached,
        }
        if self.asked["return_logprob"]:
            meta |= self._logprobs()
        return {"output_ids": list(self.ids), "meta_info": meta}

    def _logprobs(self) -> dict[str, Any]:
        start, tops, asked = self.asked["logprob_start_len"], self.asked["top_logprobs_num"] or 0, self.asked
        start = len(self.prompt) if start in (None, -1) else start
        places = range(start + 1, len(self.prompt))
        rows = [self.engine.logprobs(self.prompt[:place]) for place in places]
        first = [(None, self.prompt[start], None)] if start < len(self.prompt) else []
        return {
            "input_token_logprobs": first
            + [_entry(row, self.prompt[at]) for row, at in zip(rows, places, strict=True)],
            "input_top_logprobs": [None] * len(first) + [_top(row, tops) for row in rows],
            "output_token_logprobs": [_entry(row, token) for row, token in zip(self.rows, self.ids, strict=True)],
            "output_top_logprobs": [_top(row, tops) for row in self.rows],
            "output_token_ids_logprobs": [
                [_entry(row, t) for t in asked["token_ids_logprob"] or ()] for row in self.rows
            ],
        }


def _entry(row: np.ndarray, token: int) -> tuple[float, int, None]:
    return float(row[token]), token, None


def _top(row: np.ndarray, count: int) -> list[tuple[float, int, None]]:
    return [_entry(row, int(token)) for token in np.argsort(-row, kind="stable")[:count]]
