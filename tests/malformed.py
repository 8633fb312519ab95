"""Requests that no server should like, a thousand and more of them; not a test itself."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

JSON = {"Content-Type": "application/json"}
TOO_LARGE = 8 * 2**20 + 1
WRONG: dict[str, tuple[Any, ...]] = {
    "str": (None, 1, -1.5, True, [], {}, ["a"], {"a": 1}, [[[]]]),
    "list": (None, 1, -1.5, True, "", {}, [1], [None], [[]], [{"a": 1}], [""], []),
    "list of requests": (None, 1, -1.5, True, "", {}, [1], [None], [[]], [{"a": 1}], [""]),
    "dict": (1, -1.5, True, "text", [], ["a"], [[1]]),
    "int": ("x", "", [], {}, [1], {"a": 1}, 1.5, -1, -(2**62), 2**62),
    "bool": ("maybe", 2, -1, [], {}, 1.5, [True]),
}
LITERALS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "18446744073709551616", '"\\ud800"')
ESCAPES = (
    "/etc/passwd",
    "/",
    "..",
    "../..",
    "../../../../etc/passwd",
    "a/../../b",
    "/proc/self/environ",
    "/dev/zero",
    "/dev/stdin",
    "~/.ssh/id_rsa",
    "~root",
    "file:///etc/passwd",
    "a\u0000b",
    "/" + "a" * 5000,
)


@dataclass(frozen=True)
class Bad:
    """One request: through a client, or as bytes on a socket. `kind` is what is wrong with it."""

    kind: str
    method: str = "POST"
    path: str = "/"
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    raw: bytes | None = None


def bodies(
    path: str, valid: Mapping[str, Any], types: Mapping[str, str], own: Mapping[str, tuple[Any, ...]]
) -> Iterator[Bad]:
    """Bodies for `path`: each field of a valid one replaced by values of other types, or by its `own` bad ones."""
    for name, kind in types.items():
        for value in (*WRONG[kind], *own.get(name, ())):
            if value is None and name not in valid:
                continue
            yield _post("wrong value", path, json.dumps({**valid, name: value}).encode())
        for literal in LITERALS:
            text = json.dumps({**valid, name: "HERE"}).replace('"HERE"', literal)
            yield _post("a number that is none", path, text.encode())
    for name in valid:
        rest = {key: value for key, value in valid.items() if key != name}
        if name in own or types.get(name) in ("str", "list", "list of requests"):
            yield _post("missing field", path, json.dumps(rest).encode())
    for whole in (
        b"null",
        b"1",
        b'"text"',
        b"[]",
        b"[{}]",
        b"true",
        b"{}",
        b"",
        b" ",
        b"{",
        b"}",
        b"[1,]",
        b"{'a': 1}",
    ):
        yield _post("no object", path, whole)


def texts(path: str, valid: Mapping[str, Any], seed: int = 7) -> Iterator[Bad]:
    """Bodies that are no JSON text, too deep, too large, or of another type."""
    draw = random.Random(seed)
    good = json.dumps(valid).encode()
    for _ in range(80):
        place = draw.randrange(1, len(good))
        yield _post("bad UTF-8", path, good[:place] + bytes(draw.choices(range(0x80, 0x100), k=3)) + good[place:])
        yield _post("cut off", path, good[:place])
        yield _post("noise", path, draw.randbytes(draw.randrange(1, 200)))
    for depth in (65, 100, 1000, 10_000, 100_000):
        for start, end in ((b"[", b"]"), (b'{"a":', b"}")):
            middle = b"1" if start != b"[" else b""
            yield _post("deep", path, start * depth + middle + end * depth)
            yield _post("deep", path, start * depth)
            yield _post("deep", path, good[:-1] + b', "x": ' + start * depth + middle + end * depth + b"}")
    yield _post("huge", path, b" " * TOO_LARGE)
    yield _post("huge", path, b'{"a": "' + b"x" * TOO_LARGE + b'"}')
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "", "x"):
        yield Bad("another type", "POST", path, good, {"Content-Type": kind})
    for coding in ("utf-16", "utf-16-be", "utf-32", "utf-8-sig"):
        yield _post("another encoding", path, json.dumps(valid).encode(coding))


def methods(paths: Mapping[str, str]) -> Iterator[Bad]:
    """Methods that a path does not have; `paths` maps one to the methods that it has."""
    for path, known in paths.items():
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"):
            if method not in known:
                yield Bad("wrong method", method, path, b"{}" if method in ("POST", "PUT", "PATCH") else None)


def places(prefixes: tuple[str, ...]) -> Iterator[Bad]:
    """Paths of the URL that lead nowhere, or try to lead out."""
    ways = (
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e",
        "..%5c..",
        "%00",
        "%ff%fe",
        "%",
        "a" * 3000,
        "é%0d%0aX:y",
        "..;",
    )
    for prefix in prefixes:
        for way in ways:
            yield Bad("path of the URL", "GET", f"{prefix}/{way}", headers={})


def lies(path: str, valid: Mapping[str, Any]) -> Iterator[Bad]:
    """Bytes on a socket: wrong lengths, broken chunks, broken lines and headers."""
    good = json.dumps(valid).encode()
    start = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    for length in ("-1", "abc", "1e3", "0x10", "", "99999999999999999999", "1, 2", "+5", "5 5"):
        yield Bad("wrong length", raw=start + f"Content-Length: {length}\r\n\r\n".encode() + good)
    yield Bad("two lengths", raw=start + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + good)
    yield Bad("too short", raw=start + b"Content-Length: 3\r\n\r\n" + good)
    yield Bad("too long", raw=start + f"Content-Length: {len(good) + 50}\r\n\r\n".encode() + good)
    chunked = start + b"Transfer-Encoding: chunked\r\n\r\n"
    for body in (
        b"zz\r\nabc\r\n",
        b"-5\r\nabc\r\n",
        b"5\r\nabc",
        b"ffffffffffffffffffff\r\nx",
        b"3\r\nabcdef\r\n0\r\n\r\n",
        b"\r\n",
    ):
        yield Bad("broken chunks", raw=chunked + body)
    yield Bad("broken chunks", raw=chunked + b"1;" + b"a" * 100_000 + b"\r\n")
    for coding in (b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked"):
        yield Bad("another coding", raw=start + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + good)
    for line in (
        b"GET",
        b"GET /",
        b"GET / HTTP/1.1 x",
        b"\x00\x01\x02",
        b"G\xc3\x89T / HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /a b HTTP/1.1",
    ):
        yield Bad("broken line", raw=line + b"\r\nHost: localhost\r\n\r\n")
    for header in (b"X\x00: y", b"no colon", b": empty", b"X y: z", b"X: " + b"a" * 200_000, b"X: a\x00b"):
        yield Bad("broken header", raw=b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
    yield Bad("many headers", raw=b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000 + b"\r\n")
    yield Bad("no host", raw=b"GET /queue HTTP/1.1\r\n\r\n")
    yield Bad("another host", raw=b"GET /queue HTTP/1.1\r\nHost: evil.example\r\n\r\n")


def status(client: httpx.Client, bad: Bad, *, wait: float = 1.0) -> tuple[int, bytes]:
    """The status and body that a request is answered with; 0 where the server waits for more, or hangs up."""
    if bad.raw is not None:
        return _raw(client, bad.raw, wait)
    try:
        answer = client.request(bad.method, bad.path, content=bad.content, headers=dict(bad.headers))
    except (httpx.InvalidURL, UnicodeEncodeError):
        return -1, b""
    return answer.status_code, answer.content


def _raw(client: httpx.Client, data: bytes, wait: float) -> tuple[int, bytes]:
    url = urlsplit(str(client.base_url))
    received = b""
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=wait) as connection:
        try:
            connection.sendall(data)
            while part := connection.recv(65536):
                received += part
                if b"\r\n\r\n" in received:
                    break
        except OSError:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split(b" ")[1]), body) if head.startswith(b"HTTP/") else (0, b"")


def _post(kind: str, path: str, content: bytes) -> Bad:
    return Bad(kind, "POST", path, content)
