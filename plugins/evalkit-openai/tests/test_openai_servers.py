"""Real servers, each a process: llama-cpp-python's, vLLM's, and evalkit's own, with real models."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from evalkit.engine import BaseInferenceSession
from evalkit.errors import ModelError
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.specs import load_object
from evalkit.testing.waiting import eventually
from evalkit_openai.engine import OpenAICompatible

VLLM_PYTHON = "EVALKIT_TEST_VLLM_PYTHON"
START_SECONDS = 300
PAIRS = [
    LoglikelihoodRequest(context, continuation)
    for context in ("The capital of France is", "1, 2, 3, 4,", "The sky is")
    for continuation in (" Paris", " 5", " green and yellow")
]
ROLLED = [RollingLoglikelihoodRequest("The river was low that year.\nNobody remembered a summer so dry.")]


@contextmanager
def server(command: list[str], log: Path, **environment: str) -> Iterator[str]:
    """The address of a server that `command` starts; PORT in it stands for a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    with log.open("wb") as output:
        words = [word.replace("PORT", port) for word in command]
        process = subprocess.Popen(
            words, stdout=output, stderr=output, env={**os.environ, **environment}, start_new_session=True
        )
        try:
            _wait(f"http://127.0.0.1:{port}/v1/models", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.2)
    pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def connect(url: str, model: str = "smollm2", **options: Any) -> BaseInferenceSession:
    return OpenAICompatible(base_url=url, **options).build(Model(model))


def needs(*modules: str) -> None:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def smollm2(format: str) -> str:
    """The real model; needs the package index once."""
    plugin = pytest.importorskip("evalkit_smollm2.plugin")
    return str(load_object(plugin.MODEL.formats[format])())


# ── llama-cpp-python ────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module", params=["without BOS", "with BOS"])
def llamacpp(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, bool]]:
    """llama-cpp-python's server on the embedded model, as it is, and told to begin each text with BOS."""
    needs("llama_cpp", "uvicorn", "pydantic_settings", "starlette_context", "sse_starlette")
    if "amx" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        pytest.skip("llama.cpp's AMX kernels crash, and its server has no switch for them")
    with_bos = request.param == "with BOS"
    words = [sys.executable, "-m", "llama_cpp.server", "--model", smollm2("gguf"), "--model_alias", "smollm2"]
    words += ["--host", "127.0.0.1", "--port", "PORT", "--n_ctx", "512", "--logits_all", "true"]
    words += ["--kv_overrides", "tokenizer.ggml.add_bos_token=bool:true"] if with_bos else []
    with server(words, tmp_path_factory.mktemp("llamacpp") / "log") as url:
        yield url, with_bos


def test_llamacpp_generates(llamacpp: tuple[str, bool]) -> None:
    """Texts, messages, samples with a seed; a prompt that is too long and token ids fail alone."""
    with connect(llamacpp[0]) as session:
        outputs = session.generate(
            [
                GenerationRequest(prompt="The capital of France is", max_new_tokens=8, stop=(".", "\n")),
                GenerationRequest(messages=[{"role": "user", "content": "Say hello."}], max_new_tokens=5),
                GenerationRequest(prompt="So", max_new_tokens=4, temperature=1.0, seed=3, n=2, top_k=5, min_p=0.01),
                GenerationRequest(prompt="word " * 600, max_new_tokens=4),
                GenerationRequest(input_ids=[504, 3575], max_new_tokens=4),
            ]
        )
    assert outputs[0].text == " Paris"
    assert outputs[1].text
    assert len(outputs[2].alternatives) == 1
    assert "maximum context length is 512" in (outputs[3].error or "")
    assert "valid string" in (outputs[4].error or "")


def test_llamacpp_scores_only_where_it_does_so_rightly(llamacpp: tuple[str, bool]) -> None:
    """Without BOS its log-probabilities are those of the next tokens: refused. With BOS they are right: used."""
    url, with_bos = llamacpp
    with connect(url) as session:
        if not with_bos:
            with pytest.raises(ModelError, match="belong to other tokens"):
                session.loglikelihood(PAIRS)
            return
        scores = session.loglikelihood(PAIRS)
        assert all(output.error is None for output in scores)
        best = [max(range(3), key=lambda k: scores[3 * row + k].logprob) for row in range(2)]
        assert best == [0, 1]
        assert scores[0].is_greedy
        assert (session.describe_execution() or {})["scoring"] == "echo, text"


# ── vLLM ────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's server on the embedded model."""
    python = os.environ.get(VLLM_PYTHON)
    if not python:
        pytest.skip(f"give a Python that has vLLM in {VLLM_PYTHON}")
    words = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", smollm2("hf"), "--served-model-name"]
    words += ["smollm2", "--host", "127.0.0.1", "--port", "PORT", "--dtype", "float32", "--max-model-len", "512"]
    words += ["--enforce-eager", "--max-num-seqs", "8", "--enable-tokenizer-info-endpoint"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "PYTHONPATH": ""}
    with server(words, tmp_path_factory.mktemp("vllm") / "log", **settings) as url:
        yield url


def test_vllm_scores_as_transformers(vllm: str) -> None:
    """Echo of token ids and of text score as the engine `transformers` on the same weights in float32."""
    engines = pytest.importorskip("evalkit_transformers.engine")
    pytest.importorskip("torch")
    with engines.Transformers(dtype="float32", device="cpu").build(Model(smollm2("hf"))) as direct:
        expected, rolled = direct.loglikelihood(PAIRS), direct.loglikelihood_rolling(ROLLED)[0]
    for tokenizer in ("remote", "none"):
        with connect(vllm, tokenizer=tokenizer) as session:
            for ours, theirs in zip(session.loglikelihood(PAIRS), expected, strict=True):
                assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
                assert (ours.is_greedy, ours.token_count) == (theirs.is_greedy, theirs.token_count)
            if tokenizer == "remote":
                assert session.loglikelihood_rolling(ROLLED)[0].logprob == pytest.approx(rolled.logprob, abs=1e-2)


def test_vllm_generates(vllm: str) -> None:
    """Each request keeps its own values, ids of tokens come back, and the model's limit is known."""
    requests = {
        "greedy": GenerationRequest(prompt="The capital of France is", max_new_tokens=8, stop=(".", "\n")),
        "ids": GenerationRequest(input_ids=[504, 3575, 282, 4649, 314], max_new_tokens=1),
        "least": GenerationRequest(prompt="So", max_new_tokens=12, min_new_tokens=6, stop=("e",)),
        "sampled": GenerationRequest(prompt="So", max_new_tokens=4, temperature=1.0, seed=3, n=2, top_k=5, min_p=0.01),
        "chat": GenerationRequest(messages=[{"role": "user", "content": "Say hello."}], max_new_tokens=4, logprobs=2),
        "long": GenerationRequest(prompt="word " * 600, max_new_tokens=4),
    }
    with connect(vllm) as session:
        found = dict(session.generate_continuous(requests.items()))
        assert session.max_length == 512
    assert found["greedy"].text == found["ids"].text == " Paris"
    assert found["ids"].token_ids == (7042,)
    assert len(found["least"].token_ids) >= 6
    assert "e" not in found["least"].text
    assert len(found["sampled"].alternatives) == 1
    assert [len(token.top) for token in found["chat"].logprobs or ()] == [2] * 4
    assert "maximum context length is 512" in (found["long"].error or "")


# ── our own ─────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module", params=["fake", "transformers"])
def ours(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """`evalkit serve-model` on the fake engine and on the embedded model, and the same engine in this process."""
    needs("evalkit_http", "fastapi", "uvicorn")
    if request.param == "fake":
        name, path, args = "evalkit.testing.fake:Fake", "any", {}
        built = load_object(name)()
    else:
        needs("evalkit_transformers", "torch")
        name, path, args = "transformers", smollm2("hf"), {"dtype": "float32", "device": "cpu"}
        built = load_object("evalkit_transformers.engine:Transformers")(**args)
    words = [sys.executable, "-m", "evalkit", "serve-model", "--engine", name, "--model", path, "--port", "PORT"]
    words += ["--served-model-name", "smollm2"]
    words += [word for key, value in args.items() for word in ("--engine-arg", f"{key}={value}")]
    with (
        server(words, tmp_path_factory.mktemp("ours") / "log") as url,
        built.build(Model(path)) as direct,
    ):
        _until_ready(url)
        yield url, direct


def _until_ready(url: str) -> None:
    ready = url.removesuffix("/v1") + "/ready"
    eventually(lambda: httpx.get(ready, trust_env=False).status_code == 200, START_SECONDS)


@pytest.mark.parametrize("scoring", ["eval", "echo"])
def test_our_server_scores_as_its_engine(ours: tuple[str, Any], scoring: Any) -> None:
    """By either way, scores are those of the engine used directly."""
    url, direct = ours
    with connect(url, scoring=scoring) as session:
        for output, expected in zip(session.loglikelihood(PAIRS), direct.loglikelihood(PAIRS), strict=True):
            assert output.logprob == pytest.approx(expected.logprob, abs=1e-4)
            assert (output.is_greedy, output.token_count) == (expected.is_greedy, expected.token_count)
        # The fake's BOS cannot be spelled, so that the server cannot offer its tokenizer.
        if scoring == "echo" and session.tokenizer is None:
            return
        [output], [expected] = session.loglikelihood_rolling(ROLLED), direct.loglikelihood_rolling(ROLLED)
        assert output.logprob == pytest.approx(expected.logprob, abs=1e-3)


def test_our_server_writes_as_its_engine(ours: tuple[str, Any]) -> None:
    """Greedy texts and messages are answered as the engine answers them directly."""
    url, direct = ours
    requests = [
        GenerationRequest(prompt="The capital of France is", max_new_tokens=12),
        GenerationRequest(prompt="Once upon a time", max_new_tokens=12, stop=(",", "e")),
        GenerationRequest(messages=[{"role": "user", "content": "Say hello."}], max_new_tokens=8),
    ]
    with connect(url) as session:
        texts = [output.text for output in session.generate(requests)]
    assert texts == [output.text for output in direct.generate(requests)]
