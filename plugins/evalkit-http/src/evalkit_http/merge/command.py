"""`evalkit merge`: one model of an FSDP2 checkpoint's shards."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evalkit.cli.output import JSON

EVERY = 50


class Kind(StrEnum):
    """Which of a trainer's weights."""

    REGULAR = "regular"
    EMA = "ema"


def merge(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Folder of a checkpoint, or of several.")],
    output: Annotated[
        Path | None, typer.Option(metavar="D", help="Folder to be made [default: 'merged' in the checkpoint]")
    ] = None,
    kind: Annotated[Kind, typer.Option("--type", help="The weights, or their moving average.")] = Kind.REGULAR,
    as_json: bool = JSON,
) -> None:
    """Merge the shards of an FSDP2 checkpoint into one model that every engine loads; the highest step of several."""
    from evalkit_http.merge.merging import merge as merge_checkpoint
    from evalkit_http.merge.protocol import MergeResponse

    path = merge_checkpoint(checkpoint, output, kind.value, on_progress=_tell)
    done = MergeResponse(success=True, message="Merged", merged_path=str(path))
    typer.echo(done.model_dump_json(exclude={"job_id"}) if as_json else f"merged into {path}")


def _tell(done: int, total: int) -> None:
    if done == total or done % EVERY == 0:
        typer.echo(f"merged {done} of {total} tensors", err=True)
