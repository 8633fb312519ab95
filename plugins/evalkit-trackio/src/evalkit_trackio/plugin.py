"""Log runs to Trackio where EVALKIT_TRACKIO is set."""

from __future__ import annotations

from evalkit.runs.trackers import Tracking

tracking = Tracking("EVALKIT_TRACKIO", "evalkit_trackio.tracker:Tracker")
run_started = tracking.run_started
run_progressed = tracking.run_progressed
run_finished = tracking.run_finished
