"""The GGUF's own tokenizer and chat template, as `evalkit.scoring` wants them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp

from evalkit.chat_templates import TemplateTokenizer
from evalkit.errors import ModelError
from evalkit_llamacpp.load import metadata

CLOSED = "this session of the llamacpp engine is closed. Build the model anew"
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class GGUFTokenizer(TemplateTokenizer):
    """A tokenizer over a model's handle."""

    def __init__(self, handle: Any, chat_template: str | None) -> None:
        self._vocabulary: Any = llama_cpp.llama_model_get_vocab(handle)
        self._is_bpe = metadata(handle, "tokenizer.ggml.model") == "gpt2"
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self.vocab_size: int = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        bos, eos = llama_cpp.llama_vocab_bos(self._vocabulary), llama_cpp.llama_vocab_eos(self._vocabulary)
        # Not all that llama.cpp takes for an end by its name: the checkpoint's own ends, as other engines have them.
        named = (metadata(handle, f"tokenizer.ggml.{key}") for key in END_KEYS)
        self.eos_token_ids = frozenset(int(value) for value in named if value is not None)
        self.prefix_token_id: int = bos if bos >= 0 else max(eos, 0)
        self.eos_text = self._spell(eos) if eos >= 0 else None
        self.bos_text = self._spell(bos) if bos >= 0 else ""
        self._prefix_text = self._spell(self.prefix_token_id)
        own = llama_cpp.llama_model_chat_template(handle, None)
        self.chat_template = chat_template or (own.decode(errors="replace") if own else None)

    def close(self) -> None:
        """Forget the vocabulary, which is freed with its model."""
        self._vocabulary = None

    def _opened(self) -> Any:
        """The vocabulary. Raises ModelError once the session is closed."""
        if self._vocabulary is None:
            raise ModelError(CLOSED)
        return self._vocabulary

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of each text; none is added to a text that begins with the prefix token already."""
        return [self._encode(text, special and not text.startswith(self._prefix_text)) for text in texts]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids. A character that is cut by the end of the ids shows as U+FFFD."""
        found = self._join(ids, skip_special) if self._is_bpe else self._detokenize(ids, skip_special)
        return found.decode("utf-8", errors="replace")

    def _join(self, ids: Sequence[int], skip_special: bool) -> bytes:
        """The bytes of each token: llama.cpp's own way takes spaces away before what looks like punctuation."""
        self._opened()
        return b"".join(self._piece(token, skip_special) for token in ids)

    def _piece(self, token: int, skip_special: bool) -> bytes:
        key = token, skip_special
        if key not in self._pieces:
            size = 256
            while True:
                buffer = ctypes.create_string_buffer(size)
                length = llama_cpp.llama_token_to_piece(self._opened(), token, buffer, size, 0, not skip_special)
                if length >= 0:
                    break
                size = -length
            self._pieces[key] = buffer.raw[:length]
        return self._pieces[key]

    def _detokenize(self, ids: Sequence[int], skip_special: bool) -> bytes:
        tokens = (llama_cpp.llama_token * len(ids))(*ids)
        size = 16 + 8 * len(ids)
        while True:
            buffer = ctypes.create_string_buffer(size)
            # Not "remove special": that is about what encoding adds at both ends.
            length = llama_cpp.llama_detokenize(self._opened(), tokens, len(ids), buffer, size, False, not skip_special)
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def _encode(self, text: str, special: bool) -> list[int]:
        raw = text.encode("utf-8", errors="replace")
        room = len(raw) + 8
        tokens = (llama_cpp.llama_token * room)()
        # Special tokens that are written out in the text count as such, as with Hugging Face tokenizers.
        count = llama_cpp.llama_tokenize(self._opened(), raw, len(raw), tokens, room, special, True)
        return list(tokens[:count])

    def _spell(self, token: int) -> str:
        return self.decode([token], skip_special=False)
