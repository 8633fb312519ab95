"""The tensors of all ranks as one model: each is put together when it is asked for."""

from __future__ import annotations

import itertools
import logging
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalkit.errors import ModelError, one_line

WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
"""What torch.compile and activation checkpointing add to a parameter's name."""


class Shards:
    """The state dict of every rank, mapped into memory; `names` in the model's order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        # Its import tells weights_only loading that DTensor, DeviceMesh and placements are plain data.
        import torch.distributed.tensor

        # Every file that holds a mesh would warn that there is no process group, which nobody needs here.
        logging.getLogger("torch.distributed.device_mesh").setLevel(logging.ERROR)
        self._ranks = [_load(path) for path in paths]
        self._paths = paths
        first = {_clean(name): name for name, value in self._ranks[0].items() if isinstance(value, torch.Tensor)}
        if not first:
            raise ModelError(f"{paths[0]} holds no tensors")
        self._keys = first
        for rank in range(len(paths)):
            self._check_rank(rank)

    @property
    def names(self) -> list[str]:
        """Parameters and buffers."""
        return list(self._keys)

    def shape(self, name: str) -> tuple[int, ...]:
        """The whole tensor's shape."""
        return tuple(self._first(name).shape)

    def dtype(self, name: str) -> Any:
        """The tensor's dtype, which the merged one keeps."""
        return self._first(name).dtype

    def place(self, name: str) -> tuple[Any, ...] | None:
        """What two names share that are one tensor (tied weights); None where that cannot be told."""
        local = _local(self._first(name))
        if not local.numel():
            return None
        return (local.untyped_storage().data_ptr(), local.storage_offset(), tuple(local.shape), local.stride())

    def whole(self, name: str) -> Any:
        """The tensor put together from all ranks, contiguous. Raises ModelError where the parts do not fit."""
        first = self._first(name)
        if not hasattr(first, "placements"):
            return first.detach().contiguous()
        mesh = _mesh(first, 0)
        parts = [self._part(name, rank, first) for rank in mesh.flatten().tolist()]
        whole = _fold(parts, tuple(mesh.shape), first.placements, name)
        if tuple(whole.shape) != tuple(first.shape):
            raise ModelError(
                f"{name} is {tuple(whole.shape)} put together, and should be {tuple(first.shape)}: "
                "the shards are of different saves"
            )
        return whole.detach().contiguous()

    def same(self, name: str, other: str) -> bool:
        """Whether two tensors hold the same bits."""
        import torch

        one, two = (self.whole(each).reshape(-1).view(torch.uint8) for each in (name, other))
        return bool(torch.equal(one, two))

    def _first(self, name: str) -> Any:
        return self._ranks[0][self._keys[name]]

    def _part(self, name: str, rank: int, first: Any) -> Any:
        if rank >= len(self._ranks):
            raise self._wrong_size(name, rank)
        part = self._ranks[rank][self._keys[name]]
        if getattr(part, "placements", None) != first.placements:
            raise self._two_saves(name, rank)
        same_mesh = _mesh(part, rank).equal(_mesh(first, 0))
        if part.shape != first.shape or part.dtype != first.dtype or not same_mesh:
            raise self._two_saves(name, rank)
        return _local(part)

    def _check_rank(self, rank: int) -> None:
        state = self._ranks[rank]
        if different := sorted(set(state) ^ set(self._ranks[0])):
            raise self._two_saves(different[0], rank)
        for name, value in state.items():
            # A file that was renamed lies on a mesh that does not know its rank.
            if hasattr(value, "placements") and _mesh(value, rank) is None:
                raise self._wrong_size(name, rank)

    def _two_saves(self, name: str, rank: int) -> ModelError:
        return ModelError(
            f"{name} is different on rank {rank} ({self._paths[rank].name}): the shards are of different saves. "
            "Copy those of one save"
        )

    def _wrong_size(self, name: str, rank: int) -> ModelError:
        return ModelError(
            f"{name} does not fit {len(self._ranks)} ranks (rank {rank}): the shards are of another world size. "
            "Keep the names that they were saved with"
        )


def _fold(parts: list[Any], shape: tuple[int, ...], placements: Sequence[Any], name: str) -> Any:
    """Join the parts of a mesh of `shape`, axis after axis, the innermost first."""
    grid = dict(zip(itertools.product(*map(range, shape)), parts, strict=True))
    # A strided shard was cut after those to its right: it is joined before them.
    for axis in sorted(range(len(shape)), key=lambda axis: (not _is_strided(placements[axis]), -axis)):
        lines: dict[tuple[int, ...], list[Any]] = {}
        for place in sorted(grid):
            lines.setdefault((*place[:axis], 0, *place[axis + 1 :]), []).append(grid[place])
        grid = {place: _join(line, placements[axis], name) for place, line in lines.items()}
    return next(iter(grid.values()))


def _join(parts: list[Any], placement: Any, name: str) -> Any:
    import torch

    if placement.is_replicate():
        return parts[0]
    # Neither does a strided shard call itself a shard, nor does a partial sum have a dim.
    if not hasattr(placement, "dim"):
        raise ModelError(f"{name} is placed as {placement}, which is no shard. Save the checkpoint after a full step")
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=placement.dim)


def _is_strided(placement: Any) -> bool:
    return hasattr(placement, "split_factor")


def _mesh(tensor: Any, rank: int) -> Any:
    """The ranks that a tensor on `rank` lies on, as they are arranged; None where `rank` is none of them."""
    mesh = tensor.device_mesh
    stored = vars(mesh).get("mesh")  # of an older torch
    # A mesh that was cut from a larger one asks the process group who it is, and there is none here.
    whole = mesh._layout.remap_to_tensor(mesh._rank_map) if stored is None else stored.unsqueeze(0)
    return next((part for part in whole if rank in part), None)


def _local(tensor: Any) -> Any:
    return getattr(tensor, "_local_tensor", tensor)


def _clean(name: str) -> str:
    return WRAPPERS.sub("", name).removeprefix(".")


def _load(path: Path) -> dict[str, Any]:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds more than tensors and is not loaded: it could run code. Save a state dict"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} is damaged or still being written ({one_line(error, 120)}). Wait for it, or copy it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ModelError(f"{path} holds no state dict but {type(state).__name__}")
    return state
