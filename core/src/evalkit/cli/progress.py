"""A progress bar on stderr with rate and time left; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from evalkit.runs.infer import OnProgress, Progress


@contextmanager
def progress_bar() -> Iterator[OnProgress | None]:
    """Yield what the runner calls for every answer; None keeps it quiet."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    known: dict[str, TaskID] = {}

    def show(progress: Progress) -> None:
        if progress.kind not in known:
            known[progress.kind] = bars.add_task(progress.kind, total=progress.total, rate="")
        bar = bars.tasks[bars.task_ids.index(known[progress.kind])]
        answered = progress.done - progress.restored
        rate = f"{answered / bar.elapsed:.1f}/s" if bar.elapsed else ""
        bars.update(known[progress.kind], completed=progress.done, rate=rate)

    with bars:
        yield show
