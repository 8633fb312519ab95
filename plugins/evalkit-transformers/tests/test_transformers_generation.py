"""Generation is that of `model.generate`, token by token, and every request keeps its own values in a shared batch."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sessions import answer, prompt_ids

from evalkit.errors import ModelError
from evalkit.model import Model
from evalkit.requests import (
    GenerationRequest,
)
from evalkit.testing.reference import (
    LIMITS,
    PROMPTS,
    greedy_requests,
    new_tokens,
    same_answer,
)
from evalkit.testing.tiny import SMALL
from evalkit_transformers.engine import Transformers
from evalkit_transformers.session import TransformersSession

BART = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "max_position_embeddings": 128,
    "vocab_size": 384,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
Write = Callable[[transformers.PreTrainedConfig], Path]
Watch = Callable[[TransformersSession], AbstractContextManager[list[int]]]


def reference(session: TransformersSession, prompt: Sequence[int], **options: Any) -> list[tuple[int, ...]]:
    """What `model.generate` makes of one prompt alone."""
    return new_tokens(session.model, prompt, session.tokenizer.eos_token_ids, **options)


@pytest.fixture(scope="module")
def stopping(llama_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransformersSession]:
    """The Llama, which now ends at the first new token that comes fourth or later after "The sky is"."""
    folder = tmp_path_factory.mktemp("stopping") / "hf"
    shutil.copytree(llama_path, folder)
    engine = Transformers(dtype="float32", device="cpu")
    with TransformersSession(engine, Model(str(folder))) as session:
        ids = session.generate([GenerationRequest(prompt=PROMPTS[0], max_new_tokens=12)])[0].token_ids
    end = next(token for index, token in enumerate(ids) if index >= 3 and token not in ids[:index])
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    (folder / "generation_config.json").write_text(json.dumps({**config, "eos_token_id": [2, end]}), encoding="utf-8")
    with TransformersSession(engine, Model(str(folder))) as session:
        yield session


# ── greedy ──────────────────────────────────────────────────────────────────────────────────────────────
def test_greedy_is_that_of_transformers(tiny: TransformersSession) -> None:
    """A batch of prompts of mixed lengths gives, token by token, what `model.generate` gives for each alone."""
    for prompt, limit, output in zip(PROMPTS, LIMITS, tiny.generate(greedy_requests()), strict=True):
        assert output.token_ids == reference(tiny, prompt_ids(tiny, prompt), max_new_tokens=limit)[0]
        assert output.text == tiny.hf_tokenizer.decode(output.token_ids, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_batches_change_no_text(tiny: TransformersSession, batch_size: int) -> None:
    """Any batch size and any order give the same tokens."""
    expected = [answer(tiny, request) for request in greedy_requests()]
    outputs = tiny.generate(greedy_requests()[::-1], batch_size=batch_size)[::-1]
    assert all(same_answer(output, other) for output, other in zip(outputs, expected, strict=True))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=128, vocab_size=384), id="gpt2"
        ),
        pytest.param(transformers.BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=384), id="bloom"),
        pytest.param(
            transformers.Gemma2Config(**SMALL, head_dim=16, sliding_window=8, final_logit_softcapping=1.5), id="gemma2"
        ),
        pytest.param(
            transformers.MambaConfig(hidden_size=64, num_hidden_layers=2, state_size=8, vocab_size=384), id="mamba"
        ),
        pytest.param(transformers.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]), id="lfm2"),
        pytest.param(
            transformers.FalconH1Config(
                **SMALL,
                mamba_n_heads=8,
                mamba_d_head=16,
                mamba_d_ssm=128,
                mamba_d_state=8,
                mamba_n_groups=1,
                mamba_chunk_size=16,
                head_dim=16,
            ),
            id="falcon-h1",
        ),
        pytest.param(transformers.BartConfig(**BART), id="bart"),
    ],
)
def test_greedy_holds_for_other_kinds_of_models(random_checkpoint: Write, config: Any) -> None:
    """Left padding and rows that leave early change no token with learned positions, windows or recurrent states."""
    engine = Transformers(dtype="float32", device="cpu")
    with TransformersSession(engine, Model(str(random_checkpoint(config)))) as session:
        for prompt, limit, output in zip(PROMPTS, LIMITS, session.generate(greedy_requests()), strict=True):
            assert output.token_ids == reference(session, prompt_ids(session, prompt), max_new_tokens=limit)[0]


def test_a_model_with_a_cache_of_its_own_is_refused(random_checkpoint: Write) -> None:
    """Where the state cannot be kept row by row, generation says so instead of giving other text; scores work."""
    config = transformers.MiniMaxConfig(
        **SMALL, num_local_experts=2, head_dim=16, block_size=8, layer_types=["linear_attention", "full_attention"]
    )
    engine = Transformers(dtype="float32", device="cpu")
    with (
        TransformersSession(engine, Model(str(random_checkpoint(config)))) as session,
        pytest.raises(ModelError, match="MiniMaxForCausalLM"),
    ):
        session.generate(greedy_requests())


def test_the_end_token_ends_the_text(stopping: TransformersSession) -> None:
    """A request ends at any of the checkpoint's end tokens; the others of its batch go on."""
    outputs = stopping.generate(greedy_requests())
    for prompt, limit, output in zip(PROMPTS, LIMITS, outputs, strict=True):
        ids = reference(stopping, prompt_ids(stopping, prompt), max_new_tokens=limit, pad_token_id=0)[0]
        assert output.token_ids == ids
        assert output.finish_reason == ("stop" if ids[-1] in stopping.tokenizer.eos_token_ids else "length")
    assert outputs[0].finish_reason == "stop"
    assert 4 <= len(outputs[0].token_ids) < LIMITS[0]


@pytest.mark.parametrize("minimum", [8, 12])
def test_min_new_tokens_forbids_the_end_token(stopping: TransformersSession, minimum: int) -> None:
    """No end token is chosen before min_new_tokens, as in `model.generate`."""
    request = GenerationRequest(prompt=PROMPTS[0], max_new_tokens=16, min_new_tokens=minimum)
    options = {"max_new_tokens": 16, "min_new_tokens": minimum, "pad_token_id": 0}
    ids = answer(stopping, request).token_ids
    assert ids == reference(stopping, prompt_ids(stopping, PROMPTS[0]), **options)[0]
    assert len(ids) >= minimum


def test_min_new_tokens_holds_back_stop_strings(llama: TransformersSession) -> None:
    """A stop string does not end a request before it has min_new_tokens."""
    free = answer(llama, GenerationRequest(prompt=PROMPTS[0], max_new_tokens=12))
    stop = llama.tokenizer.decode(free.token_ids[:1])
    held = answer(llama, GenerationRequest(prompt=PROMPTS[0], max_new_tokens=12, min_new_tokens=6, stop=(stop,)))
    assert len(held.token_ids) == 6


@pytest.mark.parametrize(
    "asked",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 1},
        {"forced_bos_token_id": 0},
        {"forced_bos_token_id": 1},
        {"bad_words_ids": [[35], [44, 45]]},
        {"suppress_tokens": [35]},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["llama_path", "t5_path"])
def test_what_the_checkpoint_asks_of_every_text_holds(
    name: str, asked: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Penalties and forbidden tokens of generation_config.json count, as they do in `model.generate`."""
    folder = tmp_path / "hf"
    shutil.copytree(request.getfixturevalue(name), folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **asked}), encoding="utf-8")
    with TransformersSession(Transformers(dtype="float32", device="cpu"), Model(str(folder))) as session:
        for prompt, limit, output in zip(PROMPTS, LIMITS, session.generate(greedy_requests()), strict=True):
            assert output.token_ids == reference(session, prompt_ids(session, prompt), max_new_tokens=limit)[0]


# ── stop strings ────────────────────────────────────────────────────────────────────────────────────────
def test_a_stop_string_may_span_tokens(tiny: TransformersSession) -> None:
    """A stop string that begins in one token and ends in the next ends the request at that token, cut out."""
    tried = 0
    for prompt in PROMPTS:
        base = GenerationRequest(prompt=prompt, max_new_tokens=24)
        free = answer(tiny, base)
        texts = [tiny.tokenizer.decode(free.token_ids[:count]) for count in range(25)]
        for count in range(2, 25):
            before, after = texts[count - 1], texts[count]
            stop = before[-1:] + after[len(before) : len(before) + 1]
            # Bytes of an incomplete character are no text to stop at; an earlier match would stop earlier.
            if "\ufffd" in stop or len(stop) < 2 or free.text.index(stop) != len(before) - 1:
                continue
            tried += 1
            output = answer(tiny, replace(base, stop=("never", stop)))
            assert (output.text, output.finish_reason) == (before[:-1], "stop")
            assert output.token_ids == free.token_ids[:count]
    assert tried >= 5


def test_the_first_stop_string_counts(llama: TransformersSession) -> None:
    """Of several stop strings, text ends before the one that comes first."""
    free = answer(llama, GenerationRequest(prompt=PROMPTS[0], max_new_tokens=12)).text
    early, late = free[2:4], free[-3:]
    for stops in ((early, late), (late, early)):
        output = answer(llama, GenerationRequest(prompt=PROMPTS[0], max_new_tokens=12, stop=stops))
        assert output.text == free[: free.index(early)]


# ── values of each request ──────────────────────────────────────────────────────────────────────────────
def test_each_request_keeps_its_own_values(stopping: TransformersSession) -> None:
    """Greedy, sampled, stopped, held back, several samples and beams in one batch: each as if asked alone."""
    prompt = PROMPTS[0]
    free = answer(stopping, GenerationRequest(prompt=PROMPTS[2], max_new_tokens=12)).text
    requests = [
        GenerationRequest(prompt=prompt, max_new_tokens=12),
        GenerationRequest(prompt=prompt, max_new_tokens=9, temperature=0.9, top_p=0.95, seed=7),
        GenerationRequest(prompt=prompt, max_new_tokens=9, temperature=1.5, top_k=20, seed=8),
        GenerationRequest(prompt=prompt, max_new_tokens=9, temperature=1.0, min_p=0.05, seed=9, n=3),
        GenerationRequest(prompt=PROMPTS[2], max_new_tokens=12, stop=(free[3:5],)),
        GenerationRequest(prompt=prompt, max_new_tokens=12, min_new_tokens=10),
        GenerationRequest(prompt=prompt, max_new_tokens=2),
        GenerationRequest(prompt=PROMPTS[2], max_new_tokens=6, num_beams=3),
    ]
    outputs = stopping.generate(requests)
    assert all(same_answer(o, answer(stopping, r)) for r, o in zip(requests, outputs, strict=True))
    # The values matter: no two of these requests have the same answer.
    assert len({(output.text, output.token_ids) for output in outputs}) == len(outputs)


def test_a_seed_gives_the_same_text(tiny: TransformersSession) -> None:
    """Equal seeds give equal text, alone and in any batch; other seeds give other text."""
    requests = [
        GenerationRequest(prompt=prompt, max_new_tokens=12, temperature=1.3, seed=seed)
        for prompt in PROMPTS
        for seed in (0, 1)
    ]
    together = tiny.generate(requests)
    alone = [answer(tiny, request) for request in requests]
    assert all(same_answer(output, other) for output, other in zip(together, alone, strict=True))
    assert len({output.token_ids for output in together}) == len(requests)


def test_no_seed_means_another_text_each_time(llama: TransformersSession) -> None:
    """Sampling without a seed is not repeated, whatever torch's own seed is."""
    request = GenerationRequest(prompt=PROMPTS[0], max_new_tokens=16, temperature=2.0)
    texts = set()
    for _ in range(3):
        torch.manual_seed(0)
        texts.add(answer(llama, request).text)
    assert len(texts) == 3


def test_samples_become_alternatives(llama: TransformersSession) -> None:
    """`n` samples are the output and its alternatives: different texts, the same for the same seed."""
    request = GenerationRequest(prompt=PROMPTS[0], max_new_tokens=8, temperature=1.5, seed=3, n=4)
    output, again = answer(llama, request), answer(llama, request)
    texts = [output.text, *(other.text for other in output.alternatives)]
    assert len(set(texts)) == 4
    assert same_answer(output, again)
    assert all(other.usage and not other.alternatives for other in output.alternatives)


def test_one_candidate_is_greedy(tiny: TransformersSession) -> None:
    """top_k 1, a tiny top_p and min_p 1 each leave only the most likely token."""
    expected = [answer(tiny, request).token_ids for request in greedy_requests()]
    for limit in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        sampled = [replace(request, temperature=1.7, seed=5, **limit) for request in greedy_requests()]
        assert [output.token_ids for output in tiny.generate(sampled)] == expected


# ── beams ───────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("beams", [2, 4])
def test_beams_are_those_of_transformers(tiny: TransformersSession, beams: int) -> None:
    """num_beams gives what `model.generate` gives, the n best as alternatives."""
    requests = [GenerationRequest(prompt=p, max_new_tokens=10, num_beams=beams, n=2) for p in PROMPTS[:3]]
    for request, output in zip(requests, tiny.generate(requests), strict=True):
        assert request.prompt is not None
        options = {"max_new_tokens": 10, "num_beams": beams, "num_return_sequences": 2}
        best, second = reference(tiny, prompt_ids(tiny, request.prompt), **options)
        assert output.token_ids == best
        assert [other.token_ids for other in output.alternatives] == [second]
        assert output.text == tiny.hf_tokenizer.decode(best, skip_special_tokens=True)


def test_beams_end_at_the_end_token_and_at_stop_strings(stopping: TransformersSession) -> None:
    """Beam search keeps end tokens, min_new_tokens and stop strings, and says why it ended."""
    base = GenerationRequest(prompt=PROMPTS[0], max_new_tokens=12, num_beams=2)
    free = answer(stopping, replace(base, min_new_tokens=12))
    assert (free.finish_reason, len(free.token_ids)) == ("length", 12)
    ended = answer(stopping, base)
    assert ended.token_ids[-1] in stopping.tokenizer.eos_token_ids
    assert ended.finish_reason == "stop"
    stop = free.text[4:6]
    stopped = answer(stopping, replace(base, min_new_tokens=1, stop=(stop,)))
    options = {"num_beams": 2, "max_new_tokens": 12, "min_new_tokens": 1, "pad_token_id": 0}
    stops = {"stop_strings": [stop], "tokenizer": stopping.hf_tokenizer}
    found = reference(stopping, prompt_ids(stopping, PROMPTS[0]), **options, **stops)[0]
    assert stopped.token_ids == found
    assert len(found) < 12
    assert (stopped.finish_reason, stop in stopped.text) == ("stop", False)


# ── log-probabilities, usage, timing ────────────────────────────────────────────────────────────────────
def test_logprobs_are_the_models_own(stopping: TransformersSession) -> None:
    """Each token's log-probability, and those of the most likely ones, are before temperature and limits."""
    sampled = {"temperature": 1.4, "top_k": 30, "seed": 11}
    requests = [
        GenerationRequest(prompt=PROMPTS[0], max_new_tokens=6, min_new_tokens=6, logprobs=4),
        GenerationRequest(prompt=PROMPTS[2], max_new_tokens=9, logprobs=3, **sampled),
        GenerationRequest(prompt=PROMPTS[1], max_new_tokens=5, logprobs=0),
        GenerationRequest(prompt=PROMPTS[1], max_new_tokens=5),
    ]
    outputs = stopping.generate(requests)
    assert outputs[3].logprobs is None
    for request, output in zip(requests[:3], outputs, strict=False):
        assert request.prompt is not None
        assert output.logprobs is not None
        assert [entry.token_id for entry in output.logprobs] == list(output.token_ids)
        ids = [*prompt_ids(stopping, request.prompt), *output.token_ids]
        with torch.inference_mode():
            expected = stopping.model(torch.tensor([ids[:-1]])).logits[0, -len(output.token_ids) :].log_softmax(-1)
        for entry, row in zip(output.logprobs, expected, strict=True):
            assert entry.logprob == pytest.approx(float(row[entry.token_id]), abs=1e-4)
            assert entry.token == stopping.tokenizer.decode([entry.token_id], skip_special=False)
            best = row.topk(request.logprobs or 0)
            assert [token for token, _, _ in entry.top] == best.indices.tolist()
            assert [value for _, _, value in entry.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_usage_and_timing_are_given(tiny: TransformersSession) -> None:
    """Every output counts its tokens, and knows when its first and its last came."""
    requests = [*greedy_requests(), GenerationRequest(prompt=PROMPTS[0], max_new_tokens=4, num_beams=2)]
    for request, output in zip(requests, tiny.generate(requests), strict=True):
        assert request.prompt is not None
        assert output.usage is not None
        assert output.timing is not None
        assert output.usage.prompt_tokens == len(prompt_ids(tiny, request.prompt))
        assert output.usage.completion_tokens == len(output.token_ids)
        assert 0 < output.timing.first_token <= output.timing.total


def test_short_answers_come_first(llama: TransformersSession) -> None:
    """A request's time ends with its own last token, not with its batch."""
    short, long = llama.generate([GenerationRequest(prompt=PROMPTS[0], max_new_tokens=n) for n in (1, 24)])
    assert short.timing is not None
    assert long.timing is not None
    assert short.timing.total < long.timing.total


def test_computed_tokens_are_those_that_went_through_the_model(tiny: TransformersSession, watch_tokens: Watch) -> None:
    """Prompts with their padding, then one token a row and step: all that the model reads is counted."""
    before = tiny.token_counts()
    with watch_tokens(tiny) as seen:
        outputs = tiny.generate(greedy_requests())
    after = tiny.token_counts()
    assert after.computed - before.computed == sum(seen)
    prompts = sum(len(prompt_ids(tiny, prompt)) for prompt in PROMPTS)
    assert after.requested - before.requested == prompts + sum(len(output.token_ids) - 1 for output in outputs)


def test_outputs_are_plain_data(llama: TransformersSession) -> None:
    """An output can be written to a journal: no tensors in it."""
    request = GenerationRequest(prompt=PROMPTS[0], max_new_tokens=3, temperature=1.0, seed=1, n=2, logprobs=2)
    output = answer(llama, request)
    json.dumps(dataclasses.asdict(output))


def test_sequences_that_end_one_by_one_make_few_shapes(
    llama: TransformersSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU keeps code for every size of a pass: from nine tokens on it is a multiple of 4, which changes no text."""
    prompts = [f"{word} {end}" for word in ("What", "Where", "Who", "When") for end in ("is it?", "was", "then:", "in")]
    requests = [GenerationRequest(prompt=prompt, max_new_tokens=n) for n, prompt in enumerate(prompts, start=2)]
    expected = [answer(llama, request).token_ids for request in requests]
    sizes, forward = list[int](), llama.forward

    def watched(**inputs: Any) -> Any:
        sizes.append(inputs["input_ids"].numel())
        return forward(**inputs)

    monkeypatch.setattr(llama, "forward", watched)
    monkeypatch.setattr(llama, "draft_tokens", 0)
    assert [output.token_ids for output in llama.generate(requests)] == expected
    prompt_tokens, *steps = sizes
    assert prompt_tokens > 16
    assert {12, 16} < set(steps) <= {*range(9), 12, 16}


# ── shared prefixes ─────────────────────────────────────────────────────────────────────────────────────
# A prefix that all of several requests begin with.
SHOTS = "Question: how many apples?\nAnswer: seven.\n\n" * 3


def test_a_shared_prefix_changes_no_text(tiny: TransformersSession) -> None:
    """Requests behind one few-shot prefix, one of them the prefix itself, give what each gives alone."""
    texts = [SHOTS, *(f"{SHOTS}Question: {word}?\nAnswer:" for word in ("what", "where", "who", "why and when"))]
    requests = [GenerationRequest(prompt=text, max_new_tokens=limit) for text, limit in zip(texts, LIMITS, strict=True)]
    for request, output in zip(requests, tiny.generate(requests), strict=True):
        assert request.prompt is not None
        options = {"max_new_tokens": request.max_new_tokens}
        assert output.token_ids == reference(tiny, prompt_ids(tiny, request.prompt), **options)[0]


@pytest.mark.parametrize("name", ["llama", "mistral"])
@settings(max_examples=25, deadline=None, database=None)
@given(
    prefixes=st.lists(st.lists(st.integers(3, 5), max_size=50), min_size=1, max_size=2),
    tails=st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=20), min_size=1, max_size=7),
    limits=st.lists(st.integers(1, 24), min_size=7, max_size=7),
    samples=st.integers(1, 3),
    batch_size=st.integers(1, 5),
    batch_tokens=st.integers(1, 200),
)
def test_any_mixture_of_prompts_generates_as_its_rows(
    name: str,
    request: pytest.FixtureRequest,
    prefixes: list[list[int]],
    tails: list[list[int]],
    limits: list[int],
    samples: int,
    batch_size: int,
    batch_tokens: int,
) -> None:
    """However prompts share prefixes, join and leave, each gives the text of a padded row; windows included."""
    session: TransformersSession = request.getfixturevalue(name)
    requests = [
        GenerationRequest(
            input_ids=[*prefixes[index % len(prefixes)], *tail],
            max_new_tokens=limit,
            temperature=float(index % 2),
            seed=index,
            n=samples if index % 2 else 1,
        )
        for index, (tail, limit) in enumerate(zip(tails, limits, strict=False))
    ]
    before = session.batch_tokens
    try:
        session.shares_prefixes = False
        expected = session.generate(requests)
        session.shares_prefixes, session.batch_tokens = True, batch_tokens
        outputs = session.generate(requests, batch_size=batch_size)
    finally:
        session.shares_prefixes, session.batch_tokens = True, before
    assert all(same_answer(output, other) for output, other in zip(outputs, expected, strict=True))


def test_a_shared_prefix_is_read_once(llama: TransformersSession, llama_rows: TransformersSession) -> None:
    """What prompts have in common goes through the model once, not once a request."""
    requests = [GenerationRequest(prompt=f"{SHOTS}{word}:", max_new_tokens=2) for word in ("What", "Who", "Why", "As")]
    costs = []
    for session in (llama, llama_rows):
        before = session.token_counts()
        session.generate(requests)
        after = session.token_counts()
        costs.append((after.computed - before.computed, after.unique - before.unique))
    (shared, unique), (padded, _) = costs
    assert shared <= unique + 2 * len(requests)
    assert padded > 3 * shared
