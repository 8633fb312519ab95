"""Where a checkpoint's shards and its other files are, and where the merged one goes; imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evalkit.errors import ModelError, ModelNotFoundError

FOLDERS = {"regular": "pytorch_model_fsdp_0", "ema": "pytorch_ema_model_fsdp_0"}
SHARD = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
STEP = re.compile(r"checkpoint-(\d+)")
# The configuration, tokenizer and processor of a model, and its own code, which loads only where that is allowed.
COPIED = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py")
NOT_COPIED = re.compile(r"trainer_state\.json|training_args.*|.*\.index\.json|requirements.*\.txt|merge\.json")
MAX_COPIED_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sharded checkpoint: `folder` holds the model's other files, `shards` is a file a rank, in order."""

    folder: Path
    shards: tuple[Path, ...]
    kind: str

    @property
    def default_output(self) -> Path:
        """Where the merged model goes when nobody says."""
        return self.folder / ("merged" if self.kind == "regular" else "merged_ema")

    def other_files(self) -> list[Path]:
        """Configuration, tokenizer and processor. Raises ModelError without a configuration."""
        # A trainer may keep them once, beside its checkpoints.
        for folder in (self.folder, self.folder.parent):
            if (folder / "config.json").is_file():
                found = [path for path in sorted(folder.iterdir()) if _is_copied(path)]
                return [_inside(path, folder) for path in found]
        raise ModelError(f"{self.folder} has no config.json. Save the model's configuration and tokenizer there")


def find_checkpoint(path: Path, kind: str = "regular") -> Checkpoint:
    """The checkpoint at `path`, or the highest `checkpoint-N` in it. Raises ModelError where a rank is missing."""
    if kind not in FOLDERS:
        raise ModelError(f"a checkpoint is of type {' or '.join(FOLDERS)}, not {kind!r}")
    if not path.is_dir():
        raise ModelNotFoundError(f"{path} is no folder. Name the folder that holds {FOLDERS[kind]}")
    steps = [(int(match[1]), folder) for folder in path.iterdir() if (match := STEP.fullmatch(folder.name))]
    for folder in (path, *(folder for _, folder in sorted(steps, reverse=True))):
        if (folder / FOLDERS[kind]).is_dir():
            shards = _shards(_inside(folder / FOLDERS[kind], path))
            return Checkpoint(folder, shards, kind)
    raise ModelNotFoundError(f"neither {path} nor a checkpoint-N in it has the folder {FOLDERS[kind]}")


def _shards(folder: Path) -> tuple[Path, ...]:
    found = {(int(m[1]), int(m[2])): path for path in folder.iterdir() if (m := SHARD.fullmatch(path.name))}
    sizes = sorted({size for size, _ in found})
    if not found:
        raise ModelNotFoundError(f"{folder} holds no model_world_size_N_rank_R.pt")
    if len(sizes) > 1:
        raise ModelError(f"{folder} holds shards of several world sizes: {sizes}. Remove those of the older save")
    missing = [rank for rank in range(sizes[0]) if (sizes[0], rank) not in found]
    if missing:
        named = ", ".join(map(str, missing[:8]))
        raise ModelError(
            f"{folder} lacks rank {named} of {sizes[0]}. Copy every rank's file, or wait until it is there"
        )
    return tuple(_inside(found[sizes[0], rank], folder) for rank in range(sizes[0]))


def _is_copied(path: Path) -> bool:
    is_small_file = path.is_file() and path.stat().st_size <= MAX_COPIED_BYTES
    return is_small_file and path.suffix in COPIED and not NOT_COPIED.fullmatch(path.name)


def _inside(path: Path, folder: Path) -> Path:
    """`path` unless it is a link that leads out of `folder`, which the operator never allowed."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{path} is a link that leads out of the checkpoint. Copy the file there")
    return path
