"""A chat template gives the text that Transformers gives; one that cannot be used is one line."""

from __future__ import annotations

from datetime import datetime

import pytest

from evalkit.chat_templates import render_template
from evalkit.errors import RequestError

HELLO = [{"role": "user", "content": "Hi"}]


def test_what_templates_may_use() -> None:
    """Loop controls, JSON, dates, tools and variables; blocks leave no lines behind."""
    template = """{{ bos_token }}
{% for m in messages %}
  {% if loop.index > 1 %}{% break %}{% endif %}
{{ m.role }}: {{ m.content }}
{% endfor %}
{{ tools | tojson }} {{ strftime_now("%Y") }} {{ mood }}"""
    text = render_template(template, [*HELLO, *HELLO], tools=[{"name": "ä"}], bos_token="<s>", mood="calm")
    assert text == f'<s>\nuser: Hi\n[{{"name": "ä"}}] {datetime.now().year} calm'


@pytest.mark.parametrize(
    "template", [None, "", "{% if %}", "{{ raise_exception('no system role') }}", "{{ messages[0].x.y }}"]
)
def test_a_template_that_cannot_be_used(template: str | None) -> None:
    """None at all, a broken one, and one that refuses the messages."""
    with pytest.raises(RequestError, match="chat template cannot be used"):
        render_template(template, HELLO)
