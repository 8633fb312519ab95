"""The engine's options. The HTTP client is loaded when a model is built."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt

from evalkit.engine import BaseEngine, BaseInferenceSession
from evalkit.errors import MissingDependencyError
from evalkit.model import Model
from evalkit.options import NotNegative, Positive

Api = Literal["auto", "chat", "completions"]
Scoring = Literal["auto", "eval", "echo", "none"]
Seconds = Annotated[float, Gt(0)]


@dataclass(slots=True)
class OpenAICompatible(BaseEngine):
    """Evaluates the model that a server offers under a name, over any OpenAI-compatible endpoint.

    `base_url` is the address up to "/v1", by default that of the variable OPENAI_BASE_URL, else OpenAI's own. `api`
    "chat" sends a prompt as one user message. `scoring` is how log-likelihoods are asked for. `batch_size` requests
    are in flight at once; 0 is one at a time. `tokenizer` is a local path, "remote", "none", or "auto". The key is
    read from the variable `api_key_env` and never kept; a header's value may name a variable, too: "$MY_KEY".
    """

    neutral_options: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "requests_per_minute", "tokens_per_minute", "timeout", "retries", "api_key_env", "verify_ssl"}
    )

    base_url: str | None = None
    api: Api = "auto"
    scoring: Scoring = "auto"
    batch_size: NotNegative = 4
    tokenizer: str = "auto"
    max_length: Positive | None = None
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    timeout: Seconds = 600.0
    retries: NotNegative = 6
    api_key_env: str = "OPENAI_API_KEY"
    headers: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    verify_ssl: bool = True
    extra_body: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A key given here by mistake must not be shown.
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", self.api_key_env) or self.api_key_env.startswith("sk_"):
            raise ValueError("api_key_env is the name of an environment variable, such as OPENAI_API_KEY, not a key")

    def build(self, model: Model) -> BaseInferenceSession:
        """Reach the server and check that it has the model. Raises ModelError, ConfigError, MissingDependencyError."""
        try:
            from evalkit_openai.session import OpenAISession
        except ImportError as error:
            raise MissingDependencyError(
                f"engine 'openai' cannot import {error.name}. Install it with: pip install evalkit-openai"
            ) from error
        return OpenAISession(self, model)
