"""The session: prompts and requests in SGLang's hands, and its answers as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from evalkit.arrivals import with_notes
from evalkit.decoding import Feed, LiveAnswers
from evalkit.errors import ConfigError, EvalkitError, ModelError, one_line
from evalkit.model import Model
from evalkit.prompts import Answer, Decode, PromptSession, Work, Written
from evalkit.pump import Arrival, Pump
from evalkit.requests import GenerationOutput
from evalkit.scoring.prompts import Prompt, PromptLimits
from evalkit.scoring.stops import StopWatch
from evalkit.tokenizers import load_tokenizer
from evalkit_sglang.engine import SGLang
from evalkit_sglang.load import ADAPTER, RESERVED
from evalkit_sglang.replies import Reply, prompt_scores, scoring_arguments, token_logprobs
from evalkit_sglang.sampling import SEED_IGNORED, sampling_params

DESCRIBED = (
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "tp_size",
    "pp_size",
    "dp_size",
    "attention_backend",
    "sampling_backend",
    "page_size",
    "chunked_prefill_size",
    "disable_radix_cache",
    "enable_deterministic_inference",
)
"""What is told of SGLang's resolved arguments."""
