"""What a run gives back: samples and results, in the shapes that lm-evaluation-harness's tools read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.costs import Cost
from evalkit.energy import Energy
from evalkit.requests import (
    GenerationOutput,
    GenerationRequest,
    LoglikelihoodOutput,
    LoglikelihoodRequest,
    Output,
    Request,
    TokenCounts,
)

# Made once: `json.dumps` would make one for every sample.
CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, check_circular=False, default=str)


@dataclass(frozen=True, slots=True)
class Sample:
    """One document of one task under one filter: what was asked, what came, and what each metric gave it.

    `error` is set where a request failed; such a sample has no values and counts for no metric. `cluster` is equal for
    documents that belong together, where the task says so.
    """

    task: str
    doc_id: int
    doc: Mapping[str, Any]
    target: Any
    requests: tuple[Request, ...]
    outputs: tuple[Output, ...]
    filter: str
    filtered: Any
    values: Mapping[str, Any]
    error: str | None = None
    remarks: tuple[str, ...] = ()
    cluster: Hashable = None

    @property
    def notes(self) -> list[str]:
        """What the engine remarked on any of the answers (a truncation, say), and the task; each once."""
        found = (note for output in self.outputs for note in output.notes)
        return list(dict.fromkeys((*found, *self.remarks)))

    def to_dict(self) -> dict[str, Any]:
        """A row of `samples_<task>.jsonl`."""
        arguments = [_arguments(request) for request in self.requests]
        return {
            "doc_id": self.doc_id,
            "doc": dict(self.doc),
            "target": self.target,
            "arguments": arguments,
            "resps": [[_response(output)] for output in self.outputs],
            "filtered_resps": self._filtered_resps(),
            "filter": self.filter,
            "metrics": list(self.values),
            "doc_hash": _digest(self.doc),
            "prompt_hash": _digest(arguments[0] if arguments else None),
            "target_hash": _digest(self.target),
            **self.values,
            **({"cluster": self.cluster} if self.cluster is not None else {}),
            **({"notes": self.notes} if self.notes else {}),
            **({"error": self.error} if self.error else {}),
        }

    def _filtered_resps(self) -> Any:
        """`filtered` as the harness's tools expect it: with scores of continuations, whether each is the greedy one."""
        scored = [output for output in self.outputs if isinstance(output, LoglikelihoodOutput)]
        if isinstance(self.filtered, list) and scored and self.filtered == [output.logprob for output in scored]:
            return [[output.logprob, output.is_greedy] for output in scored]
        return self.filtered


@dataclass(frozen=True, slots=True)
class Seconds:
    """Wall time: loading the model, answering requests, and everything."""

    load: float
    inference: float
    total: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """The scores of a finished run. `results[task]` maps "metric,filter" to a number ("N/A": no such error).

    `errors` counts requests that failed, `unusable` documents that nothing could be asked about, `from_cache`
    answers that were found in the answer cache, `tokens_out` tokens that were generated. `energy` is None where the
    machine has no counter. `details["intervals"][task]` maps the keys of `results` to [low, high]: 95 % confidence.
    """

    run_dir: str
    results: dict[str, dict[str, Any]]
    tokens: TokenCounts | None
    seconds: Seconds
    errors: int = 0
    unusable: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    from_cache: int = 0
    tokens_out: int | None = None
    energy: Energy | None = None

    @property
    def cost(self) -> Cost:
        """Tokens, seconds and joules, and what follows from them."""
        tokens, seconds, energy = self.tokens, self.seconds, self.energy
        return Cost(
            requested=tokens.requested if tokens else None,
            unique=tokens.unique if tokens else None,
            computed=tokens.computed if tokens else None,
            tokens_out=self.tokens_out,
            load=seconds.load,
            inference=seconds.inference,
            total=seconds.total,
            joules=energy.joules if energy else None,
            counters=energy.counters if energy else (),
        )

    def to_dict(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        tokens = self.tokens
        return {
            "run_dir": self.run_dir,
            "results": self.results,
            "tokens": {
                "requested": tokens.requested if tokens else None,
                "unique": tokens.unique if tokens else None,
                "computed": tokens.computed if tokens else None,
            },
            "seconds": {
                "load": round(self.seconds.load, 3),
                "inference": round(self.seconds.inference, 3),
                "total": round(self.seconds.total, 3),
            },
            "speed": self.cost.to_dict(),
            **self._joules(),
            "errors": self.errors,
            "unusable_documents": self.unusable,
            "from_cache": self.from_cache,
        }

    def _joules(self) -> dict[str, Any]:
        """Nothing where there is no counter: 0 would be a number."""
        energy = self.energy
        return {"joules": round(energy.joules, 3), "joules_from": list(energy.counters)} if energy else {}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RunResult:
        """The result that `to_dict` or a results.json holds; what an older version did not write is left out."""
        tokens = value.get("tokens") or {}
        seconds = {"load": 0.0, "inference": 0.0, "total": 0.0, **value.get("seconds", {})}
        return cls(
            run_dir=value["run_dir"],
            results=value.get("results", {}),
            tokens=TokenCounts(**tokens) if tokens.get("requested") is not None else None,
            seconds=Seconds(**seconds),
            errors=value.get("errors", 0),
            unusable=value.get("unusable_documents", 0),
            details={name: value[name] for name in ("intervals",) if name in value},
            warnings=tuple(value.get("warnings", ())),
            from_cache=value.get("from_cache", 0),
            tokens_out=value.get("speed", {}).get("tokens_out"),
            energy=Energy(value["joules"], tuple(value.get("joules_from", ()))) if "joules" in value else None,
        )


def _arguments(request: Request) -> Sequence[Any]:
    if isinstance(request, LoglikelihoodRequest):
        return [request.context, request.continuation]
    if isinstance(request, GenerationRequest):
        options = {"until": list(request.stop), "max_gen_toks": request.max_new_tokens}
        prompt = request.prompt
        if prompt is None and request.messages is not None:
            # As lm-evaluation-harness has a conversation there.
            prompt = json.dumps([dict(message) for message in request.messages], ensure_ascii=False)
        return [prompt, {**options, "temperature": request.temperature, "do_sample": request.is_sampled}]
    return [request.text]


def _response(output: Output) -> Any:
    if isinstance(output, GenerationOutput):
        return output.text
    if isinstance(output, LoglikelihoodOutput):
        return [output.logprob, output.is_greedy]
    return output.logprob


def _digest(value: Any) -> str:
    text = CANONICAL.encode(value)
    # A text may hold half a surrogate pair, which strict UTF-8 refuses.
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()
