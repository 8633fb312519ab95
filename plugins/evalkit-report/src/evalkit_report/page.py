"""Write a report: collect everything that the page shows, and render it into one file."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.costs import LABELS
from evalkit.errors import ConfigError
from evalkit.reading.aligned import aligned
from evalkit.reading.finished import Run, tasks_of
from evalkit.reading.plots import Plots, plotted_intervals
from evalkit.reading.samples import answer_text, describe, preview, prompt_end, target_text, verdict
from evalkit.reading.settings import command, environment
from evalkit.reading.summary import cost, groups, scores
from evalkit.runs.folder import disk_errors
from evalkit_report.pack import Packer

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True, slots=True)
class Report:
    """A file that was written."""

    path: Path
    samples: int
    size: int


def write_report(runs: Sequence[Run], path: Path) -> Report:
    """Write the report of `runs` to `path`; a report that is there is replaced. Raises ConfigError, RunError."""
    check_target(path)
    text, samples = render_report(runs)
    data = text.encode(errors="replace")
    part = path.with_name(f"{path.name}.part")
    with disk_errors(path.parent):
        part.write_bytes(data)
        part.replace(path)
    return Report(path, samples, len(data))


def check_target(path: Path) -> None:
    """Raise ConfigError where a report must not, or cannot, be written."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--html names {path}, which is no HTML file. Choose a name that ends in .html")
    if path.is_dir():
        raise ConfigError(f"--html names the folder {path}. Name a file in it, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ConfigError(f"there is no folder {path.parent} for the report. Make it, or choose another --html")


def render_report(runs: Sequence[Run]) -> tuple[str, int]:
    """The page, and how many samples it holds."""
    packer, plots = Packer(), Plots()
    tasks = tasks_of(runs)
    for number, task in enumerate(tasks):
        _add_task(packer, plots, runs, number, task)
    index = packer.finish({"tasks": tasks, "runs": [run.label for run in runs]})
    found = scores(runs)
    text = render(
        "report.html",
        "report.js",
        runs=runs,
        scores=found,
        intervals=plotted_intervals(found),
        groups=groups(runs),
        calibrations=plots.telling_calibrations(),
        lengths=plots.telling_lengths(),
        costs=[cost(run) for run in runs],
        cost_labels=LABELS,
        settings=[(run.label, command(run.manifest["spec"]), environment(run)) for run in runs],
        warnings=[(run.label, warning) for run in runs for warning in run.results.get("warnings", ())],
        samples=packer.count,
        tasks=tasks,
        index=index,
        parts=packer.parts,
    )
    return text, packer.count


def _add_task(packer: Packer, plots: Plots, runs: Sequence[Run], number: int, task: str) -> None:
    better = [run.higher_is_better.get(task, {}) for run in runs]
    for rows in aligned(runs, task):
        verdicts = [verdict(row, known) for row, known in zip(rows, better, strict=True)]
        for run, (row, said) in enumerate(zip(rows, verdicts, strict=True)):
            if row is not None:
                plots.add(task, run, row, said)
        first = next(row for row in rows if row is not None)
        listed = {
            "task": number,
            "doc": first["doc_id"],
            "filter": next((row["filter"] for row in rows if row and not row.get("error")), "none"),
            "verdicts": "".join(verdicts),
            "prompt": prompt_end(rows),
            "answers": [preview(answer_text(row)) for row in rows],
            "target": preview(target_text(first)),
        }
        packer.add(listed, describe(rows))


def render(template: str, script: str, **values: Any) -> str:
    """A template with its styles and script inlined. The page may load and run nothing else."""
    style, code = static("page.css"), static(script)
    own = {"style": style, "script": code, "style_hash": _csp_hash(style), "script_hash": _csp_hash(code)}
    text: str = _environment().get_template(template).render(**own, **values)
    return text


@functools.cache
def static(name: str) -> str:
    """A file of the package's static folder."""
    return files("evalkit_report").joinpath("static", name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evalkit_report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment


def number(value: float | None, digits: int = 4) -> str:
    """Decimals, or digits where the number is so large that decimals say nothing; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:,.{digits}f}" if abs(value) < 100_000 else f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.4g}"


def _csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
