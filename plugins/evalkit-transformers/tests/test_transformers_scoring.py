"""Scores are those of one full float32 pass a request, however requests are batched, cut and selected."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evalkit.errors import OutOfMemoryError
from evalkit.model import Model
from evalkit.requests import GenerationRequest, LoglikelihoodOutput, LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.scoring import Span
from evalkit_transformers.engine import Transformers
from evalkit_transformers.head import blockwise_scores, dense_scores
from evalkit_transformers.session import TransformersSession

CONTEXTS = (
    "The sky is",
    "",
    "A",
    "Question: how many apples are on the table?\nAnswer: ",
    "There were three apples on the table and she ate one of them, then another; the king, who had seen it all,",
)
CONTINUATIONS = (" blue", " a hill, and behind it the sea", "7", " Paris.\n")
PAIRS = [LoglikelihoodRequest(context, text) for context in CONTEXTS for text in CONTINUATIONS]
CLOSE = {"rel": 1e-4, "abs": 1e-4}
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 128,
    "vocab_size": 384,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CAPPED = transformers.Gemma2Config(**SMALL, head_dim=16, sliding_window=8, final_logit_softcapping=1.5)

Score = tuple[list[float], bool]
Write = Callable[[transformers.PreTrainedConfig], Path]
Watch = Callable[[TransformersSession], AbstractContextManager[list[int]]]


# ── the naive reference ─────────────────────────────────────────────────────────────────────────────────
def naive(model: Any, context: Sequence[int], continuation: Sequence[int]) -> Score:
    """Log-probability of each token and whether all are greedy: one row, all logits, float32."""
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            fed = [model.config.decoder_start_token_id, *continuation[:-1]]
            logits = model(input_ids=torch.tensor([context]), decoder_input_ids=torch.tensor([fed])).logits[0]
        else:
            logits = model(torch.tensor([[*context, *continuation[:-1]]])).logits[0, len(context) - 1 :]
    logprobs = logits.float().log_softmax(-1)
    targets = torch.tensor(continuation)
    return logprobs.gather(1, targets[:, None])[:, 0].tolist(), bool((logprobs.argmax(-1) == targets).all())


def ids_of(path: Path, pair: LoglikelihoodRequest) -> tuple[list[int], list[int]]:
    """Token ids of a pair, as lm-evaluation-harness encodes it."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    kept = pair.context.rstrip()
    continuation = pair.context[len(kept) :] + pair.continuation
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if tokenizer.bos_token_id is None or not kept:
        # An encoder-decoder reads both apart, and no specials stand in its continuation.
        context = tokenizer(kept)["input_ids"] if kept else [prefix]
        return context, tokenizer(continuation, add_special_tokens=False)["input_ids"]
    context = tokenizer(kept)["input_ids"]
    return context, tokenizer(kept + continuation)["input_ids"][len(context) :]


def reference_model(path: Path) -> Any:
    """The checkpoint as Transformers loads it, in float32."""
    config = transformers.AutoConfig.from_pretrained(path)
    auto = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    return auto.from_pretrained(path, dtype=torch.float32).eval()


def open_session(path: Path, **options: Any) -> TransformersSession:
    """A float32 session on the CPU."""
    model = Model(str(path), max_length=options.pop("max_length", None))
    return TransformersSession(Transformers(dtype="float32", device="cpu", **options), model)


def check(output: LoglikelihoodOutput, expected: Score) -> None:
    """Compare an output, token for token."""
    logprobs, is_greedy = expected
    assert output.error is None
    assert output.token_logprobs == pytest.approx(logprobs, **CLOSE)
    assert output.logprob == pytest.approx(sum(logprobs), **CLOSE)
    assert (output.token_count, output.is_greedy) == (len(logprobs), is_greedy)


# ── exactness ───────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["llama", "llama_rows", "mistral", "t5"])
def test_scores_equal_a_naive_pass_a_request(name: str, request: pytest.FixtureRequest) -> None:
    """Each token's log-probability is that of a full pass over its request alone."""
    path = request.getfixturevalue(f"{name.removesuffix('_rows')}_path")
    session = request.getfixturevalue(name)
    model = reference_model(path)
    for pair, output in zip(PAIRS, session.loglikelihood(PAIRS), strict=True):
        check(output, naive(model, *ids_of(path, pair)))


def test_the_window_slides_within_long_contexts(mistral: TransformersSession, mistral_path: Path) -> None:
    """Contexts longer than the window are scored as the model sees them: each layer looks back one window."""
    model = reference_model(mistral_path)
    context = "The earth is a planet and the moon goes around it. " * 3
    pairs = [LoglikelihoodRequest(start + context, " So it is.") for start in ("", "Look! ", "A. B. C. D. ")]
    expected = [naive(model, *ids_of(mistral_path, pair)) for pair in pairs]
    assert len(ids_of(mistral_path, pairs[0])[0]) > 3 * model.config.sliding_window
    for output, score in zip(mistral.loglikelihood(pairs), expected, strict=True):
        check(output, score)
    # The reference does depend on the window: without it, the same weights give other scores.
    model.config.sliding_window = None
    wide = transformers.MistralForCausalLM(model.config).eval()
    wide.load_state_dict(model.state_dict())
    assert naive(wide, *ids_of(mistral_path, pairs[0]))[0] != pytest.approx(expected[0][0], abs=0.1)


def test_an_encoder_reads_the_specials_of_its_tokenizer(t5: TransformersSession) -> None:
    """T5's encoder input ends with `</s>`; the decoder's continuation has no specials and follows the start token."""
    pair = t5.encode([LoglikelihoodRequest("The sky is", " blue")])[0]
    eos = t5.hf_tokenizer.eos_token_id
    assert pair.context[-1] == eos
    assert eos not in pair.continuation
    assert t5.decoder_start == 0


def test_an_empty_context_is_the_prefix_token(tiny: TransformersSession) -> None:
    """After an empty context a text is scored as after the prefix token (BOS, else EOS)."""
    text = "The king of Spain"
    ids = tuple(tiny.tokenizer.encode_batch([text], special=False)[0])
    given_ids = LoglikelihoodRequest("", text, (tiny.tokenizer.prefix_token_id,), ids)
    empty, given_prefix = tiny.loglikelihood([LoglikelihoodRequest("", text), given_ids])
    assert empty.token_count == len(ids)
    assert empty.logprob == pytest.approx(given_prefix.logprob, abs=1e-5)


def test_greedy_continuations_are_found(tiny: TransformersSession) -> None:
    """The model's own greedy continuation is greedy, and stops being so with any other last token."""
    for context in ("The sky is", "A", "Two and two make"):
        ids = tuple(tiny.tokenizer.encode_batch([context])[0])
        model = tiny.model
        with torch.inference_mode():
            sequence = model.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=5,
                do_sample=False,
            )[0].tolist()
        best = tuple(sequence[1:] if tiny.is_encoder_decoder else sequence[len(ids) :])
        other = (*best[:-1], (best[-1] + 1) % tiny.tokenizer.vocab_size)
        outputs = tiny.loglikelihood([LoglikelihoodRequest("", "", ids, end) for end in (best, other)])
        assert [output.is_greedy for output in outputs] == [True, False]


def test_long_requests_keep_their_last_tokens(llama_path: Path) -> None:
    """Of a pair longer than the context the last tokens are read, as lm-evaluation-harness does, and a note says so."""
    model, limit = reference_model(llama_path), 24
    pairs = [LoglikelihoodRequest("There were three apples on the table. " * n, " She ate one.") for n in (1, 2, 5)]
    with open_session(llama_path, max_length=limit) as session:
        outputs = session.loglikelihood(pairs)
    for pair, output in zip(pairs, outputs, strict=True):
        context, continuation = ids_of(llama_path, pair)
        fed = (context + continuation)[-(limit + 1) :]
        check(output, naive(model, fed[: -len(continuation)], continuation))
        too_long = len(context) + len(continuation) - 1 > limit
        assert any("truncated" in note for note in output.notes) == too_long
    assert outputs[-1].notes


def test_a_continuation_may_fill_the_whole_context(llama_path: Path) -> None:
    """As many scored tokens as the context holds are scored after the one before them; one more is an error."""
    limit, ids = 16, tuple(range(40, 60))
    with open_session(llama_path, max_length=limit) as session:
        fits, does_not, after = session.loglikelihood(
            [
                LoglikelihoodRequest("", "", (7, 8, 9), ids[:limit]),
                LoglikelihoodRequest("", "", (7, 8, 9), ids[: limit + 1]),
                LoglikelihoodRequest("", "", (7, 8, 9), ids[:2]),
            ]
        )
    check(fits, naive(reference_model(llama_path), (9,), ids[:limit]))
    assert does_not.error is not None
    assert after.error is None


def test_an_encoder_keeps_the_end_of_a_long_context(t5_path: Path) -> None:
    """An encoder reads the last tokens of a context that it cannot hold."""
    model, limit = reference_model(t5_path), 16
    pair = LoglikelihoodRequest("There were three apples on the table. " * 3, " She ate one.")
    with open_session(t5_path, max_length=limit) as session:
        output = session.loglikelihood([pair])[0]
    context, continuation = ids_of(t5_path, pair)
    check(output, naive(model, context[-limit:], continuation))
    assert any("truncated" in note for note in output.notes)


@pytest.mark.parametrize("words", [0, 1, 3, 40])
def test_rolling_windows_score_every_token_once(llama_path: Path, words: int) -> None:
    """A text longer than the context is scored in windows that each see as much before them as fits."""
    limit, text = 20, " apple" * words + "." * bool(words)
    model, prefix = reference_model(llama_path), 1
    with open_session(llama_path, max_length=limit) as session:
        tokens = session.tokenizer.encode_batch([text])[0]
        output = session.loglikelihood_rolling([RollingLoglikelihoodRequest(text)])[0]
    expected, done = [], min(limit, len(tokens))
    if tokens:
        expected += naive(model, [prefix], tokens[:done])[0]
    while done < len(tokens):
        end = min(done + limit, len(tokens))
        window = tokens[max(0, end - limit - 1) : end]
        expected += naive(model, window[: -(end - done)], window[-(end - done) :])[0]
        done = end
    assert output.token_count == len(tokens)
    assert output.logprob == pytest.approx(sum(expected), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
def test_blocks_change_no_log_probability(dtype: torch.dtype, with_bias: bool) -> None:
    """Summed over blocks of rows and of the vocabulary, or from whole logits, scores are those of log_softmax."""
    chance = torch.Generator().manual_seed(0)
    hidden = torch.randn(600, 16, generator=chance).to(dtype)
    weight = torch.randn(5000, 16, generator=chance).to(dtype)
    bias = torch.randn(5000, generator=chance).to(dtype) if with_bias else None
    # A row may have several targets.
    rows = torch.arange(900) % 600
    targets = torch.randint(5000, (900,), generator=chance)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    targets[:300] = logits[:300].argmax(-1)
    expected = logits.float().log_softmax(-1)[rows, targets]
    # One step of bfloat16 at logits of 16.
    tolerance = 1e-4 if dtype == torch.float32 else 0.13
    for logprobs, greedy, _ in (
        blockwise_scores(hidden, weight, bias, rows, targets),
        dense_scores(logits.split(256), rows, targets),
    ):
        assert logprobs.tolist() == pytest.approx(expected.tolist(), abs=tolerance)
        assert greedy[:300].all()
        assert greedy.tolist() == (logits.argmax(-1)[rows] == targets).tolist()
    for scores in (
        blockwise_scores(hidden, weight, bias, rows, targets, 1),
        dense_scores(logits.split(256), rows, targets, 3),
    ):
        assert scores.top is not None
        likely = torch.from_numpy(scores.top.ids[:, 0])
        assert logits[rows, likely].tolist() == logits.amax(-1)[rows].tolist()
        assert (scores.top.logprobs[scores.greedy, 0] == scores.logprobs[scores.greedy]).all()
        assert (scores.top.logprobs[~scores.greedy, 0] >= scores.logprobs[~scores.greedy]).all()


def test_of_equal_logits_the_first_token_is_greedy() -> None:
    """Ties are decided as argmax decides them: the lowest token, also across blocks."""
    hidden, weight = torch.ones(1, 4), torch.ones(5000, 4)
    targets = torch.tensor([0, 1, 2048, 4999])
    rows = torch.zeros_like(targets)
    for logprobs, greedy, _ in (
        blockwise_scores(hidden, weight, None, rows, targets),
        dense_scores([hidden @ weight.T], rows, targets),
    ):
        assert greedy.tolist() == [True, False, False, False]
        assert logprobs.tolist() == pytest.approx([-math.log(5000)] * 4)


# ── independence of batches ─────────────────────────────────────────────────────────────────────────────
@settings(max_examples=25, deadline=None, database=None)
@given(
    order=st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=12),
    batch_size=st.none() | st.integers(1, 9),
    batch_tokens=st.integers(1, 400),
)
def test_scores_do_not_depend_on_batches(
    tiny: TransformersSession, order: list[int], batch_size: int | None, batch_tokens: int
) -> None:
    """Any choice of requests in any order, with repeats, in batches of any size, has the scores of each alone."""
    known = alone(tiny)
    before, tiny.batch_tokens = tiny.batch_tokens, batch_tokens
    try:
        outputs = tiny.loglikelihood([PAIRS[index] for index in order], batch_size=batch_size)
    finally:
        tiny.batch_tokens = before
    for index, output in zip(order, outputs, strict=True):
        check(output, known[index])


@functools.cache
def alone(session: TransformersSession) -> list[Score]:
    """The scores of all pairs, each asked on its own."""
    outputs = [session.loglikelihood([pair])[0] for pair in PAIRS]
    return [(list(output.token_logprobs or ()), output.is_greedy) for output in outputs]


def test_computed_tokens_are_those_that_went_through_the_model(tiny: TransformersSession, watch_tokens: Watch) -> None:
    """The count of computed tokens is that of all input positions, padding included."""
    before = tiny.token_counts()
    with watch_tokens(tiny) as seen:
        tiny.loglikelihood(PAIRS, batch_size=4)
    after = tiny.token_counts()
    assert after.computed - before.computed == sum(seen)
    assert sum(seen) >= after.unique - before.unique > 0
    assert after.requested - before.requested >= after.unique - before.unique


# ── shared prefixes ─────────────────────────────────────────────────────────────────────────────────────
def test_shared_prefixes_are_computed_once(llama: TransformersSession, llama_rows: TransformersSession) -> None:
    """Questions behind one few-shot prefix cost what is distinct in them, without padding."""
    shots = "Question: how many?\nAnswer: seven.\n\n" * 3
    questions = [f"{shots}Question: {word}?\nAnswer:" for word in ("what", "where", "who", "when and why")]
    pairs = [LoglikelihoodRequest(text, f" {answer}") for text in questions for answer in ("the king", "the", "sea")]
    costs = []
    for session in (llama, llama_rows):
        before = session.token_counts()
        outputs = session.loglikelihood(pairs)
        after = session.token_counts()
        costs.append((after.computed - before.computed, after.unique - before.unique, outputs))
    (shared, unique, found), (padded, _, expected) = costs
    assert shared == unique
    assert padded > 5 * shared
    assert [output.logprob for output in found] == pytest.approx([output.logprob for output in expected], **CLOSE)


def test_large_batches_come_in_few_sizes_and_score_the_same(
    llama: TransformersSession, llama_rows: TransformersSession, watch_tokens: Watch
) -> None:
    """A batch of many tokens is padded to a round number, which is counted, and no score changes."""
    texts = [LoglikelihoodRequest(f"{number} stands before", f" the {number * 7} others") for number in range(70)]
    before = llama.token_counts().computed
    with watch_tokens(llama) as seen:
        found = llama.loglikelihood(texts)
    assert any(size >= 512 for size in seen)
    assert all(size % 64 == 0 for size in seen if size >= 512)
    assert sum(seen) == llama.token_counts().computed - before
    for output, other in zip(found, llama_rows.loglikelihood(texts), strict=True):
        assert output.token_logprobs == pytest.approx(other.token_logprobs, **CLOSE)


def test_nothing_of_a_prompt_stays_in_memory(llama: TransformersSession) -> None:
    """Keys and values of shared prefixes are given up once their requests are answered."""
    llama.loglikelihood(PAIRS)
    llama.generate([GenerationRequest(prompt=CONTEXTS[-1] * 2 + text, max_new_tokens=2) for text in CONTINUATIONS])
    assert not llama.tree.cache


@pytest.mark.parametrize("name", ["llama", "mistral"])
@settings(max_examples=40, deadline=None, database=None)
@given(
    texts=st.lists(st.lists(st.integers(3, 5), min_size=2, max_size=40), min_size=1, max_size=12),
    starts=st.lists(st.integers(1, 39), min_size=12, max_size=12),
    batch_tokens=st.integers(1, 120),
)
def test_any_forest_scores_as_its_rows(
    name: str, request: pytest.FixtureRequest, texts: list[list[int]], starts: list[int], batch_tokens: int
) -> None:
    """However requests share prefixes, and however small the batches, each scores as in a row of its own."""
    session: TransformersSession = request.getfixturevalue(name)
    assert session.shares_prefixes
    spans = [Span(tuple(ids), min(start, len(ids) - 1)) for ids, start in zip(texts, starts, strict=False)]
    asked = [LoglikelihoodRequest("", "", span.ids[: span.start], span.targets) for span in spans]
    before, session.batch_tokens = session.batch_tokens, batch_tokens
    try:
        outputs = session.loglikelihood(asked)
    finally:
        session.batch_tokens = before
    for output, expected in zip(outputs, session.score_batch(spans), strict=True):
        check(output, (list(expected.logprobs), expected.is_greedy))


@pytest.mark.parametrize(("name", "shares"), [("llama", True), ("mistral", True), ("llama_rows", False), ("t5", False)])
def test_the_description_says_how_requests_are_scored(name: str, shares: bool, request: pytest.FixtureRequest) -> None:
    """Sharing is used where the model allows it and was not switched off, and the description says which it is."""
    session: TransformersSession = request.getfixturevalue(name)
    assert session.shares_prefixes is shares
    assert session.describe_execution()["scoring"] == ("prefix forest" if shares else "padded rows")


# ── memory ──────────────────────────────────────────────────────────────────────────────────────────────
def limit_memory(
    monkeypatch: pytest.MonkeyPatch, session: TransformersSession, fits: Callable[[Tensor], bool]
) -> list[bool]:
    """Let real allocations fail for inputs that do not fit; returns which passes did, as they are tried."""
    tried: list[bool] = []
    forward = session.forward

    def limited(**inputs: Any) -> Any:
        tried.append(fits(inputs["input_ids"]))
        if not tried[-1]:
            torch.empty(1 << 50)
        return forward(**inputs)

    monkeypatch.setattr(session, "forward", limited)
    # Back-off lowers it for good.
    monkeypatch.setattr(session, "batch_tokens", session.batch_tokens)
    return tried


def test_memory_that_runs_out_changes_no_score(tiny: TransformersSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are halved until they fit, and later ones are small from the start; the scores stay."""
    expected = alone(tiny)
    tried = limit_memory(monkeypatch, tiny, lambda ids: ids.numel() <= 120)
    for score, output in zip(expected, tiny.loglikelihood(PAIRS), strict=True):
        check(output, score)
    assert not all(tried)
    tried.clear()
    tiny.loglikelihood(PAIRS)
    assert all(tried)


def test_a_request_that_does_not_fit_alone_fails_alone(
    llama_rows: TransformersSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request too large for the memory gets an error; all others get their scores."""
    expected = alone(llama_rows)
    lengths = [len(pair.context) + len(pair.continuation) - 1 for pair in llama_rows.encode(PAIRS)]
    longest = max(lengths)
    limit_memory(monkeypatch, llama_rows, lambda ids: ids.shape[1] < longest)
    outputs = llama_rows.loglikelihood(PAIRS)
    assert longest in lengths
    for length, score, output in zip(lengths, expected, outputs, strict=True):
        if length == longest:
            assert "out of memory" in (output.error or "")
        else:
            check(output, score)


def test_without_any_memory_every_request_has_an_error(
    tiny: TransformersSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no pass fits, each request gets an error, and none a score."""
    limit_memory(monkeypatch, tiny, lambda ids: False)
    outputs = tiny.loglikelihood(PAIRS)
    assert len(outputs) == len(PAIRS)
    assert all("out of memory" in (output.error or "") for output in outputs)


def test_other_errors_are_not_taken_for_memory(llama: TransformersSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not about memory is not retried in smaller batches."""
    calls = 0

    def broken(**inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(llama, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        llama.loglikelihood(PAIRS)
    assert calls == 1


def test_an_accelerators_memory_error_is_one_too(llama: TransformersSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.OutOfMemoryError becomes evalkit's own, which the core answers with a smaller batch."""

    def full(**inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(llama, "forward", full)
    with pytest.raises(OutOfMemoryError):
        llama.score_batch([Span((1, 40, 41), 1), Span((1, 42, 43), 2)])


# ── the output head ─────────────────────────────────────────────────────────────────────────────────────
def head_rows(session: TransformersSession, ask: Callable[[], object]) -> list[int]:
    """Rows of logits that the head computed in each pass while `ask` ran."""
    rows: list[int] = []
    head = session.model.get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: rows.append(output.shape[:-1].numel()))
    try:
        ask()
    finally:
        handle.remove()
    return rows


def test_logits_are_computed_at_scored_positions_only(tiny: TransformersSession) -> None:
    """The head sees at most one row for each scored token and one for each pass, none for contexts and padding."""
    assert tiny.describe_execution()["logits"] == "scored positions"
    scored = sum(output.token_count for output in tiny.loglikelihood(PAIRS))
    rows = head_rows(tiny, lambda: tiny.loglikelihood(PAIRS))
    assert sum(rows) <= scored + len(rows)


def test_a_head_with_more_behind_it_sees_scored_positions_only(random_checkpoint: Write) -> None:
    """Where logits are capped, the head computes exactly those of scored tokens."""
    with open_session(random_checkpoint(CAPPED), share_prefixes=False) as session:
        scored = sum(output.token_count for output in session.loglikelihood(PAIRS))
        assert sum(head_rows(session, lambda: session.loglikelihood(PAIRS))) == scored


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CAPPED, id="softcap"),
        # These logits are small: such a cap bends them by a few thousandths.
        pytest.param(
            transformers.Gemma2Config(**SMALL, head_dim=16, attn_logit_softcapping=None, final_logit_softcapping=60.0),
            id="softcap that is far away",
        ),
        pytest.param(transformers.CohereConfig(**SMALL, logit_scale=0.25), id="scale"),
        pytest.param(transformers.GraniteConfig(**SMALL, logits_scaling=8.0), id="divisor"),
    ],
)
def test_what_models_do_behind_their_head_is_kept(random_checkpoint: Write, config: Any) -> None:
    """Soft caps and scales of logits apply to selected positions too."""
    path = random_checkpoint(config)
    model = reference_model(path)
    with torch.inference_mode():
        ids = torch.tensor([[5, 9, 30]])
        bare = model.get_output_embeddings()(model.model(ids).last_hidden_state)
        assert not torch.allclose(bare, model(ids).logits, atol=1e-3), "the model does nothing behind its head"
    with open_session(path) as session:
        assert session.describe_execution()["logits"] == "scored positions"
        for pair, output in zip(PAIRS, session.loglikelihood(PAIRS, batch_size=7), strict=True):
            check(output, naive(model, *ids_of(path, pair)))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=128, vocab_size=384), id="gpt2"
        ),
        pytest.param(transformers.BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=384), id="position-free"),
        pytest.param(transformers.Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]), id="convolution"),
        pytest.param(
            transformers.MambaConfig(hidden_size=64, num_hidden_layers=2, state_size=8, vocab_size=384),
            id="state-space",
        ),
    ],
)
def test_other_kinds_of_models_are_exact(random_checkpoint: Write, config: Any) -> None:
    """Learned positions, no positions and recurrent layers: padding on the right changes no score."""
    path = random_checkpoint(config)
    model = reference_model(path)
    with open_session(path) as session:
        for pair, output in zip(PAIRS, session.loglikelihood(PAIRS, batch_size=7), strict=True):
            check(output, naive(model, *ids_of(path, pair)))


def test_angles_that_depend_on_length_are_each_requests_own(random_checkpoint: Write) -> None:
    """With longrope, texts beyond the original context have other rotary angles: they change no shorter text's."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 24}
    config = transformers.Phi3Config(
        **SMALL,
        original_max_position_embeddings=24,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, **factors},
    )
    path = random_checkpoint(config)
    model = reference_model(path)
    lengths = [sum(map(len, ids_of(path, pair))) - 1 for pair in PAIRS]
    assert min(lengths) < 24 < max(lengths)
    with open_session(path) as session:
        for batch_tokens in (30, 2000):
            session.batch_tokens = batch_tokens
            for pair, output in zip(PAIRS, session.loglikelihood(PAIRS), strict=True):
                check(output, naive(model, *ids_of(path, pair)))


def _without_head(self: Any) -> None:
    return None


def _flat(self: Any, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
    """Calls the head with the rows and positions of hidden states as one axis."""
    output = self.model(input_ids, attention_mask=attention_mask, use_cache=False)
    hidden = output.last_hidden_state
    logits = self.lm_head(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
    return transformers.modeling_outputs.CausalLMOutputWithPast(logits=logits)


def _across(self: Any, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Any:
    """Adds to the logits of a position those of the one before it."""
    output = self.model(input_ids, attention_mask=attention_mask, use_cache=False)
    logits = self.lm_head(output.last_hidden_state)
    shifted = torch.nn.functional.pad(logits, (0, 0, 1, 0))[:, :-1]
    return transformers.modeling_outputs.CausalLMOutputWithPast(logits=logits + shifted)


@pytest.mark.parametrize(
    ("method", "replacement"),
    [("get_output_embeddings", _without_head), ("forward", _flat), ("forward", _across)],
    ids=["no head", "flat hidden states", "positions mixed behind the head"],
)
def test_a_head_that_cannot_be_selected_is_computed_in_full(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, replacement: Any
) -> None:
    """Where selecting would give other logits, all are computed, scores are exact, and the description says so."""
    monkeypatch.setattr(transformers.LlamaForCausalLM, method, replacement)
    model = reference_model(llama_path)
    with open_session(llama_path) as session:
        assert session.describe_execution()["logits"] == "all positions"
        for pair, output in zip(PAIRS, session.loglikelihood(PAIRS, batch_size=6), strict=True):
            check(output, naive(model, *ids_of(llama_path, pair)))


def test_no_score_is_infinite_or_undefined(tiny: TransformersSession) -> None:
    """Every score is a finite number, also of text that the vocabulary spells byte by byte."""
    odd = [
        LoglikelihoodRequest(c, t) for c in ("", "\n", "北京 😀", "a\u0000b") for t in ("\u200b", " 😀", "\n\n\n", "é")
    ]
    assert all(math.isfinite(output.logprob) for output in tiny.loglikelihood(odd))
