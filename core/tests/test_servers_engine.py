"""Options of server mode that contradict each other are refused, and the others become words of a command line."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.errors import ConfigError
from evalkit.options import build
from evalkit.servers import flags
from evalkit.testing.served import ServedFake


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_server": True, "base_url": "http://x/v1"}, "give one of them"),
        ({"port": 80}, "port is an option of server mode: add start_server"),
        ({"in_flight": 2}, "add start_server=true or base_url="),
        ({"base_url": "http://x/v1", "server_args": {"a": 1}}, "server_args is an option of a server that evalkit"),
        ({"start_server": True, "client_args": {"base_url": "http://x/v1"}}, "base_url is an option of its own"),
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], message: str) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match=message):
        build(ServedFake, options, "the engine")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_length": 8, "--dtype": "auto"}, ["--max-length", "8", "--dtype", "auto"]),
        ({"eager": True, "prefix_caching": False, "quantization": None}, ["--eager", "--no-prefix-caching"]),
        ({"rope": {"factor": 2}, "modules": ["a", "b"]}, ["--rope", '{"factor": 2}', "--modules", "a", "b"]),
    ],
)
def test_options_become_words(values: dict[str, Any], words: list[str]) -> None:
    """As the command lines of such servers want them."""
    assert flags(values) == words
