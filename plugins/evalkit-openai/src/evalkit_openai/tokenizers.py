"""A tokenizer that lives on the server: /tokenizer_info, /tokenize and /detokenize."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from evalkit.chat_templates import TemplateTokenizer
from evalkit.errors import ModelError, RequestError
from evalkit.tokenizers import load_template
from evalkit_openai.client import Client
from evalkit_openai.workers import Workers

IN_FLIGHT = 8


class RemoteTokenizer(TemplateTokenizer):
    """What `evalkit.scoring` wants of a tokenizer, asked of the server; what it was asked once is kept."""

    def __init__(
        self, client: Client, workers: Workers, model: str, info: Mapping[str, Any], chat_template: str | None
    ) -> None:
        self._client = client
        self._workers = workers
        self._model = model
        self._known: dict[tuple[str, bool], list[int]] = {}
        bos, eos = _text(info.get("bos_token")), _text(info.get("eos_token"))
        self.bos_text = bos or ""
        self.eos_text: str | None = eos
        self.chat_template = load_template(chat_template) or _template(info.get("chat_template"))
        self._prefix_text = bos or eos or ""
        prefix, end = (self._single(text) for text in (self._prefix_text, eos or ""))
        if prefix is None:
            raise ModelError(
                f"the server at {client.url} names no token that begins a text. "
                "Give a local tokenizer with --engine-arg tokenizer=PATH"
            )
        self.prefix_token_id: int = prefix
        self.eos_token_ids = frozenset(() if end is None else (end,))
        size = info.get("vocab_size")
        self.vocab_size: int = size if isinstance(size, int) else 1 << 31

    def _single(self, text: str) -> int | None:
        ids = self.encode_batch([text], special=False)[0] if text else []
        return ids[0] if len(ids) == 1 else None

    def encode_batch(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """Token ids of each text; none is added to a text that begins with the prefix token already."""
        wanted = [(text, special and not (self._prefix_text and text.startswith(self._prefix_text))) for text in texts]
        missing = [pair for pair in dict.fromkeys(wanted) if pair not in self._known]
        jobs = ((pair, lambda pair=pair: self._tokenize(*pair)) for pair in missing)
        self._known.update(self._workers.stream(jobs, IN_FLIGHT))
        return [list(self._known[pair]) for pair in wanted]

    async def _tokenize(self, text: str, special: bool) -> list[int]:
        body = {"model": self._model, "prompt": text, "add_special_tokens": special}
        answer = await self._client.post("/tokenize", body, at_root=True)
        ids = answer.get("tokens") if isinstance(answer, Mapping) else None
        if not isinstance(ids, list) or not all(isinstance(token, int) for token in ids):
            raise ModelError(
                f"the server at {self._client.url} gives no token ids. "
                "Give a local tokenizer with --engine-arg tokenizer=PATH"
            )
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of token ids, as the server spells it."""
        body = {"model": self._model, "tokens": list(ids)}
        answer = self._workers.run(partial(self._client.post, "/detokenize", body, at_root=True))
        return str(answer.get("prompt", "")) if isinstance(answer, Mapping) else ""

    def forget(self) -> None:
        """Release the encoded texts."""
        self._known.clear()


def remote_tokenizer(client: Client, workers: Workers, model: str, chat_template: str | None) -> RemoteTokenizer:
    """The server's tokenizer. Raises ModelError where it has none to offer."""
    try:
        info = workers.run(partial(client.get, "/tokenizer_info", at_root=True, retries=0))
        if not isinstance(info, Mapping):
            raise RequestError("it answers with something else")
        return RemoteTokenizer(client, workers, model, info, chat_template)
    except RequestError as error:
        raise ModelError(
            f"the server at {client.url} offers no tokenizer ({error}). Give a local one with "
            "--engine-arg tokenizer=PATH, or tokenizer=none (vLLM: start it with --enable-tokenizer-info-endpoint)"
        ) from error


def _text(token: Any) -> str | None:
    """A special token's text; transformers may write it as a mapping."""
    found = token.get("content") if isinstance(token, Mapping) else token
    return found if isinstance(found, str) and found else None


def _template(found: Any) -> str | None:
    """The template named "default", where a model has several."""
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, Mapping)}
        found = named.get("default")
    return found if isinstance(found, str) and found else None
