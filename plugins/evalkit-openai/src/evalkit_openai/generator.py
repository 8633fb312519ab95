"""Ask for one generation: over the route that fits it, with the fields that the server takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from evalkit.errors import RequestError, one_line
from evalkit.requests import GenerationOutput, GenerationRequest
from evalkit_openai import generation
from evalkit_openai.client import Client, RefusedError
from evalkit_openai.server import Server

MALFORMED_TRIES = 3
CHARACTERS_A_TOKEN = 4
"""For the rate limit, where nothing else is known."""
NEXT_SEED = 1_000_003


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request's prompt for /completions; `notes` say where it was cut."""

    content: str | list[int]
    notes: tuple[str, ...] = ()


class Generator:
    """Answers generation requests, one coroutine each."""

    def __init__(self, client: Client, server: Server) -> None:
        self.client = client
        self.server = server
        self.engine = client.engine
        self._limit_field = "max_tokens"

    async def answer(self, request: GenerationRequest, prompt: Prompt | None) -> GenerationOutput:
        """The output, with `error` where this request cannot be answered. Without `prompt` it is sent as a chat."""
        try:
            first, *others = await self._samples(request, prompt)
        except RequestError as error:
            return GenerationOutput(finish_reason="error", error=one_line(error))
        return replace(first, alternatives=tuple(others), notes=prompt.notes if prompt else ())

    async def _samples(self, request: GenerationRequest, prompt: Prompt | None) -> list[GenerationOutput]:
        found = await self._ask(request, prompt)
        # Some servers take `n` and give one text all the same.
        while len(found) < request.n:
            seed = None if request.seed is None else request.seed + NEXT_SEED * len(found)
            found += (await self._ask(replace(request, n=1, seed=seed), prompt))[:1]
        return found[: request.n]

    async def _ask(self, request: GenerationRequest, prompt: Prompt | None) -> list[GenerationOutput]:
        problem = ""
        for _ in range(MALFORMED_TRIES):
            answer = await (self._send_chat(request) if prompt is None else self._send(request, prompt.content))
            try:
                return generation.read_answer(answer, request)
            except (ValueError, LookupError, TypeError) as error:
                problem = one_line(error)
        raise RequestError(f"the server at {self.client.url} answers with nothing usable: {problem}")

    async def _send(self, request: GenerationRequest, prompt: str | list[int]) -> Any:
        tells_ids = await self.server.completions()
        await self._check_fields("/completions", request)
        body = generation.completion_body(request, prompt, self.engine.seed)
        return await self._post("/completions", {**body, **({"return_token_ids": True} if tells_ids else {})}, prompt)

    async def _send_chat(self, request: GenerationRequest) -> Any:
        if request.input_ids is not None:
            raise RequestError("token ids cannot be sent as a chat message. Use --engine-arg api=completions")
        await self._check_fields("/chat/completions", request)
        prompt = request.prompt or str(request.messages)
        while True:
            field = self._limit_field
            try:
                return await self._post(
                    "/chat/completions", generation.chat_body(request, self.engine.seed, field), prompt
                )
            except RefusedError as error:
                # OpenAI's reasoning models know the limit by another name only.
                if field != "max_tokens" or "max_completion_tokens" not in str(error):
                    raise
                self._limit_field = "max_completion_tokens"

    async def _check_fields(self, route: str, request: GenerationRequest) -> None:
        for field in generation.own_fields(request):
            if not await self.server.takes(route, field):
                raise RequestError(f"the server at {self.client.url} ignores {field!r}. Leave it out")

    async def _post(self, route: str, body: dict[str, Any], prompt: str | list[int]) -> Any:
        length = len(prompt) / CHARACTERS_A_TOKEN if isinstance(prompt, str) else len(prompt)
        limit = int(body.get("max_tokens") or body.get("max_completion_tokens") or 0)
        full = {"model": self.server.model, **body, **self.engine.extra_body}
        return await self.client.post(route, full, tokens=int(length) + limit * int(body.get("n", 1)))
