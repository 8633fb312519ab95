"""Serve a folder of runs: read only, to this machine alone, nothing but runs."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from evalkit.errors import ConfigError, EvalkitError, RunNotFoundError, one_line
from evalkit.reading.finished import open_run
from evalkit_report.leaderboard import SPEED, leaderboard, run_paths
from evalkit_report.page import render, render_report

LOOPBACK = "127.0.0.1"
HOSTS = (LOOPBACK, "localhost")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    """Listens on the loopback address only."""

    daemon_threads = True

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        super().__init__((LOOPBACK, port), Handler)


class Handler(BaseHTTPRequestHandler):
    """Two pages: `/` is the leaderboard, `/report?run=NAME[&run=NAME]` a report."""

    server: ViewServer
    timeout = 60

    def do_GET(self) -> None:
        """Answer with a page."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer with a page's headers."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal shows the address only."""

    def _answer(self) -> None:
        if not self._is_for_us():
            return self._send(HTTPStatus.FORBIDDEN, "this server answers to its own address only", "text/plain")
        address = urlsplit(self.path)
        pages: dict[str, Callable[[], str]] = {
            "/": lambda: leaderboard_page(self.server.root),
            "/report": lambda: report_page(self.server.root, parse_qs(address.query).get("run", [])),
        }
        if address.path not in pages:
            return self._send(HTTPStatus.NOT_FOUND, "there is no such page. The leaderboard is at /", "text/plain")
        try:
            self._send(HTTPStatus.OK, pages[address.path](), "text/html")
        except RunNotFoundError as error:
            self._send(HTTPStatus.NOT_FOUND, one_line(error), "text/plain")
        except EvalkitError as error:
            self._send(HTTPStatus.UNPROCESSABLE_ENTITY, one_line(error), "text/plain")

    def _is_for_us(self) -> bool:
        # Another site's name that resolves to this machine must not let that site's scripts read the runs.
        return self.headers.get("Host", "") in {f"{host}:{self.server.server_port}" for host in HOSTS}

    def _send(self, status: HTTPStatus, text: str, kind: str) -> None:
        data = text.encode(errors="replace")
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def make_server(root: Path, port: int) -> ViewServer:
    """A server of the runs below `root`. Raises ConfigError where the port is taken."""
    try:
        return ViewServer(root, port)
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used ({error.strerror}). Choose another with --port") from error


def leaderboard_page(root: Path) -> str:
    """All runs beside each other."""
    columns, entries = leaderboard(root)
    return render("leaderboard.html", "leaderboard.js", root=root, columns=columns, entries=entries, speed=SPEED)


def report_page(root: Path, names: list[str]) -> str:
    """The report of the runs of these names. Only what the leaderboard lists has a name: no path is followed."""
    if not names:
        raise ConfigError("no run was chosen. Go back and tick one or more")
    known = run_paths(root)
    for name in names:
        if name not in known:
            raise RunNotFoundError(f"no run {name!r} here. The leaderboard at / lists them")
    return render_report([open_run(known[name], name) for name in dict.fromkeys(names)])[0]
