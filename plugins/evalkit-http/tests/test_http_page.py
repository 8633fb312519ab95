"""The page of the service in headless Chromium, beside a real server. Screenshots stay in the temporary folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from evalkit.testing.browser import headless_chromium
from evalkit_http.security import SecuritySettings, Tokens

FAKE = {"model": "evalkit.testing.fake:Fake", "tasks": ["starter_questions"], "limit": 3}
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
TOKEN = "page-" + "t" * 20
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    with headless_chromium() as browser:
        yield browser


@pytest.fixture
def show(browser: Any) -> Iterator[Open]:
    """`show(url)`: the page of a server in a tab. Nothing may go wrong in it, and it asks no other server."""
    problems: list[str] = []
    contexts = []

    def open_page(url: str, **options: Any) -> Any:
        contexts.append(context := browser.new_context(**options))
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if "401" not in message.text else None)
        page.on("request", lambda request: None if request.url.startswith(url) else problems.append(request.url))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(f"{url}/")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def says(page: Any, selector: str, text: str) -> None:
    """Wait until an element says this."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_contain_text(re.compile(text), timeout=60_000)


def job(model: str, **more: Any) -> dict[str, Any]:
    return {**FAKE, "model_args": {"pretrained": model, **more.pop("arguments", {})}, **more}


def test_jobs_appear_run_and_end_while_one_looks(serve: Callable[..., Any], show: Open, tmp_path: Path) -> None:
    """An empty server says so; a job is seen running with its progress, another waiting; both end in the results."""
    server = serve()
    page = show(server.url)
    for selector, text in (("#running", "Nothing runs"), ("#queue", "Nothing waits"), ("#scores", "No results yet")):
        says(page, selector, text)
    slow = job("runs/epoch_1", tasks=["starter_arithmetic"], limit=20, arguments={"delay": 0.4})
    server.client.evaluate(**slow)
    server.client.evaluate(**job("runs/epoch_2", tasks=["starter_arithmetic"]))
    says(page, "#running", r"runs/epoch_1 starter_arithmetic")
    says(page, "#running", r"[1-9]\d* of 20 requests")
    says(page, "#queue", r"runs/epoch_2")
    assert 0 < float(page.locator("progress").get_attribute("value")) <= 20
    page.screenshot(path=tmp_path / "running.png", full_page=True)
    says(page, "#counts", r"0 running · 0 waiting · 2 completed · 0 failed")
    says(
        page,
        "#scores",
        r"runs/epoch_N\s*starter_arithmetic\s*exact_match,last-number\s*[\d.]+\s*[\d.]+ – [\d.]+\s*2: history",
    )
    says(page, "#ended", r"completed\s*runs/epoch_2")


def test_results_have_a_history_and_a_filter(serve: Callable[..., Any], show: Open, tmp_path: Path) -> None:
    """A row's history is a chart and a table of the checkpoints; the filter works from the keyboard."""
    from playwright.sync_api import expect

    server = serve()
    for number in (1, 2, 3):
        assert server.run(**job(f"run-a/step_{number}", limit=number + 2))["status"] == "completed"
    server.run(**job("other", tasks=["starter_prose"]))
    page = show(server.url, color_scheme="dark")
    rows = page.locator("#scores tbody tr")
    expect(rows).to_have_count(5, timeout=30_000)
    page.get_by_role("button", name="History of acc,none of starter_questions, run-a/step_N").click()
    says(page, "#history h3", "acc,none of starter_questions: run-a/step_N")
    assert page.locator("#history circle").count() == 3
    assert page.locator("#history line.interval").count() == 3
    assert page.locator("#history tbody th").all_text_contents() == ["run-a/step_3", "run-a/step_2", "run-a/step_1"]
    page.screenshot(path=tmp_path / "history.png", full_page=True)
    page.locator("body").press("/")
    page.keyboard.type("prose bits")
    expect(rows).to_have_count(1)
    page.keyboard.press("Escape")
    expect(rows).to_have_count(5)
    page.locator("#task").select_option("starter_prose")
    expect(rows).to_have_count(3)


def test_what_others_wrote_stays_text(serve: Callable[..., Any], show: Open) -> None:
    """A model's name, an error and a log are shown, never read as HTML."""
    server = serve()
    server.run(**job(HOSTILE))
    failed = server.run(**job("any", tasks=["starter_arithmetic"], arguments={"fail_on": " "}))
    assert failed["status"] in ("failed", "completed")
    page = show(server.url)
    says(page, "#scores", re.escape(HOSTILE))
    page.get_by_role("button", name="Log").first.click()
    assert page.locator("#log-view[open] #log-text").text_content()
    assert page.title() == "Evaluations"
    assert page.locator("main img").count() == 0


def test_a_running_job_is_cancelled_from_the_page(serve: Callable[..., Any], show: Open) -> None:
    """The button asks once and stops the job."""
    server = serve()
    name = server.client.evaluate(**job("any", limit=40, arguments={"delay": 1.0}))["job_id"]
    page = show(server.url)
    page.get_by_role("button", name=f"Cancel {name}").click(timeout=60_000)
    says(page, "#ended", f"{name}\\s*cancelled")
    says(page, "#running", "Nothing runs")


def test_a_token_is_asked_for_once(serve: Callable[..., Any], show: Open) -> None:
    """A wrong token is refused, the right one stays in this tab, and other tabs know nothing of it."""
    settings = SecuritySettings(tokens=Tokens.parse([TOKEN], "the test"))
    server = serve(security=settings)
    page = show(server.url)
    page.locator("#token").fill("wrong-" + "x" * 20)
    page.keyboard.press("Enter")
    says(page, "#token-hint", "does not know")
    page.locator("#token").fill(TOKEN)
    page.keyboard.press("Enter")
    says(page, "#running", "Nothing runs")
    page.reload()
    says(page, "#running", "Nothing runs")
    assert not page.locator("#ask-token").is_visible()
    assert TOKEN not in page.content()
    page.get_by_role("button", name="Forget the token").click()
    page.locator("#token").wait_for(state="visible")


def test_the_report_of_a_job_opens(serve: Callable[..., Any], show: Open) -> None:
    """A link leads to the report, which lives in a sandbox of its own."""
    pytest.importorskip("evalkit_report")
    server = serve()
    ended = server.run(**job("any"))
    answer = httpx.get(f"{server.url}/jobs/{ended['job_id']}/report", timeout=120)
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("sandbox ")
    assert "starter_questions" in answer.text
    page = show(server.url)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report").click(timeout=60_000)
    says(opened.value, "body[data-ready]", "starter_questions")
    missing = httpx.get(f"{server.url}/jobs/nothing/report")
    assert missing.status_code == 404


def test_the_page_needs_no_other_server_and_no_token(serve: Callable[..., Any]) -> None:
    """Its files are the package's own, under a policy that allows nothing else."""
    server = serve(security=SecuritySettings(tokens=Tokens.parse([TOKEN], "the test")))
    index = httpx.get(f"{server.url}/")
    assert "default-src 'none'" in index.headers["content-security-policy"]
    for path in re.findall(r'(?:src|href)="(page/[^"]+)"', index.text):
        answer = httpx.get(f"{server.url}/{path}")
        assert answer.status_code == 200, path
        assert not re.search(r"https?://(?!www\.w3\.org)", answer.text), path
        assert "innerHTML" not in answer.text
    assert httpx.get(f"{server.url}/page/..%2f__init__.py").status_code == 404
    assert httpx.get(f"{server.url}/queue").status_code == 401
