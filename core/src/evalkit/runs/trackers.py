"""The hooks of a tracker's plugin, and the promise that no tracker can lose a run or hold it up."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.errors import one_line
from evalkit.hooks import hookimpl
from evalkit.runs.tracking import TrackedResult, TrackedRun, Tracker, progress_metrics, tracked_result, tracked_run
from evalkit.specs import load_object

if TYPE_CHECKING:
    from evalkit.results import RunResult
    from evalkit.runs.context import RunContext
    from evalkit.runs.progress import RunProgress

PROJECT = "evalkit"
OFF, PLAIN_ON = ("", "0", "false", "off", "no"), ("1", "true", "on", "yes")
WAIT_SECONDS = 60.0
"""How long a run that is complete waits for a tracker that does not answer."""
TROUBLE = (Exception, SystemExit)
"""A tracker is somebody else's code, and perhaps their server."""


class Tracking:
    """The hooks of a tracker that the environment variable `variable` switches on.

    Its value names the project, 1 stands for "evalkit". `load` names the Tracker's class as "module:Class".
    """

    def __init__(self, variable: str, load: str) -> None:
        self.variable, self.load = variable, load
        self._feeds: dict[Path, _Feed] = {}

    @hookimpl
    def run_started(self, run: RunContext) -> None:
        """Let the run show up at the tracker."""
        project = os.environ.get(self.variable, "").strip()
        if project.lower() in OFF:
            return
        tracked = tracked_run(PROJECT if project.lower() in PLAIN_ON else project, run)
        self._feeds[run.folder.path] = _Feed(lambda: load_object(self.load)(), tracked, self._warn)

    @hookimpl
    def run_progressed(self, run: RunContext, progress: RunProgress) -> None:
        """Tell it how far the run is."""
        if feed := self._feeds.get(run.folder.path):
            feed.progress(progress)

    @hookimpl(trylast=True)
    def run_finished(self, run: RunContext, result: RunResult) -> None:
        """Send the result; last of all plugins, so that results.json is there to be attached."""
        if feed := self._feeds.pop(run.folder.path, None):
            feed.finish(tracked_result(run, result))

    def _warn(self, cause: str) -> None:
        print(f"warning: {self.variable} is set, but this run is not logged ({cause}); it goes on", file=sys.stderr)


class _Feed:
    """Feeds one tracker from a thread of its own; of several reports that wait only the newest is sent."""

    def __init__(self, make: Callable[[], Tracker], run: TrackedRun, warn: Callable[[str], None]) -> None:
        self._make, self._run, self._warn = make, run, warn
        self._changed = threading.Condition()
        self._progress: RunProgress | None = None
        self._result: TrackedResult | None = None
        self._warned = False
        self._tracker: Tracker | None = None
        # A tracker that hangs must not keep a process alive whose run is complete.
        self._thread = threading.Thread(target=self._work, name="evalkit-tracker", daemon=True)
        self._thread.start()

    def progress(self, progress: RunProgress) -> None:
        """Hand over, and return at once."""
        with self._changed:
            self._progress = progress
            self._changed.notify()

    def finish(self, result: TrackedResult) -> None:
        """Hand over, and wait until all is sent, but not for ever."""
        with self._changed:
            self._result = result
            self._changed.notify()
        self._thread.join(WAIT_SECONDS)
        if self._thread.is_alive():
            self._fail(f"no answer for {WAIT_SECONDS:.0f} seconds")

    def _work(self) -> None:
        self._attempt(self._start)
        result = None
        while result is None:
            with self._changed:
                self._changed.wait_for(lambda: self._progress is not None or self._result is not None)
                progress, self._progress, result = self._progress, None, self._result
            if progress is not None and self._tracker is not None:
                # A report that is lost costs nothing: the next one says more.
                with suppress(*TROUBLE):
                    self._tracker.progress(progress_metrics(progress), progress.answered)
        self._attempt(lambda: self._finish(result))

    def _start(self) -> Tracker:
        tracker = self._make()
        tracker.start(self._run)
        self._tracker = tracker
        return tracker

    def _finish(self, result: TrackedResult) -> None:
        # A server that was away at the start may be back.
        (self._tracker or self._start()).finish(result)

    def _attempt(self, step: Callable[[], object]) -> None:
        try:
            step()
        except TROUBLE as error:
            self._fail(f"{type(error).__name__}: {one_line(error)}")

    def _fail(self, cause: str) -> None:
        if not self._warned:
            self._warn(cause)
        self._warned = True
