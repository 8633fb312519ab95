"""Scores are those of the float32 model, whatever shares a pass, a cache or a prefix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.model import Model
from evalkit.scoring import Span
from evalkit.scoring.forest import SpanTable, build_forest
from evalkit.scoring.planner import plan_forest
from evalkit.testing.decoders import SPANS, check_each_token_is_computed_once, check_windows, logprob_errors
from evalkit.testing.models import registered_model
from evalkit.testing.reference import reference_model
from evalkit.testing.tiny import TinyModel
from evalkit_llamacpp import context as contexts
from evalkit_llamacpp import forest
from evalkit_llamacpp.engine import LlamaCpp
from evalkit_llamacpp.session import LlamaCppSession


def test_logprobs_are_those_of_transformers(llama: LlamaCppSession, tiny: TinyModel) -> None:
    """A float32 GGUF scores as its checkpoint does in Transformers, token by token, within 1e-3."""
    pytest.importorskip("transformers", reason="compares with Transformers")
    assert max(logprob_errors(llama, reference_model(Path(tiny.hf)))) < 1e-3


def test_each_token_is_computed_once(llama: LlamaCppSession) -> None:
    """Shared contexts and shared beginnings of continuations cost nothing further."""
    check_each_token_is_computed_once(llama)


class Recorder:
    """Stands in for a context: keeps sequences as sets of cells, as llama.cpp does, and notes what each token sees."""

    vocabulary = 8

    def __init__(self) -> None:
        self.cells: list[tuple[int, int, set[int]]] = []
        self.seen: list[list[int]] = []

    def cut(self, sequence: int, begin: int = 0) -> None:
        for _, position, owners in self.cells:
            if position >= begin:
                owners.discard(sequence)

    def copy(self, sequence: int, to: int, end: int) -> None:
        assert not any(to in owners for _, _, owners in self.cells)
        for _, position, owners in self.cells:
            if sequence in owners and position < end:
                owners.add(to)

    def keep_only(self, sequence: int) -> None:
        for _, _, owners in self.cells:
            owners &= {sequence}

    def decode(
        self, tokens: np.ndarray, positions: np.ndarray, owners: np.ndarray, counts: np.ndarray, wanted: np.ndarray
    ) -> np.ndarray:
        assert wanted.sum() <= contexts.MOST_LOGITS
        parts = np.split(owners, np.cumsum(counts)[:-1])
        assert all(len(part) > 0 and part.max() < contexts.MOST_SEQUENCES for part in parts)
        for token, position, part in zip(tokens.tolist(), positions.tolist(), parts, strict=True):
            for sequence in part.tolist():
                before = [place for _, place, own in self.cells if sequence in own]
                # llama.cpp refuses positions of a sequence that do not follow each other.
                assert sorted(before) == list(range(position))
            self.cells.append((token, position, set(part.tolist())))
        for position, part in zip(positions.tolist(), parts, strict=True):
            own = [(place, token) for token, place, owners in self.cells if part[0] in owners and place <= position]
            self.seen.append([token for _, token in sorted(own)])
        return np.zeros((int(wanted.sum()), self.vocabulary), np.float32)


@settings(max_examples=200, deadline=None)
@given(SPANS, st.integers(1, 60), st.integers(1, 60), st.integers(2, 9), st.integers(1, 6))
def test_every_token_sees_its_own_text(spans: list[Span], budget: int, most: int, sequences: int, logits: int) -> None:
    """However a forest is planned and cut, each token's sequence holds exactly the tokens before it in its text."""
    tree = build_forest(SpanTable.of(spans))
    context = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        for module in (forest, contexts):
            patch.setattr(module, "MOST_SEQUENCES", sequences)
            patch.setattr(module, "MOST_LOGITS", logits)
        fed = 0
        for batch in plan_forest(tree, budget):
            forest.score(context, batch, most)  # type: ignore[arg-type]
            fed += len(batch.tokens)
    texts = {span.fed[: end + 1] for span in spans for end in range(len(span.fed))}
    assert len(context.seen) == fed == len(texts)
    assert {tuple(seen) for seen in context.seen} == texts


@settings(max_examples=25, deadline=None)
@given(SPANS, st.integers(1, 60))
def test_scores_do_not_depend_on_what_is_shared(
    llama: LlamaCppSession, llama_rows: LlamaCppSession, spans: list[Span], budget: int
) -> None:
    """The forest, in passes of any size, scores as each text alone."""
    llama.make_room(64, 64)
    llama_rows.make_room(64, 64)
    expected = llama_rows.score_batch(spans)
    found = dict(llama._score_trees(spans, None))
    for number, scored in enumerate(expected):
        assert found[number].logprobs == pytest.approx(scored.logprobs, abs=1e-4)  # type: ignore[union-attr]


def test_rolling_windows_cover_long_texts(llama: LlamaCppSession, llama_rows: LlamaCppSession) -> None:
    """A text of several contexts is scored window by window, as without sharing."""
    assert check_windows(llama) == pytest.approx(check_windows(llama_rows), abs=1e-2)


@pytest.mark.parametrize(
    "text", ["Hello world\n  foo 123", "Ünïcödé 日本語 🙂", "<|im_start|>user\n", "", " a  b\t\n\n "]
)
def test_real_tokens_are_those_of_the_real_tokenizer(smollm2_gguf: str, text: str) -> None:
    """The GGUF's tokenizer gives what the Hugging Face tokenizer of the same model gives, and decodes it back."""
    transformers = pytest.importorskip("transformers", reason="compares with Transformers")
    checkpoint = registered_model("smollm2-135m", "hf")
    other = transformers.AutoTokenizer.from_pretrained(checkpoint)
    with LlamaCpp().build(Model(smollm2_gguf)) as session:
        assert isinstance(session, LlamaCppSession)
        ids = session.tokenizer.encode_batch([text])[0]
        assert ids == other(text)["input_ids"]
        assert session.tokenizer.decode(ids, skip_special=False) == other.decode(ids)
