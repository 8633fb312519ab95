"""What a server is and takes: asked once, when it is first of use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from anyio import Lock

from evalkit.errors import ModelError, ModelNotFoundError, RequestError, did_you_mean
from evalkit_openai.client import Client, OutageError, RefusedError

V = TypeVar("V")
NO_ROUTE = (404, 405, 501)
START_RETRIES = 2
WRONG_VALUE = (400, 422, 500)
"""What servers answer to a value of the wrong type: some do not expect it."""


class Server:
    """A server and one of the models that it lists."""

    def __init__(self, client: Client, model: str) -> None:
        self.client = client
        self.model = model
        self.entry: Mapping[str, Any] = {}
        """What the list of models says of this one."""
        self.version: str | None = None
        self._asked: dict[str, tuple[Lock, Future[Any]]] = {}

    async def connect(self) -> None:
        """Reach the server and find the model. Raises ModelError, ModelNotFoundError."""
        try:
            # Whoever mistyped the address need not wait long to be told.
            answer = await self.client.get("/models", retries=min(START_RETRIES, self.client.engine.retries))
        except OutageError as error:
            raise ModelError(f"{error}. Start the server, or check --engine-arg base_url=") from error
        except RefusedError:
            # Not every server lists its models.
            return
        entries = answer.get("data") if isinstance(answer, Mapping) else None
        listed = {str(e["id"]): e for e in entries or () if isinstance(e, Mapping) and "id" in e}
        if listed and self.model not in listed and not any("*" in name for name in listed):
            known = did_you_mean(self.model, listed) or f" It lists {len(listed)} others."
            raise ModelNotFoundError(f"the server at {self.client.url} has no model {self.model!r}.{known}")
        self.entry = listed.get(self.model, {})
        self.version = await self._read_version()

    async def _read_version(self) -> str | None:
        try:
            answer = await self.client.get("/version", at_root=True, retries=0)
        except RequestError:
            return None
        version = answer.get("version") if isinstance(answer, Mapping) else None
        return version if isinstance(version, str) else None

    @property
    def max_length(self) -> int | None:
        """Tokens that the model takes, where the list of models says so."""
        meta = self.entry.get("meta")
        places = (self.entry.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, Mapping) else None)
        return next((length for length in places if isinstance(length, int) and length > 0), None)

    async def once(self, name: str, ask: Callable[[], Awaitable[V]]) -> V:
        """What `ask` found the first time; all who want to know meanwhile wait for it. A failure is not kept."""
        lock, found = self._asked.setdefault(name, (Lock(), Future()))
        # Where the one who asks is given up, the next one asks.
        async with lock:
            if not found.done():
                try:
                    found.set_result(await ask())
                except RequestError as error:
                    self._asked.pop(name, None)
                    found.set_exception(error)
        result: V = found.result()
        return result

    async def has_route(self, path: str, body: Mapping[str, Any], *, at_root: bool = False) -> bool:
        """Whether the server has a route, asked with a small request."""

        async def ask() -> bool:
            try:
                await self.client.post(path, body, at_root=at_root)
            except RefusedError as error:
                return error.status not in NO_ROUTE
            return True

        return await self.once(f"route {path}", ask)

    async def has_chat(self) -> bool:
        """Whether the server takes messages."""
        messages = [{"role": "user", "content": "Hi"}]
        return await self.has_route("/chat/completions", {"model": self.model, "messages": messages, "max_tokens": 1})

    async def completions(self) -> bool:
        """Whether the server tells the ids of the tokens it generates. Raises ModelError without such a route."""

        async def ask() -> bool:
            body = {"model": self.model, "prompt": "Hi", "max_tokens": 1}
            try:
                answer = await self.client.post("/completions", {**body, "return_token_ids": True})
            except RefusedError as error:
                if error.status in NO_ROUTE:
                    raise ModelError(
                        f"the server at {self.client.url} continues no plain text ({error}). Send each prompt as a "
                        "user message with --engine-arg api=chat, or use --apply-chat-template"
                    ) from error
                return False
            choices = answer.get("choices") if isinstance(answer, Mapping) else None
            first = choices[0] if isinstance(choices, list) and choices else None
            return isinstance(first, Mapping) and isinstance(first.get("token_ids"), list)

        return await self.once("completions", ask)

    async def takes(self, route: str, field: str) -> bool:
        """Whether the server reads a field that OpenAI's API lacks: one that does refuses a wrong value in it.

        Raises OutageError where it tells neither.
        """

        async def ask() -> bool:
            prompt = {"messages": [{"role": "user", "content": "Hi"}]} if "chat" in route else {"prompt": "Hi"}
            try:
                body = {"model": self.model, **prompt, "max_tokens": 1, field: "no number"}
                await self.client.post(route, body, retries=0)
            except (RefusedError, OutageError) as error:
                if error.status not in WRONG_VALUE:
                    raise
                return True
            return False

        return await self.once(f"{route} {field}", ask)
