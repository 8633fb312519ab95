"""Log runs to Weights & Biases where EVALKIT_WANDB is set."""

from __future__ import annotations

from evalkit.runs.trackers import Tracking

tracking = Tracking("EVALKIT_WANDB", "evalkit_wandb.tracker:Tracker")
run_started = tracking.run_started
run_progressed = tracking.run_progressed
run_finished = tracking.run_finished
