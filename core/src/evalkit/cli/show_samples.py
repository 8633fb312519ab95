"""Samples in the terminal: a page of a list, or one document in full."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from evalkit.cli.output import print_json, print_table, printable
from evalkit.cli.tables import number
from evalkit.errors import ConfigError

if TYPE_CHECKING:
    from evalkit.reading.aligned import Aligned
    from evalkit.reading.find import Found
    from evalkit.reading.finished import Run

WIDEST, NARROWEST = 110, 16
"""Characters of a text in a list."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of `evalkit show` about samples, by their names."""

    run: str
    samples: str | None = None
    only: str | None = None
    against: str | None = None
    search: str | None = None
    doc: int | None = None
    limit: int = 20
    skip: int = 0

    def next_page(self) -> str:
        """The command that shows what comes behind this page."""
        words = ["evalkit", "show", self.run]
        for field in fields(self)[1:]:
            value = self.skip + self.limit if field.name == "skip" else getattr(self, field.name)
            if value is not None:
                words += [f"--{field.name}", str(value)]
        return shlex.join(words)


def show_samples(paths: Sequence[Path], asked: Asked, as_json: bool) -> None:
    """Print the samples that were asked for, of one run or of two beside each other."""
    from evalkit.reading.find import chosen_task, find, whole
    from evalkit.reading.finished import open_runs

    runs = open_runs(paths)
    task = chosen_task(runs[0], asked.samples)
    found = list(find(runs, task, only=asked.only, search=asked.search, doc_id=asked.doc))
    if asked.doc is not None and not found:
        hint = " that is asked for" if asked.only or asked.search else ""
        raise ConfigError(f"task {task} has no document {asked.doc}{hint}. See: evalkit show {asked.run}")
    page = found[asked.skip : asked.skip + asked.limit]
    shown = [(item, whole(runs, task, item)) for item in page]
    if as_json:
        samples = [_as_json(runs, item, rows) for item, rows in shown]
        return print_json({"task": task, "found": len(found), "skipped": asked.skip, "samples": samples})
    if asked.doc is not None:
        for item, rows in shown:
            _print_document(runs, task, item, rows)
        return
    _print_list(runs, shown)
    _print_place(asked, len(page), len(found))


def _as_json(runs: Sequence[Run], item: Found, rows: Aligned) -> dict[str, Any]:
    from evalkit.reading.find import WORDS
    from evalkit.reading.samples import describe

    shown = describe(rows)
    verdicts = zip(runs, item.verdicts, shown["runs"], strict=True)
    told = [{"run": run.label, "verdict": WORDS[letter] or None, **(own or {})} for run, letter, own in verdicts]
    return {"doc_id": item.doc_id, "filter": item.filter, **shown, "runs": told}


def _print_list(runs: Sequence[Run], shown: Sequence[tuple[Found, Aligned]]) -> None:
    from evalkit.reading.samples import answer_text, preview, prompt_end, target_text

    names = [run.label for run in runs] if len(runs) > 1 else [""]
    with_filter = any(item.filter != "none" for item, _ in shown)
    width = _text_width(len(runs) + 2, sum(map(len, names)) + 30)
    rows = []
    for item, found in shown:
        first = next(row for row in found if row is not None)
        texts = [*(preview(answer_text(row), width=width) for row in found), preview(target_text(first), width=width)]
        rows.append(
            (
                item.doc_id,
                *([item.filter] if with_filter else []),
                *(_verdict(row, letter) for row, letter in zip(found, item.verdicts, strict=True)),
                *map(printable, (*texts, prompt_end(found, width=width))),
            )
        )
    verdicts = tuple(f"{name} verdict".strip() for name in names)
    answers = tuple(f"{name} answer".strip() for name in names)
    filters = ("filter",) if with_filter else ()
    print_table(("document", *filters, *verdicts, *answers, "target", "prompt, its end"), rows)


def _print_place(asked: Asked, shown: int, found: int) -> None:
    if not found:
        return typer.echo("no sample is so")
    if not shown:
        return typer.echo(f"there are {found:,} samples, all before these")
    typer.echo(f"{asked.skip + 1:,} to {asked.skip + shown:,} of {found:,} samples")
    if asked.skip + shown < found:
        typer.echo(f"next: {asked.next_page()}")


def _print_document(runs: Sequence[Run], task: str, item: Found, rows: Aligned) -> None:
    from evalkit.reading.samples import describe

    shown = describe(rows)
    title = f"{task}, document {item.doc_id}" + (f", filter {item.filter}" if item.filter != "none" else "")
    typer.echo(f"{title}\n")
    if shown["prompt"]:
        typer.echo(f"prompt:\n{_indented(shown['prompt'])}\n")
    typer.echo(f"target:\n{_indented(shown['target'])}\n")
    for run, letter, row, own in zip(runs, item.verdicts, rows, shown["runs"], strict=True):
        typer.echo(f"{run.label}: {_verdict(row, letter)}".rstrip(": "))
        if own is not None:
            _print_answers(own)


def _print_answers(own: dict[str, Any]) -> None:
    if "prompt" in own:
        typer.echo(f"another prompt:\n{_indented(own['prompt'])}")
    scored = [answer for answer in own["answers"] if "logprob" in answer]
    for answer in own["answers"]:
        if "logprob" not in answer:
            typer.echo(f"answer:\n{_indented(answer['text'])}")
    if scored:
        keys = [key for key in ("logprob", "share", "greedy", "context", "text") if any(key in a for a in scored)]
        names = {"logprob": "log-probability", "text": "continuation"}
        rows = [[_cell(answer.get(key)) for key in keys] for answer in scored]
        print_table([names.get(key, key) for key in keys], rows)
    if own["filtered"] is not None:
        typer.echo(f"taken as the answer:\n{_indented(own['filtered'])}")
    for name, value in own["metrics"].items():
        typer.echo(f"{name}: {printable(value)}")
    for note in own["notes"]:
        typer.echo(f"note: {printable(note)}")
    if own["error"]:
        typer.echo(f"error: {printable(own['error'])}")
    typer.echo("")


def _verdict(row: dict[str, Any] | None, letter: str) -> str:
    """A word, or the first metric where that is neither right nor wrong."""
    from evalkit.reading.find import WORDS

    value = row.get(next(iter(row.get("metrics", ())), "")) if row else None
    return WORDS[letter] or (number(value) if isinstance(value, (int, float)) else "")


def _text_width(texts: int, taken: int) -> int:
    """Characters for each of `texts` columns, so that a line fits the terminal; a file may have long lines."""
    if not sys.stdout.isatty():
        return WIDEST
    return min(max((shutil.get_terminal_size().columns - taken) // texts, NARROWEST), WIDEST)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in printable(text).split("\n"))


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else printable(str(value))
