"""The Hugging Face tokenizer as `evalkit.scoring` wants it, and how long a text its model takes; for every engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import MissingDependencyError, ModelNotFoundError, RequestError, one_line
from evalkit.model import Model
from evalkit.requests import Message

UNLIMITED = 1_000_000_000
"""Tokenizers write a larger limit where they have none."""
DEFAULT_LENGTH = 2048


class HFTokenizer:
    """Adapts a `transformers` tokenizer to the Tokenizer protocol of `evalkit.scoring`."""

    def __init__(self, tokenizer: Any, *, eos_token_ids: Sequence[int] = (), chat_template: str | None = None) -> None:
        self.hf = tokenizer
        self.chat_template = chat_template
        eos = tokenizer.eos_token_id
        self.eos_token_ids = frozenset(eos_token_ids) | (frozenset() if eos is None else {eos})
        self.eos_text: str | None = tokenizer.eos_token
        bos = tokenizer.bos_token_id
        self.prefix_token_id: int = bos if bos is not None else eos if eos is not None else 0
        self.vocab_size: int = len(tokenizer)
        self._prefix_text: str = tokenizer.decode([self.prefix_token_id])

    @property
    def model_max_length(self) -> int:
        """The tokenizer's own limit; huge where it has none."""
        return int(self.hf.model_max_length)

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of each text; none is added to a text that begins with the prefix token already."""
        bare = [not special or text.startswith(self._prefix_text) for text in texts]
        encoded: list[list[int]] = [[] for _ in texts]
        for add in (True, False):
            chosen = [index for index, is_bare in enumerate(bare) if is_bare != add]
            if chosen:
                ids = self._encode([texts[index] for index in chosen], add)
                for index, row in zip(chosen, ids, strict=True):
                    encoded[index] = row
        return encoded

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids, as the tokenizer is configured to spell it."""
        text: str = self.hf.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Chat messages as text. Raises RequestError where there is no template, or it refuses the messages."""
        import jinja2

        try:
            text: str = self.hf.apply_chat_template(
                [dict(message) for message in messages],
                tools=[dict(tool) for tool in tools] if tools else None,
                chat_template=self.chat_template,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
                **variables,
            )
        except (ValueError, jinja2.TemplateError) as error:
            raise RequestError(
                f"the chat template cannot be used ({one_line(error, 160)}). Leave out --apply-chat-template, "
                "or give one with --model-arg chat_template=FILE"
            ) from error
        return text

    def _encode(self, texts: list[str], add_special: bool) -> list[list[int]]:
        rows: list[list[int]] = self.hf(
            texts,
            add_special_tokens=add_special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return rows


def load_tokenizer(
    model: Model,
    *,
    trust_remote_code: bool = False,
    eos_token_ids: Sequence[int] = (),
    file_template: str | None = None,
) -> HFTokenizer:
    """The tokenizer of `model`. Raises ModelNotFoundError, MissingDependencyError.

    `file_template` is the chat template of the model's own file, for tokenizers that come without one.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError(
            "tokenizers need transformers. Install it with: pip install transformers"
        ) from error
    path = model.tokenizer_path or model.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path,
            revision=model.tokenizer_revision or (None if model.tokenizer_path else model.revision) or "main",
            trust_remote_code=trust_remote_code or model.trust_remote_code,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNotFoundError(
            f"tokenizer {path!r} cannot be loaded: {one_line(error, 200)}. Check --model-arg tokenizer_path="
        ) from error
    template = load_template(model.chat_template) or (None if tokenizer.chat_template else file_template)
    return HFTokenizer(tokenizer, eos_token_ids=eos_token_ids, chat_template=template)


def context_length(config: Any, tokenizer_length: int | None) -> int:
    """Tokens the model takes at once: the configuration's, else the tokenizer's, else 2048 (as lm-eval)."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for source in (config, text):
        for name in ("n_positions", "max_position_embeddings", "n_ctx"):
            # XLNet writes -1 for "no limit".
            if isinstance(value := getattr(source, name, None), int) and value > 0:
                return value
    if tokenizer_length and tokenizer_length < UNLIMITED:
        return tokenizer_length
    return DEFAULT_LENGTH


def load_template(given: str | None) -> str | None:
    """A chat template that is given as text, or as the file that holds it. Raises ModelNotFoundError."""
    # A template is longer than a file name may be, and holds braces.
    if given and "{" not in given:
        if not Path(given).is_file():
            raise ModelNotFoundError(f"chat template file {given} does not exist. Check --model-arg chat_template=")
        return Path(given).read_text(encoding="utf-8")
    return given
