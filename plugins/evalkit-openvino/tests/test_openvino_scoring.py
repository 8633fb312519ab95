"""Scores and texts are those of Transformers in float32, whatever shares a pass or a prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import ConfigError, ModelError, ModelNotFoundError
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.scoring import Span
from evalkit_openvino.engine import OpenVINO
from evalkit_openvino.session import OpenVINOSession

TEXT = "The river was low that year.\nNobody remembered a summer so dry, nor a harvest so early. "
SHOTS = "Question: how many apples?\nAnswer: seven.\n\n" * 3
NAMES = ["llama", "mistral"]


@pytest.fixture(scope="module")
def models(llama_path: Path, mistral_path: Path) -> dict[str, Any]:
    """The same checkpoints in Transformers."""
    load = transformers.AutoModelForCausalLM.from_pretrained
    return {name: load(path, dtype=torch.float32) for name, path in zip(NAMES, (llama_path, mistral_path), strict=True)}


def reference(model: Any, ids: list[int]) -> np.ndarray:
    """Log-probabilities [length - 1] of a text's tokens."""
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NAMES)
def test_logprobs_are_those_of_transformers(name: str, models: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Token by token, within 1e-3, windows included."""
    session: OpenVINOSession = request.getfixturevalue(name)
    contexts = ("The sky is", "", TEXT, TEXT * 2, "Two and two make")
    requests = [LoglikelihoodRequest(a, b) for a in contexts for b in (" blue", " four, or five", "x", TEXT)]
    pairs = session.encode(requests)
    for pair, output in zip(pairs, session.loglikelihood(requests), strict=True):
        expected = reference(models[name], [*pair.context, *pair.continuation])[-len(pair.continuation) :]
        assert output.token_logprobs is not None
        assert np.abs(np.array(output.token_logprobs) - expected).max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, deadline=None)
@given(
    spans=st.lists(
        st.tuples(st.lists(st.integers(3, 5), min_size=2, max_size=40), st.integers(1, 39)).map(
            lambda pair: Span(tuple(pair[0]), min(pair[1], len(pair[0]) - 1))
        ),
        min_size=1,
        max_size=8,
    ),
    budget=st.integers(1, 60),
)
def test_scores_do_not_depend_on_what_is_shared(
    name: str, models: dict[str, Any], request: pytest.FixtureRequest, spans: list[Span], budget: int
) -> None:
    """The forest, in passes of any size, scores as each text alone."""
    session: OpenVINOSession = request.getfixturevalue(name)
    before, session.batch_tokens = session.batch_tokens, budget
    try:
        found = session.score_batch(spans)
    finally:
        session.batch_tokens = before
    for span, scored in zip(spans, found, strict=True):
        expected = reference(models[name], list(span.ids))[span.start - 1 :]
        assert scored.logprobs == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_is_that_of_transformers(name: str, models: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """The same tokens as `model.generate`, behind a shared prefix and without, guessing ahead."""
    session: OpenVINOSession = request.getfixturevalue(name)
    prompts = ["The sky is", "A", *(f"{SHOTS}Question: {word}?\nAnswer:" for word in ("who", "why", "what"))]
    requests = [GenerationRequest(prompt=prompt, max_new_tokens=24) for prompt in prompts]
    requests += [GenerationRequest(input_ids=[token] * 20, max_new_tokens=50) for token in (18, 40, 53)]
    for asked, output in zip(requests, session.generate(requests, batch_size=3), strict=True):
        ids = torch.tensor([session.prompt_ids(asked)])
        expected = models[name].generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=asked.max_new_tokens, do_sample=False
        )
        assert list(output.token_ids) == expected[0, ids.shape[1] :].tolist()


def test_each_token_is_computed_once(llama: OpenVINOSession) -> None:
    """Shared contexts and shared beginnings of continuations cost nothing further."""
    ends = [f" {word} {end}" for word in ("red", "blue") for end in ("sky", "sea", "sun")]
    before = llama.token_counts()
    llama.loglikelihood([LoglikelihoodRequest(TEXT, end) for end in ends])
    after = llama.token_counts()
    assert after.computed - before.computed == after.unique - before.unique


def test_rolling_windows_cover_long_texts(llama: OpenVINOSession, models: dict[str, Any]) -> None:
    """A text of several contexts is scored window by window."""
    output = llama.loglikelihood_rolling([RollingLoglikelihoodRequest(TEXT * 15)])[0]
    assert output.error is None
    assert output.token_count > 3 * llama.max_length


def test_an_exported_folder_is_taken_as_it_is(llama: OpenVINOSession, llama_path: Path, tmp_path: Path) -> None:
    """A folder with an openvino_model.xml needs no export; its tokenizer may be elsewhere."""
    import shutil

    from evalkit_openvino.export import exported

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
