"""`evalkit view` shows the runs of its folder to this machine, and nothing else to anybody."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import EvalkitError
from evalkit.testing.finished import choice_row
from evalkit_report.server import ViewServer, leaderboard_page, make_server

Get = Callable[..., tuple[int, str]]


@pytest.fixture
def server(make_run: Any) -> Iterator[ViewServer]:
    """Two finished runs, one damaged, one begun, served."""
    for name, model in (("a", "small"), ("b", "large")):
        path = make_run(name, spec={"model": model}, quiz=[choice_row(0, f"asked by {name}", 0, 0)])
    (make_run("begun", quiz=[]) / "results.json").unlink()
    (make_run("damaged", quiz=[]) / "run.json").write_text("{")
    with make_server(path.parent, 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def get(server: ViewServer) -> Get:
    """`get("/")`: status and text."""

    def ask(path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        connection.request(method, path, headers={"Host": host or f"localhost:{server.server_port}"})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    return ask


def test_leaderboard_lists_every_run(get: Get) -> None:
    """Finished runs with their scores, others with their state."""
    status, text = get("/")
    assert status == 200
    for word in ("small", "large", "0.5000", "not finished", "damaged", "/report?run=a"):
        assert word in text


def test_report_on_demand(get: Get) -> None:
    """A run's report, and that of two runs."""
    assert get("/report?run=a")[0] == 200
    status, text = get("/report?run=a&run=b")
    assert status == 200
    assert "<title>a, b" in text


@pytest.mark.parametrize(
    "path",
    ["/report?run=../secret", "/report?run=..%2Fsecret", "/report?run=%2Fetc", "/../secret/run.json", "/a/run.json"],
)
def test_no_path_leaves_the_folder(get: Get, make_run: Any, tmp_path: Path, path: str) -> None:
    """Only listed runs have an address; a path is never followed."""
    (make_run("elsewhere", quiz=[])).rename(tmp_path / "secret")
    status, text = get(path)
    assert status == 404
    assert "spec" not in text


def test_links_out_of_the_folder_are_not_followed(get: Get, server: ViewServer, tmp_path: Path, make_run: Any) -> None:
    """A run folder that is a link to elsewhere, or holds one, is not there."""
    outside = make_run("moved", quiz=[]).rename(tmp_path / "outside")
    (server.root / "linked").symlink_to(outside)
    (server.root / "a" / "samples_quiz.jsonl").unlink()
    (server.root / "a" / "samples_quiz.jsonl").symlink_to(outside / "samples_quiz.jsonl")
    assert get("/report?run=linked")[0] == 404
    assert get("/report?run=a")[0] == 404
    assert get("/report?run=b")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost", "127.0.0.1:1", "localhost.evil.example"]
)
def test_other_hosts_are_refused(get: Get, host: str) -> None:
    """A request that names another host gets nothing: no site can read the runs through its own name."""
    assert get("/", host=host)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(get: Get, method: str) -> None:
    """Only GET and HEAD are answered."""
    assert get("/", method=method)[0] == 501


def test_unusable_run_is_one_line(get: Get, server: ViewServer) -> None:
    """A run that cannot be shown says why."""
    (server.root / "b" / "samples_quiz.jsonl").write_text("{")
    for path, part in (
        ("/report?run=begun", "not finished"),
        ("/report?run=b", "damaged"),
        ("/report", "no run was chosen"),
    ):
        status, text = get(path)
        assert (status, part in text) == (422, True)
        assert "\n" not in text


def test_it_listens_to_this_machine_only(server: ViewServer) -> None:
    """The address is the loopback one."""
    assert server.server_address[0] == "127.0.0.1"


def test_taken_port_is_refused(server: ViewServer) -> None:
    """A port in use is one line with the way out."""
    with pytest.raises(EvalkitError, match="Choose another with --port"):
        make_server(server.root, server.server_port)


def test_sorting_and_comparing(browser: Any, server: ViewServer, tmp_path: Path) -> None:
    """In a browser, a heading sorts, and ticked runs open as one report."""
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    models = page.locator("#board tbody tr td:nth-child(3)")
    page.get_by_role("button", name="Model").click()
    assert [text for text in models.all_inner_texts() if text in ("small", "large")] == ["large", "small"]
    page.get_by_role("button", name="Model").click()
    assert [text for text in models.all_inner_texts() if text in ("small", "large")] == ["small", "large"]
    page.screenshot(path=tmp_path / "leaderboard.png")
    page.get_by_label("Compare a").check()
    page.get_by_label("Compare b").check()
    page.get_by_role("button", name="Report of the chosen runs").click()
    page.wait_for_selector("body[data-ready]")
    assert page.locator("#rows tbody tr").count() == 2
    page.close()


def test_leaderboard_has_speed_and_cost(make_run: Any) -> None:
    """Tokens a second and joules of the runs that have them, in columns of their own that sort by numbers."""
    counted = {"tokens": {"requested": 300, "unique": 100, "computed": 150}, "speed": {"tokens_out": 60}, "joules": 7.5}
    path = make_run("counted", more={**counted, "seconds": {"inference": 10}}, quiz=[])
    make_run("plain", quiz=[])
    text = leaderboard_page(path.parent)
    for part in ("Tokens in<br>", 'data-value="24.0">24<', 'data-value="6.0">6<', 'data-value="25.0">25.0<'):
        assert text.count(part) == 1
