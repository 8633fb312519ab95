"""The job `merge`: `evalkit merge` of one checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError
from evalkit_http.merge.layout import find_checkpoint
from evalkit_http.merge.merging import is_merged
from evalkit_http.merge.protocol import MergeRequest
from evalkit_http.security import allowed_path
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.job import Job
from evalkit_http.service.kinds import LOG, TAIL_BYTES, Outcome, tail
from evalkit_http.service.protocol import JobStatus, Progress
from evalkit_http.service.slots import Need, Slots

TOLD = re.compile(r"merged (\d+) of (\d+) tensors")


def merge_work(request: MergeRequest, args: ServerArgs, slots: Slots) -> dict[str, Any]:
    """A job's work. Raises EvalkitError where the checkpoint is not allowed, not there or not complete."""
    asked = allowed_path(request.checkpoint_path, args.guards.model_roots)
    checkpoint = find_checkpoint(asked, request.checkpoint_type)
    output = allowed_path(request.output_path or checkpoint.default_output, args.guards.output_roots)
    # Of a folder of checkpoints, the one that is the highest now: while the job waits a higher one may appear.
    chosen = allowed_path(str(checkpoint.folder), args.guards.model_roots)
    return {
        "checkpoint_path": str(chosen),
        "output_path": str(output),
        "checkpoint_type": request.checkpoint_type,
        "slots": _slots(slots),
        "timeout": args.job_timeout,
        "prefix": args.temp_dir_prefix,
    }


class MergeJob:
    """Jobs whose `work` is made by `merge_work`."""

    def words(self, job: Job, folder: Path) -> list[str]:
        """Merge; what a killed merge left is begun again."""
        work = job.work
        return ["merge", work["checkpoint_path"], "--output", work["output_path"], "--type", work["checkpoint_type"]]

    def outcome(self, job: Job, folder: Path) -> Outcome | None:
        """The merged model's path, once it is there."""
        work = job.work
        if not is_merged(work["checkpoint_path"], work["output_path"], work["checkpoint_type"]):
            return None
        return Outcome(JobStatus.COMPLETED, {"merged_path": work["output_path"]})

    def progress(self, job: Job, folder: Path) -> Progress | None:
        """Tensors that are written, as the process tells."""
        told = TOLD.findall(tail(folder / LOG, TAIL_BYTES))
        return Progress(answered=int(told[-1][0]), total=int(told[-1][1])) if told else None


def _slots(slots: Slots) -> dict[str, Any]:
    """A slot without a GPU, where there is one."""
    try:
        slots.check(Need(0))
    except ConfigError:
        return {"count": 1, "device": None}
    return {"count": 0, "device": None}
