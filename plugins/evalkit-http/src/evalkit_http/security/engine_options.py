"""Options of engines that clients may not give: what tells a job where to send secrets, or what code to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from evalkit_http.security.paths import ForbiddenError

ENDPOINT = "base_url"
HANDS_OUT = ("api_key_env", "headers")
"""Options that put variables of the server's environment into what is sent to an endpoint."""
RUNS_CODE = ("python", "env", "program", "distributed_executor_backend")
"""Options that name a program, an environment or a class to run."""
KERNELS = ("attn_implementation", "attention_backend")
"""Options that name a kernel: "owner/name" is one of a hub, which is code."""
FLAG = "Ask the server's operator for --allow-engine-options"


def check_engine_options(
    options: Mapping[str, Any], *, endpoint_hosts: Collection[str] = (), allow_free: bool = False
) -> None:
    """Raise ForbiddenError for options that a client may not give.

    An endpoint must be at one of `endpoint_hosts`, and only there do variables of the environment go. Mappings, which
    a backend takes as they are, and names of programs need `allow_free`.
    """
    named = options.get(ENDPOINT)
    _check_endpoints(options, endpoint_hosts, may_hand_out=bool(named))
    if not allow_free:
        # Of an endpoint that the operator trusts, headers are known by what they are.
        for name, value in options.items():
            if name != "headers":
                _check_plain(name, value)


def _check_endpoints(value: Any, hosts: Collection[str], *, may_hand_out: bool) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_endpoints(item, hosts, may_hand_out=may_hand_out)
    if not isinstance(value, Mapping):
        return
    for name, item in value.items():
        if name == ENDPOINT and item:
            _check_host(item, hosts)
        if name in HANDS_OUT and item and not may_hand_out:
            raise ForbiddenError(
                f"option {name!r} can hand out variables of the server's environment: it needs a {ENDPOINT} at a host "
                "that the server's operator names with --endpoint-host"
            )
        _check_endpoints(item, hosts, may_hand_out=may_hand_out)


def _check_host(url: Any, hosts: Collection[str]) -> None:
    import httpx

    # Read as the client that asks there reads it: two parsers may find two hosts.
    try:
        host = httpx.URL(str(url).strip()).host
    except httpx.InvalidURL:
        host = ""
    if not host:
        raise ForbiddenError(f"{ENDPOINT} is no address with a host. Give one such as http://localhost:8000/v1")
    if host.lower() not in {name.lower().strip("[]") for name in hosts}:
        raise ForbiddenError(
            f"jobs of this server ask no endpoint at {host!r}. Start it with: evalkit serve --endpoint-host {host}"
        )


def _check_plain(name: str, value: Any) -> None:
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(name, item)
    elif isinstance(value, Mapping) and value:
        raise ForbiddenError(f"option {name!r} goes to the backend as it is, and could make it run code. {FLAG}")
    elif name in RUNS_CODE and value:
        raise ForbiddenError(f"option {name!r} names a program or code to run. {FLAG}")
    elif name in KERNELS and any(mark in str(value) for mark in "/:"):
        raise ForbiddenError(f"option {name!r} names a kernel of a hub, which is code. {FLAG}")
