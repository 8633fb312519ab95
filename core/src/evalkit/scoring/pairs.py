"""Encode (context, continuation) pairs so that the tokens equal lm-evaluation-harness 0.4.13's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evalkit.requests import LoglikelihoodRequest, Message

MERGED = "the continuation merges with the end of its context: scored from the last common token"


class Tokenizer(Protocol):
    """What scoring and generation need of a tokenizer."""

    prefix_token_id: int
    """What stands before an empty context: BOS, else EOS."""
    eos_token_ids: frozenset[int]
    eos_text: str | None
    vocab_size: int

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of each text; `special` adds what the tokenizer adds, unless the text has it already."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids."""
        ...

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        **variables: Any,
    ) -> str:
        """Chat messages as text. Raises RequestError where there is no template."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of a pair; the context is never empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    notes: tuple[str, ...] = ()


def encode_pairs(tokenizer: Tokenizer, requests: Sequence[LoglikelihoodRequest]) -> list[EncodedPair]:
    """Encode every pair; a text that occurs several times is encoded once.

    The continuation is what the whole text has after the length of the context's tokens, so that a token at
    the join is the one the model would see. Trailing whitespace of a context belongs to its continuation.
    """
    pairs = [move_whitespace(request.context, request.continuation) for request in requests]
    contexts = [context for context, _ in pairs if context]
    wholes = [context + continuation for context, continuation in pairs if context]
    bare = [continuation for context, continuation in pairs if not context]
    with_special = _encode_unique(tokenizer, contexts + wholes, special=True)
    without = _encode_unique(tokenizer, bare, special=False)
    encoded = []
    for request, (context, continuation) in zip(requests, pairs, strict=True):
        if request.context_ids is not None and request.continuation_ids is not None:
            given = tuple(request.context_ids) or (tokenizer.prefix_token_id,)
            encoded.append(EncodedPair(given, tuple(request.continuation_ids)))
        elif context and continuation:
            encoded.append(
                split_pair(with_special[context], with_special[context + continuation], tokenizer.prefix_token_id)
            )
        elif context:
            encoded.append(EncodedPair(with_special[context] or (tokenizer.prefix_token_id,), ()))
        else:
            encoded.append(after_prefix(without[continuation], tokenizer.prefix_token_id))
    return encoded


def encode_pairs_apart(tokenizer: Tokenizer, requests: Sequence[LoglikelihoodRequest]) -> list[EncodedPair]:
    """Encode context and continuation each on its own, as encoder-decoder models read them."""
    pairs = [move_whitespace(request.context, request.continuation) for request in requests]
    sources = _encode_unique(tokenizer, [context for context, _ in pairs if context], special=True)
    targets = _encode_unique(tokenizer, [continuation for _, continuation in pairs], special=False)
    prefix = (tokenizer.prefix_token_id,)
    return [
        EncodedPair(
            tuple(request.context_ids) if request.context_ids is not None else sources.get(context) or prefix,
            tuple(request.continuation_ids) if request.continuation_ids is not None else targets[continuation],
        )
        for request, (context, continuation) in zip(requests, pairs, strict=True)
    ]


def move_whitespace(context: str, continuation: str) -> tuple[str, str]:
    """Move the context's trailing whitespace to the front of the continuation."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def split_pair(context: tuple[int, ...], whole: tuple[int, ...], prefix: int) -> EncodedPair:
    """Split the tokens of the whole text where the context's tokens end."""
    if len(whole) > len(context):
        return EncodedPair(context or (prefix,), whole[len(context) :])
    # A token spans the join and nothing is left to score: lm-evaluation-harness stops here with an assertion.
    common = 0
    while common < len(whole) - 1 and whole[common] == context[common]:
        common += 1
    return EncodedPair(whole[:common] or (prefix,), whole[common:], (MERGED,))


def after_prefix(continuation: tuple[int, ...], prefix: int) -> EncodedPair:
    """A pair with an empty context: the prefix token stands for it, unless the text begins with it."""
    if continuation[:1] == (prefix,) and len(continuation) > 1:
        return EncodedPair(continuation[:1], continuation[1:])
    return EncodedPair((prefix,), continuation)


def _encode_unique(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool) -> dict[str, tuple[int, ...]]:
    unique = list(dict.fromkeys(texts))
    if not unique:
        return {}
    return dict(zip(unique, map(tuple, tokenizer.encode_batch(unique, special=special)), strict=True))
