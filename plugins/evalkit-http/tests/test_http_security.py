"""The guards of both servers, asked by real clients over real sockets."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.errors import ConfigError
from evalkit.testing.waiting import eventually
from evalkit_http.security import (
    Caller,
    ForbiddenError,
    SecuritySettings,
    Tokens,
    allowed_model,
    allowed_path,
    check_bind,
    checked_arguments,
    requires,
    secure,
    without_tokens,
)
from evalkit_http.security.bodies import BadBodyError, check_json
from evalkit_http.security.rates import Rates
from evalkit_http.security.redaction import Cleaner

SUBMITTER, READER, ADMIN = "submit-" + "s" * 20, "reader-" + "r" * 20, "admin-" + "a" * 20
TOKENS = Tokens.parse([f"submit:{SUBMITTER}", f"read:{READER}", f"admin:{ADMIN}"], "the test")
SCALARS = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text()
JSON = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
HEAD = b"POST /submit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
settings.register_profile("evalkit-http", deadline=None)
settings.load_profile("evalkit-http")
Serve = Callable[..., httpx.Client]


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The app on a free port of loopback, in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="info", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def echo_app() -> FastAPI:
    """An app with a route for each scope, one that fails and one that an expected error ends."""
    app = FastAPI()

    @app.post("/submit")
    def submit(body: dict[str, Any], caller: Annotated[Caller, Depends(requires("submit"))]) -> dict[str, Any]:
        return {"body": body, "caller": caller.name}

    @app.get("/read", dependencies=[Depends(requires("read"))])
    def read() -> list[int]:
        return [1]

    @app.get("/forgotten")
    def forgotten() -> str:
        return "open"

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.get("/bug")
    def bug(token: str = "") -> None:
        raise RuntimeError(f"the secret inside is {ADMIN} {token}")

    @app.get("/expected")
    def expected() -> None:
        raise ConfigError("this cannot be used. Send another")

    return app


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(errors=..., **settings)`: a client of a guarded server."""
    with ExitStack() as stack:

        def start(errors: str = "detail", **options: Any) -> httpx.Client:
            app = echo_app()
            secure(app, SecuritySettings(**options), errors=errors)
            return stack.enter_context(httpx.Client(base_url=stack.enter_context(running(app))))

        yield start


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def raw(client: httpx.Client, request: bytes, *, wait: float = 5.0) -> bytes:
    """What the server answers to these bytes."""
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=wait) as connection:  # type: ignore[arg-type]
        connection.sendall(request)
        parts = []
        try:
            while part := connection.recv(65536):
                parts.append(part)
                if b"\r\n\r\n" in part:
                    break
        except ConnectionResetError:
            pass
    return b"".join(parts)


def test_each_scope_opens_its_routes_only(serve: Serve) -> None:
    """A token does what its scopes say, admin everything, and no other word is a token."""
    client = serve(tokens=TOKENS)
    status = {
        name: (
            client.post("/submit", json={}, headers=bearer(token)).status_code,
            client.get("/read", headers=bearer(token)).status_code,
        )
        for name, token in {"submit": SUBMITTER, "read": READER, "admin": ADMIN, "wrong": ADMIN + "x"}.items()
    }
    assert status == {"submit": (200, 403), "read": (403, 200), "admin": (200, 200), "wrong": (401, 401)}
    refused = client.get("/read", headers=bearer(SUBMITTER)).json()
    assert refused == {"detail": "this token may not read. Ask the operator for one with the scope 'read'"}


def test_a_route_without_a_scope_still_needs_a_token(serve: Serve) -> None:
    """Nothing is open because somebody forgot it: only the listed paths are."""
    client = serve(tokens=TOKENS)
    assert client.get("/forgotten").status_code == 401
    assert client.get("/nowhere").status_code == 401
    assert client.get("/forgotten", headers=bearer(READER)).status_code == 200
    assert client.get("/health").status_code == 200
    assert client.get("/forgotten").headers["www-authenticate"] == "Bearer"


def test_without_tokens_an_empty_bearer_is_fine(serve: Serve) -> None:
    """A server without tokens takes what lm-eval sends."""
    client = serve()
    assert client.post("/submit", json={"a": 1}, headers={"Authorization": "Bearer"}).json()["caller"] == "anyone"


def test_the_body_limit_counts_chunks_too(serve: Serve) -> None:
    """A body without a length cannot be larger than one with."""
    client = serve(max_body_bytes=1000)
    fitting = b'{"a": "' + b"x" * 900 + b'"}'
    kind = {"Content-Type": "application/json"}
    assert client.post("/submit", content=iter([fitting]), headers=kind).status_code == 200
    for body in (b" " * 1001, iter([b" " * 400] * 3)):
        answer = client.post("/submit", content=body, headers=kind)
        assert (answer.status_code, answer.json()) == (413, {"detail": "the body is larger than 1000 bytes. Send less"})


def test_a_huge_announced_body_is_refused_at_once(serve: Serve) -> None:
    """The server waits for no body that it will not take."""
    assert raw(serve(), HEAD + b"Content-Length: 999999999999\r\n\r\n").startswith(b"HTTP/1.1 413")


def test_a_body_that_never_comes_ends(serve: Serve) -> None:
    """A client that announces a body and sends half of it is answered."""
    assert raw(serve(body_seconds=0.2), HEAD + b"Content-Length: 100\r\n\r\n{").startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"a": 9223372036854775808}', "too large"),
        (b'{"a": ' + b"[" * 65 + b"]" * 65 + b"}", "nested"),
        (b"[" * 200_000, "nested"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\uDC00": 1}', "surrogate"),
        (b'{"a": 1', "no JSON"),
        (b"\x00", "no JSON"),
    ],
)
def test_bad_json_is_a_clear_400(serve: Serve, body: bytes, cause: str) -> None:
    """What no handler can hold is refused with its cause."""
    answer = serve().post("/submit", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert cause in answer.json()["detail"]


@given(JSON)
def test_good_json_passes(value: Any) -> None:
    """Every value that JSON has and a database holds is accepted, escaped or not."""
    import json

    check_json(json.dumps(value).encode())
    check_json(json.dumps(value, ensure_ascii=False).encode())


@given(st.binary())
def test_any_bytes_are_judged(body: bytes) -> None:
    """No bytes raise anything but the one error."""
    try:
        check_json(body)
    except BadBodyError:
        return


def test_other_types_of_body_are_refused(serve: Serve) -> None:
    """A form of another site's page cannot post: its types are not taken."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert serve().post("/submit", content=b"{}", headers={"Content-Type": kind}).status_code == 415


def test_pages_of_other_sites_are_refused(serve: Serve) -> None:
    """Neither another origin nor a name that was rebound to loopback gets an answer."""
    client = serve()
    assert client.get("/read", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get("/read", headers={"Origin": "null"}).status_code == 403
    assert client.get("/read", headers={"Origin": str(client.base_url).rstrip("/")}).status_code == 200
    assert client.get("/read", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/read", headers={"Host": f"localhost:{client.base_url.port}"}).status_code == 200
    assert serve(tokens=TOKENS).get("/read", headers={"Host": "name", **bearer(READER)}).status_code == 200
    assert serve(allowed_hosts=("eval.example",)).get("/read", headers={"Host": "EVAL.example:80"}).status_code == 200


def test_too_many_requests_wait(serve: Serve) -> None:
    """Beyond its burst a client reads 429 and when to come back; another client is not affected."""
    client = serve(tokens=TOKENS, requests_per_second=0.2)
    codes = [client.get("/read", headers=bearer(READER)).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    late = client.get("/read", headers=bearer(READER))
    assert 1 <= int(late.headers["retry-after"]) <= 5
    assert client.get("/read", headers=bearer(ADMIN)).status_code == 200


def test_buckets_refill() -> None:
    """A client may ask again as time goes by, but never for more than its burst."""
    now = [0.0]
    rates = Rates(1.0, clock=lambda: now[0])
    assert [rates.take("a") for _ in range(11)] == [0.0] * 10 + [1.0]
    now[0] = 1.0
    assert rates.take("a") == 0.0
    now[0] = 10_000.0
    assert [rates.take("a") for _ in range(11)].count(0.0) == 10


def test_every_answer_has_the_security_headers(serve: Serve) -> None:
    """Refusals and bugs as well as answers."""
    client = serve(tokens=TOKENS)
    for path in ("/health", "/forgotten", "/docs"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_bugs_and_expected_errors_in_both_shapes(serve: Serve) -> None:
    """A bug says nothing of its inside; an expected error is one line; both in the server's shape."""
    detail, openai = serve(), serve(errors="openai")
    assert detail.get("/bug").json() == {"detail": "internal error; the server's log says more"}
    error = openai.get("/bug").json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", 500, None)
    assert detail.get("/expected").json() == {"detail": "this cannot be used. Send another"}
    assert openai.get("/expected").json()["error"]["type"] == "invalid_request_error"
    assert openai.get("/nowhere").json()["error"]["type"] == "not_found_error"
    invalid = openai.post("/submit", json=[1])
    assert (invalid.status_code, invalid.json()["error"]["message"]) == (
        400,
        "body: Input should be a valid dictionary",
    )
    problem = detail.post("/submit", json=["my input"])
    assert problem.status_code == 422
    assert "my input" not in problem.text


def test_no_secret_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a token in a URL, nor one in a traceback."""
    client = serve(tokens=TOKENS)
    loggers = [logging.getLogger(name) for name in ("uvicorn.access", "uvicorn.error")]
    with caplog.at_level(logging.INFO):
        for logger in loggers:
            logger.addHandler(caplog.handler)
        client.get("/bug", params={"token": SUBMITTER}, headers=bearer(ADMIN))
    for logger in loggers:
        logger.removeHandler(caplog.handler)
    ours = [caplog.handler.format(record) for record in caplog.records if not record.name.startswith("http")]
    text = "\n".join(ours)
    assert "GET /bug?token=***" in text
    assert "the secret inside is ***" in text
    assert not any(token in text for token in (SUBMITTER, ADMIN))


def test_loggers_below_are_clean_too(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A record of any module of the servers, a secret inside an exception among its arguments included."""
    serve(tokens=TOKENS)
    below = logging.getLogger("evalkit_http.openai.scheduler")
    with caplog.at_level(logging.INFO):
        below.warning("asked with %s: %s (%d)", ADMIN, RuntimeError(f"no {SUBMITTER}"), 3)
        below.warning("%(token)s", {"token": READER})
        logging.getLogger("somebody.else").warning("kept as it is: %s", [1])
    assert [record.getMessage() for record in caplog.records[-3:]] == [
        "asked with ***: no *** (3)",
        "***",
        "kept as it is: [1]",
    ]


def test_secrets_of_every_kind_are_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, headers, secrets of the environment and shapes of keys; plain words stay."""
    monkeypatch.setenv("SOME_API_KEY", "a-secret-of-the-environment")
    key, ours = f"hf_{'a' * 20}", "a-secret-of-the-environment"
    text = f"x={ADMIN} Authorization: Bearer abc; {key}, ({ours}) https://me:pw@host/x max_tokens=5"
    cleaned = Cleaner(TOKENS).text(text)
    assert cleaned == "x=*** Authorization: Bearer *** ***, (***) *** max_tokens=5"


def test_the_example_of_the_page_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/security.md."""
    page = (Path(__file__).parents[3] / "docs" / "security.md").read_text(encoding="utf-8")
    program, _, rest = page.partition("```python\n")[2].partition("```")
    exec(program, {})
    assert capsys.readouterr().out == rest.partition("```text\n")[2].partition("```")[0]


def test_tokens_come_from_a_file_and_the_environment(tmp_path: Path) -> None:
    """Both are read; neither a mistake nor a repr shows a token."""
    file = tmp_path / "tokens"
    file.write_text(f"# trainers\nsubmit,read:{SUBMITTER}\n\n", encoding="utf-8")
    tokens = Tokens.read(file, {"EVALKIT_TOKENS": f"{ADMIN} read:{READER}"})
    found = [tokens.caller(token) for token in (SUBMITTER, ADMIN, READER)]
    assert [sorted(caller.scopes) for caller in found if caller] == [
        ["read", "submit"],
        ["admin", "read", "submit"],
        ["read"],
    ]
    assert SUBMITTER not in repr(tokens)
    for wrong in ("short", f"write:{ADMIN}", f"submit:{'é' * 20}"):
        with pytest.raises(ConfigError) as error:
            Tokens.parse([wrong], "EVALKIT_TOKENS")
        assert "token 1 of EVALKIT_TOKENS" in str(error.value)
        assert wrong.rpartition(":")[2] not in str(error.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokens.read(tmp_path / "none", {})
    assert without_tokens({"EVALKIT_TOKENS": ADMIN, "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "eval.example", "192.168.1.5"])
def test_binding_elsewhere_needs_a_token_or_a_flag(host: str) -> None:
    """Nobody opens a server to the network by accident."""
    with pytest.raises(ConfigError, match="has no token"):
        check_bind(host, SecuritySettings())
    check_bind(host, SecuritySettings(tokens=TOKENS))
    check_bind(host, SecuritySettings(allow_unauthenticated=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8", "[::1]"])
def test_loopback_needs_none(host: str) -> None:
    """The default is open to this machine only."""
    check_bind(host, SecuritySettings())


def test_paths_stay_inside_the_roots(tmp_path: Path) -> None:
    """Links, `..`, devices and odd characters lead nowhere."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "model").mkdir(parents=True)
    outside.mkdir()
    (root / "out").symlink_to(outside)
    (root / "in").symlink_to(root / "model")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo")
    roots = [root]
    assert allowed_path(root / "model", roots) == root / "model"
    assert allowed_path("model", roots) == root / "model"
    assert allowed_path("in", roots) == root / "model"
    assert allowed_path("new/folder", roots) == root / "new" / "folder"
    bad = ["out", "out/x", "../outside", "model/../../outside", str(outside), "/etc/passwd", "", " ", "a\0b", "\ud800"]
    bad += ["fifo", "loop", "~", "file:model", "/dev/null", "/dev/zero", f"{root}x", "x" * 5000, "/proc/self/root/etc"]
    for path in bad:
        with pytest.raises(ForbiddenError):
            allowed_path(path, roots)
    with pytest.raises(ForbiddenError):
        allowed_path("model", [])


@given(st.text())
def test_no_text_leads_outside(text: str) -> None:
    """Whatever a client writes, the answer is a path inside or the one error."""
    root = Path("/nowhere-at-all")
    try:
        found = allowed_path(text, [root])
    except ForbiddenError:
        return
    assert found.is_relative_to(root)


def test_models_and_arguments_are_checked(tmp_path: Path) -> None:
    """A hub's name passes; a path anywhere in the arguments must be allowed; remote code is the operator's choice."""
    limits = SecuritySettings(model_roots=(tmp_path,), output_roots=(tmp_path,))
    assert allowed_model("Qwen/Qwen3-4B", limits) == "Qwen/Qwen3-4B"
    assert allowed_model(str(tmp_path), limits) == str(tmp_path)
    checked_arguments({"pretrained": str(tmp_path / "a"), "dtype": "bfloat16", "n": [1, 2]}, limits)
    for arguments in (
        {"pretrained": "/etc"},
        {"deep": [{"peft": "../other"}]},
        {"tokenizer_path": "~/keys"},
        {"path": "file:///etc/passwd"},
    ):
        with pytest.raises(ForbiddenError):
            checked_arguments(arguments, limits)
    for value in (True, "true", 1):
        with pytest.raises(ForbiddenError, match="trust_remote_code"):
            checked_arguments({"a": {"trust_remote_code": value}}, limits)
        with pytest.raises(ForbiddenError, match="trust_remote_code"):
            checked_arguments({"Trust-Remote-Code": value}, limits)
    for value in (False, None, 0, "false", "No"):
        checked_arguments({"trust_remote_code": value}, limits)
    checked_arguments({"trust_remote_code": True}, SecuritySettings(trust_remote_code=True))
