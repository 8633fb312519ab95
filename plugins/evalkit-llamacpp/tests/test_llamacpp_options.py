"""Options reach llama.cpp's own parameters, a CPU means no GPU at all, and a closed session says so."""

from __future__ import annotations

import ctypes
import logging
from typing import Any

import pytest
from llama_cpp import llama_cpp as api

from evalkit.errors import ConfigError, ModelError
from evalkit.model import Model
from evalkit.options import build
from evalkit.requests import GenerationRequest, LoglikelihoodRequest
from evalkit.testing.gguf_changes import changed_gguf
from evalkit.testing.tiny import TinyModel
from evalkit_llamacpp import load
from evalkit_llamacpp.context import context_params
from evalkit_llamacpp.engine import LlamaCpp
from evalkit_llamacpp.session import LlamaCppSession

PAIR = LoglikelihoodRequest("The sky is", " blue")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rope_freq_base", 500.0, 500.0),
        ("rope_freq_scale", 0.5, 0.5),
        ("rope_scaling", "yarn", api.LLAMA_ROPE_SCALING_TYPE_YARN),
        ("yarn_orig_ctx", 128, 128),
        ("yarn_ext_factor", 0.5, 0.5),
        ("yarn_attn_factor", 2.0, 2.0),
        ("yarn_beta_fast", 16.0, 16.0),
        ("yarn_beta_slow", 2.0, 2.0),
        ("type_k", "bf16", 30),
        ("type_v", "iq4_nl", api.GGML_TYPE_IQ4_NL),
        ("type_k", "auto", api.GGML_TYPE_F16),
        ("flash_attn", "on", api.LLAMA_FLASH_ATTN_TYPE_ENABLED),
        ("n_threads", 3, 3),
        ("offload_kqv", False, False),
    ],
)
def test_options_reach_the_context(name: str, value: Any, expected: Any) -> None:
    """Each sets the parameter that llama.cpp has for it."""
    engine = build(LlamaCpp, {name: value}, "engine 'llamacpp'")
    params = context_params(engine, 256, 4, exact=False, on_gpu=True)
    fields = {"rope_scaling": "rope_scaling_type", "flash_attn": "flash_attn_type"}
    assert getattr(params, fields.get(name, name)) == expected


@pytest.mark.parametrize(("value", "expected"), [(None, -1), (-1, -1), (7, 7)])
def test_layers_on_a_gpu_are_counted_as_llama_cpp_does(value: int | None, expected: int) -> None:
    """-1 is all of them, in llama.cpp's word; below it there is nothing."""
    engine = build(LlamaCpp, {"n_gpu_layers": value}, "engine 'llamacpp'")
    params = load.model_params(engine, on_gpu=True)
    assert params.n_gpu_layers == expected
    assert not params.devices
    with pytest.raises(ConfigError, match="n_gpu_layers"):
        build(LlamaCpp, {"n_gpu_layers": -2}, "engine 'llamacpp'")


@pytest.mark.parametrize("engine", [LlamaCpp(device="cpu"), LlamaCpp(n_gpu_layers=0)])
def test_a_cpu_means_no_gpu_at_all(engine: LlamaCpp, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a build with a GPU, llama.cpp gets an empty list of devices, and may not send it large products."""
    monkeypatch.setattr(load.llama_cpp, "llama_supports_gpu_offload", lambda: True)
    assert not load.uses_gpu(engine)
    params = load.model_params(engine, on_gpu=False)
    assert params.n_gpu_layers == 0
    assert ctypes.cast(params.devices, ctypes.POINTER(ctypes.c_void_p))[0] is None
    assert not context_params(engine, 256, 4, exact=True, on_gpu=False).op_offload
    assert context_params(engine, 256, 4, exact=True, on_gpu=True).op_offload


@pytest.mark.parametrize(
    ("features", "message"),
    [(b"CUDA : ARCHS = 900 | CPU : AVX2 = 1 |", "finds no such device"), (b"CPU : AVX2 = 1 |", "GGML_CUDA=on")],
)
def test_a_missing_gpu_is_told_by_its_cause(
    features: bytes, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A CUDA build on a machine without a GPU needs no other build."""
    monkeypatch.setattr(load.llama_cpp, "llama_supports_gpu_offload", lambda: False)
    monkeypatch.setattr(load.llama_cpp, "llama_print_system_info", lambda: features)
    with caplog.at_level(logging.WARNING):
        assert not load.uses_gpu(LlamaCpp(device="cuda"))
    assert message in caplog.text


@pytest.mark.parametrize("kind", ["bf16", "iq4_nl"])
def test_more_types_of_the_cache_score_alike(tiny: TinyModel, llama: LlamaCppSession, kind: str) -> None:
    """They load, and change a log-probability of -33 by what their rounding does."""
    options: dict[str, Any] = {"type_k": kind, "type_v": kind, "flash_attn": "on"}
    expected = llama.loglikelihood([PAIR])[0].logprob
    with LlamaCpp(n_threads=1, **options).build(Model(str(tiny.gguf))) as session:
        assert session.loglikelihood([PAIR])[0].logprob == pytest.approx(expected, abs=2)


def test_float32_weights_are_known_without_their_file_type(tiny: TinyModel, tmp_path: Any) -> None:
    """A file that does not name its type is judged by its tensors: attention is then computed in float32 too."""
    path = changed_gguf(tiny.gguf, tmp_path / "m.gguf", {"general.file_type": None})
    with LlamaCppSession(LlamaCpp(n_threads=1), Model(str(path))) as session:
        assert load.metadata(session.model, "general.file_type") is None
        assert session.is_exact


def test_a_closed_session_says_so(tiny: TinyModel) -> None:
    """Whatever would read freed memory raises an error that says what to do."""
    session = LlamaCppSession(LlamaCpp(n_threads=1), Model(str(tiny.gguf)))
    ids = session.tokenizer.encode_batch(["The sky is"])[0]
    session.close()
    for use in (
        lambda: session.tokenizer.encode_batch(["The sky is"]),
        lambda: session.tokenizer.decode(ids),
        lambda: session.describe_execution(),
        lambda: session.context(),
        lambda: session.loglikelihood([PAIR]),
    ):
        with pytest.raises(ModelError, match="is closed"):
            use()
    (output,) = session.generate([GenerationRequest(prompt="A", max_new_tokens=1)])
    assert "is closed" in str(output.error)
