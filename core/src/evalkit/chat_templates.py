"""Render a chat template where Transformers does not: with what templates may use there, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evalkit.errors import MissingDependencyError, RequestError, one_line
from evalkit.requests import Message


class TemplateTokenizer:
    """A tokenizer whose chat template is rendered here, not by its library."""

    chat_template: str | None
    bos_text: str
    eos_text: str | None

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Chat messages as text. Raises RequestError where there is no template, or it refuses the messages."""
        return render_template(
            self.chat_template,
            messages,
            tools=tools,
            add_generation_prompt=add_generation_prompt,
            bos_token=self.bos_text,
            eos_token=self.eos_text or "",
            **variables,
        )


def render_template(
    template: str | None,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> str:
    """Chat messages as text. Raises RequestError where there is no template, or it refuses the messages."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError("chat templates need jinja2. Install it with: pip install jinja2") from error
    try:
        if not template:
            raise jinja2.TemplateError("there is none")
        chat = [dict(message) for message in messages]
        text: str = (
            _environment()
            .from_string(template)
            .render(messages=chat, tools=[dict(tool) for tool in tools] if tools else None, **variables)
        )
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise RequestError(
            f"the chat template cannot be used ({one_line(error, 160)}). Leave out --apply-chat-template, "
            "or give one with --model-arg chat_template=FILE"
        ) from error
    return text


def _environment() -> Any:
    """What templates may use: the same as in Transformers."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _refuse(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)
