"""A reader's way through a report, in headless Chromium. Screenshots stay in the test's temporary folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.reading.finished import open_runs
from evalkit.testing.finished import choice_row, generated_row
from evalkit_report.page import write_report

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
Open = Callable[..., Any]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """`show(run, run)`: the report of these runs in a browser tab. Nothing may go wrong in it."""
    problems: list[str] = []
    contexts = []

    def open_page(*runs: Path, **options: Any) -> Any:
        report = write_report(open_runs(runs), tmp_path / "report.html")
        contexts.append(context := browser.new_context(**options))
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on(
            "request", lambda request: problems.append(request.url) if request.url != report.path.as_uri() else None
        )
        page.goto(report.path.as_uri())
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def pair(make_run: Any) -> list[Path]:
    """Two runs of 120 documents, of which every tenth flips and one fails."""
    first = [choice_row(i, f"Question number {i}?", i % 3, 0) for i in range(120)]
    second = [choice_row(i, f"Question number {i}?", i % 3 if i % 10 else (i + 1) % 3, 0) for i in range(120)]
    second[7] = choice_row(7, "Question number 7?", 0, error="the request was too long")
    return [make_run("first", quiz=first), make_run("second", quiz=second)]


def status(page: Any, text: str) -> None:
    """Wait until the page says this about its samples."""
    from playwright.sync_api import expect

    expect(page.locator("#status")).to_have_text(re.compile(text))


def test_page_shows_all_parts(show: Open, real_run: Path, tmp_path: Path) -> None:
    """Scores, plots, counters, samples and settings are there, and the list is paged."""
    page = show(real_run)
    page.screenshot(path=tmp_path / "report-light.png", full_page=True)
    assert page.locator("h2").all_inner_texts() == ["Scores", "Plots", "Speed and cost", "Samples", "Settings"]
    assert page.locator("#rows tbody tr").count() == 50
    page.get_by_role("button", name="Next page").click()
    assert page.locator("#rows tbody tr").count() == 12
    assert page.locator("figure svg").count() >= 2


def test_dark_mode(show: Open, real_run: Path, tmp_path: Path) -> None:
    """The page follows the reader's light or dark setting, and text stands out in both."""
    lightness = {}
    for scheme in ("light", "dark"):
        page = show(real_run, color_scheme=scheme)
        page.screenshot(path=tmp_path / f"report-{scheme}.png")
        colours = page.locator("body").evaluate("e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]")
        lightness[scheme] = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours]
    assert lightness["light"][0] > 600 > 200 > lightness["light"][1]
    assert lightness["dark"][1] > 600 > 200 > lightness["dark"][0]


def test_filters(show: Open, pair: list[Path]) -> None:
    """Right, wrong, error and flipped each show their samples, in the run that is chosen."""
    page = show(*pair)
    for run, verdict, count in (("0", "r", 40), ("0", "w", 80), ("0", "e", 0), ("1", "e", 1), ("1", "flipped", 8)):
        page.locator("#run").select_option(run)
        page.locator("#verdict").select_option(verdict)
        status(page, f"^{count} of 120 samples$")
    page.locator("#rows button").first.click()
    page.wait_for_selector("#detail:not([hidden])")
    assert "first: right" in page.locator("#detail").inner_text()
    assert "second: wrong" in page.locator("#detail").inner_text()


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("question number 11?", 1),
        ("Question number 11", 11),
        ("TOO LONG", 1),
        ("green", 120),
        ("filtered", 0),
        ('"', 0),
    ],
)
def test_search(show: Open, pair: list[Path], words: str, count: int) -> None:
    """Search finds texts of prompts, answers and errors, in any case, and no names of fields."""
    page = show(*pair)
    page.locator("#query").fill(words)
    status(page, f"^{count} of 120 samples$")


def test_keyboard(show: Open, pair: list[Path], tmp_path: Path) -> None:
    """A reader without a mouse searches, walks through the list and its pages, opens a sample and comes back."""
    page = show(*pair)
    focused = "() => document.activeElement.textContent"
    page.keyboard.press("/")
    page.keyboard.type("question")
    page.keyboard.press("Enter")
    page.wait_for_selector("#rows button:focus")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail h3:has-text('document 1')")
    page.screenshot(path=tmp_path / "sample.png")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#detail h3:has-text('document 2')")
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == "2"
    page.keyboard.press("PageDown")
    assert page.evaluate(focused) == "50"
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == "49"


def test_tables_have_names_and_headings(show: Open, pair: list[Path]) -> None:
    """Every table has a caption and headings, every control a label, for those who listen to the page."""
    page = show(*pair)
    page.locator("#rows button").first.click()
    page.wait_for_selector("#detail:not([hidden])")
    for table in page.locator("table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("th[scope]").count() > 0
    for control in page.locator("input, select").all():
        assert control.evaluate("e => e.labels.length") == 1


def test_hostile_texts_do_nothing(show: Open, make_run: Any) -> None:
    """Markup in a run's texts is shown as text."""
    samples = [
        choice_row(0, HOSTILE, 0, 0),
        generated_row(1, HOSTILE, HOSTILE, HOSTILE),
        choice_row(2, "?", 0, error=HOSTILE),
    ]
    path = make_run("hostile", spec={"model": HOSTILE}, more={"warnings": [HOSTILE]}, quiz=samples)
    page = show(path)
    for row in range(3):
        page.locator("#rows button").nth(row).click()
        page.wait_for_selector(f"#detail h3:has-text('document {row}')")
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("#detail pre").all_inner_texts()


def test_many_samples_are_light(show: Open, make_run: Any) -> None:
    """Of 5,000 samples the page holds one page of rows, and search reaches the last."""
    path = make_run("many", quiz=[choice_row(i, f"Question {i} " + "word " * 60, i % 3, 0) for i in range(5000)])
    page = show(path)
    assert page.locator("#rows tbody tr").count() == 50
    page.locator("#query").fill("Question 4999")
    status(page, "^1 of 5000 samples$")
