"""Scores and texts are those of Transformers in float32, whatever shares a pass or a prefix."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError
from evalkit.model import Model
from evalkit.requests import LoglikelihoodRequest
from evalkit.scoring import Span
from evalkit.testing.decoders import (
    SPANS,
    TEXT,
    check_each_token_is_computed_once,
    check_greedy,
    check_spans,
    check_windows,
    logprob_errors,
    passes_of,
)
from evalkit.testing.reference import reference_model
from evalkit_openvino.engine import OpenVINO
from evalkit_openvino.export import exported
from evalkit_openvino.session import OpenVINOSession

NAMES = ["llama", "mistral"]


@pytest.fixture(scope="module")
def models(llama_path: Path, mistral_path: Path) -> dict[str, Any]:
    """The same checkpoints in Transformers."""
    return {name: reference_model(path) for name, path in zip(NAMES, (llama_path, mistral_path), strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_logprobs_are_those_of_transformers(name: str, models: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Token by token, within 1e-3, windows included."""
    assert max(logprob_errors(request.getfixturevalue(name), models[name])) < 1e-3


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(spans=SPANS, budget=st.integers(1, 60))
def test_scores_do_not_depend_on_what_is_shared(
    name: str, models: dict[str, Any], request: pytest.FixtureRequest, spans: list[Span], budget: int
) -> None:
    """The forest, in passes of any size, scores as each text alone."""
    session: OpenVINOSession = request.getfixturevalue(name)
    with passes_of(session, budget):
        check_spans(session, models[name], spans)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_is_that_of_transformers(name: str, models: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """The same tokens as `model.generate`, behind a shared prefix and without, guessing ahead."""
    check_greedy(request.getfixturevalue(name), models[name])


@pytest.mark.parametrize(
    "asked", [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"bad_words_ids": [[35], [44, 45]]}], ids=str
)
def test_what_the_checkpoint_asks_of_every_text_holds(
    asked: dict[str, Any], llama_path: Path, models: dict[str, Any], tmp_path: Path
) -> None:
    """Penalties and forbidden tokens of generation_config.json count, as they do in `model.generate`."""
    folder = tmp_path / "ir"
    shutil.copytree(exported(OpenVINO(), Model(str(llama_path))), folder)
    settings_of = folder / "generation_config.json"
    settings_of.write_text(json.dumps(json.loads(settings_of.read_text(encoding="utf-8")) | asked), encoding="utf-8")
    model = copy.copy(models["llama"])
    model.generation_config = GenerationConfig.from_pretrained(folder)
    with OpenVINO().build(Model(str(folder), tokenizer_path=str(llama_path))) as session:
        check_greedy(session, model)


def test_each_token_is_computed_once(llama: OpenVINOSession) -> None:
    """Shared contexts and shared beginnings of continuations cost nothing further."""
    check_each_token_is_computed_once(llama)


def test_rolling_windows_cover_long_texts(llama: OpenVINOSession) -> None:
    """A text of several contexts is scored window by window."""
    check_windows(llama)


def test_an_exported_folder_is_taken_as_it_is(llama: OpenVINOSession, llama_path: Path, tmp_path: Path) -> None:
    """A folder with an openvino_model.xml needs no export; its tokenizer may be elsewhere."""
    folder = tmp_path / "ir"
    shutil.copytree(exported(OpenVINO(), Model(str(llama_path))), folder)
    pair = LoglikelihoodRequest("The sky is", " blue")
    with OpenVINO().build(Model(str(folder), tokenizer_path=str(llama_path))) as session:
        assert session.loglikelihood([pair])[0].logprob == pytest.approx(llama.loglikelihood([pair])[0].logprob)
    (folder / "openvino_model.xml").write_text("<net", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read"):
        OpenVINO().build(Model(str(folder), tokenizer_path=str(llama_path)))


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_compressed_weights_score_about_the_same(llama: OpenVINOSession, llama_path: Path, weights: str) -> None:
    """Weights of 8 and 4 bits are exported on their own, and move scores a little."""
    pairs = [LoglikelihoodRequest(TEXT, end) for end in (" blue", " four, or five")]
    with OpenVINO(weights=weights).build(Model(str(llama_path))) as session:  # type: ignore[arg-type]
        for output, exact in zip(session.loglikelihood(pairs), llama.loglikelihood(pairs), strict=True):
            assert output.logprob == pytest.approx(exact.logprob, abs=3.0)
            assert output.logprob != exact.logprob


def test_bad_input_gets_one_line(llama_path: Path, tmp_path: Path) -> None:
    """A GGUF, a folder that is no model, a device that is not there, and properties that OpenVINO does not know."""
    with pytest.raises(ModelError, match="--engine llamacpp"):
        OpenVINO().build(Model("model.gguf"))
    with pytest.raises(ModelError) as found:
        OpenVINO().build(Model(str(tmp_path)))
    assert "\n" not in str(found.value)
    assert isinstance(found.value, (ModelNotFoundError, ModelError))
    with pytest.raises(ConfigError, match=r"Devices here: .*CPU"):
        OpenVINO(device="GPU.7").build(Model(str(llama_path)))
    with pytest.raises(ConfigError, match="cannot compile"):
        OpenVINO(ov_config={"NO_SUCH_PROPERTY": 1}).build(Model(str(llama_path)))
