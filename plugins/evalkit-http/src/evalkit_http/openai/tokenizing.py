"""The tokenizer over HTTP, in vLLM's shapes: what lm-evaluation-harness calls a remote tokenizer."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from evalkit_http.openai.answers import json_response
from evalkit_http.openai.served import Ready, Served
from evalkit_http.openai.wire import DetokenizeBody, TokenizeBody

router = APIRouter()


@router.post("/tokenize")
async def tokenize(served: Ready, body: TokenizeBody) -> Response:
    """Token ids of a text."""
    (ids,) = await asyncio.to_thread(served.texts.encode, [body.prompt], special=body.add_special_tokens)
    return json_response({"tokens": ids, "count": len(ids), "max_model_len": served.max_length})


@router.post("/detokenize")
async def detokenize(served: Ready, body: DetokenizeBody) -> Response:
    """The text of token ids, special ones spelled out."""
    served.check_ids(body.tokens, "tokens")
    return json_response({"prompt": await asyncio.to_thread(served.texts.decode, body.tokens)})


@router.get("/tokenizer_info")
async def tokenizer_info(served: Ready) -> Response:
    """Special tokens and the chat template."""
    return json_response(await asyncio.to_thread(_info, served))


def _info(served: Served) -> dict[str, Any]:
    tokenizer = served.texts.tokenizer
    library: Any = getattr(tokenizer, "hf", None)
    template = getattr(tokenizer, "chat_template", None)
    if library is None:
        prefix = tokenizer.prefix_token_id
        bos = None if prefix in tokenizer.eos_token_ids else served.texts.spell(prefix)
        return {"eos_token": tokenizer.eos_text, "bos_token": bos, "pad_token": None, "chat_template": template}
    return {
        "eos_token": tokenizer.eos_text,
        "bos_token": library.bos_token,
        "pad_token": library.pad_token,
        "chat_template": template or library.chat_template,
    }
