"""Generation is the model's own, token by token, however sequences share the cache."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import RequestError
from evalkit.model import Model
from evalkit.requests import GenerationRequest
from evalkit.testing.models import registered_model
from evalkit.testing.tiny import TinyModel
from evalkit_llamacpp.engine import LlamaCpp
from evalkit_llamacpp.session import LlamaCppSession

SHOTS = "Question: how many apples?\nAnswer: seven.\n\n" * 3


def test_greedy_is_that_of_transformers(tiny: TinyModel, llama: LlamaCppSession) -> None:
    """The same tokens as `model.generate` of the same weights in float32."""
    torch = pytest.importorskip("torch", reason="compares with Transformers")
    transformers = pytest.importorskip("transformers", reason="compares with Transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny.hf, dtype=torch.float32)
    prompts = ["The sky is", "A", SHOTS + "Question: who?\nAnswer:", SHOTS + "Question: why?\nAnswer:"]
    requests = [GenerationRequest(prompt=prompt, max_new_tokens=24) for prompt in prompts]
    for request, output in zip(requests, llama.generate(requests), strict=True):
        ids = torch.tensor([llama.prompt_ids(request)])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False)
        assert list(output.token_ids) == expected[0, ids.shape[1] :].tolist()


@settings(max_examples=25, deadline=None, database=None)
@given(
    prefix=st.lists(st.integers(3, 5), max_size=50),
    tails=st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=20), min_size=1, max_size=7),
    limits=st.lists(st.integers(1, 24), min_size=7, max_size=7),
    samples=st.integers(1, 3),
    batch_size=st.integers(1, 5),
)
def test_any_mixture_of_prompts_generates_as_each_alone(
    llama: LlamaCppSession,
    llama_rows: LlamaCppSession,
    prefix: list[int],
    tails: list[list[int]],
    limits: list[int],
    samples: int,
    batch_size: int,
) -> None:
    """However prompts share prefixes, join, leave and are guessed ahead."""
    requests = [
        GenerationRequest(
            input_ids=[*prefix, *tail],
            max_new_tokens=limit,
            temperature=float(index % 2),
            seed=index,
            n=samples if index % 2 else 1,
        )
        for index, (tail, limit) in enumerate(zip(tails, limits, strict=False))
    ]
    outputs = llama.generate(requests, batch_size=batch_size)
    for request, output in zip(requests, outputs, strict=True):
        alone = llama_rows.generate([request], batch_size=1)[0]
        assert output.token_ids == alone.token_ids
        assert [o.token_ids for o in output.alternatives] == [o.token_ids for o in alone.alternatives]


def test_a_small_cache_admits_what_fits(tiny: TinyModel, llama: LlamaCppSession) -> None:
    """Where the cache holds few answers at a time, the others wait, and texts stay the same."""
    requests = [GenerationRequest(prompt=f"{SHOTS}{word}:", max_new_tokens=40) for word in ("What", "Who", "Why", "As")]
    expected = [output.token_ids for output in llama.generate(requests)]
    with LlamaCpp(n_threads=1, n_ctx=160, n_batch=32).build(Model(str(tiny.gguf))) as session:
        assert [output.token_ids for output in session.generate(requests)] == expected


def test_a_shared_prefix_is_read_once(llama: LlamaCppSession) -> None:
    """What prompts have in common goes through the model once, not once a request."""
    requests = [GenerationRequest(prompt=f"{SHOTS}{word}:", max_new_tokens=2) for word in ("What", "Who", "Why", "As")]
    before = llama.token_counts()
    llama.generate(requests)
    after = llama.token_counts()
    assert after.computed - before.computed <= after.unique - before.unique + 2 * len(requests)
    assert after.requested - before.requested > 3 * (after.computed - before.computed)


def test_logprobs_are_those_of_scoring(llama: LlamaCppSession) -> None:
    """Each generated token has the log-probability that scoring gives it."""
    request = GenerationRequest(prompt="The sky is", max_new_tokens=6, logprobs=3)
    output = llama.generate([request])[0]
    assert output.logprobs is not None
    for item in output.logprobs:
        assert item.token_id == item.top[0][0]
        assert item.logprob == pytest.approx(item.top[0][2])
    assert [item.token_id for item in output.logprobs] == list(output.token_ids)


def test_the_template_is_that_of_transformers(tiny: TinyModel, llama: LlamaCppSession) -> None:
    """Messages become the text that Transformers makes of them."""
    transformers = pytest.importorskip("transformers", reason="compares with Transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny.hf)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hello."},
    ]
    for prompt in (True, False):
        expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert llama.apply_chat_template(messages, add_generation_prompt=prompt) == expected


def test_the_real_template_is_that_of_transformers(smollm2_gguf: str) -> None:
    """The same for the real model's template."""
    transformers = pytest.importorskip("transformers", reason="compares with Transformers")
    checkpoint = registered_model("smollm2-135m", "hf")
    messages = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello."}]
    expected = transformers.AutoTokenizer.from_pretrained(checkpoint).apply_chat_template(messages, tokenize=False)
    with LlamaCpp().build(Model(smollm2_gguf)) as session:
        assert session.apply_chat_template(messages, add_generation_prompt=False) == expected
        output = session.generate([GenerationRequest(prompt="The capital of France is", max_new_tokens=2)])[0]
        assert output.text == " Paris."


def test_a_template_that_cannot_be_used_fails_its_request(tiny: TinyModel) -> None:
    """What a template raises is told in one line."""
    template = "{{ raise_exception('no tools here') }}"
    model = Model(str(tiny.gguf), chat_template=template)
    with LlamaCpp(n_threads=1).build(model) as session, pytest.raises(RequestError, match="no tools here"):
        session.apply_chat_template([{"role": "user", "content": "x"}])


def test_beams_are_refused_alone(llama: LlamaCppSession) -> None:
    """Beam search is not there: that request gets an error, the one beside it an answer."""
    outputs = llama.generate([GenerationRequest(prompt="A", max_new_tokens=2, num_beams=b) for b in (2, 1)])
    assert "num_beams" in (outputs[0].error or "")
    assert outputs[1].error is None
