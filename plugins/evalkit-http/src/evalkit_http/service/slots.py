"""Device slots: which GPUs there are, which are free, and how a process is kept on its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from evalkit.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
SMI = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")
SMI_SECONDS = 20
GPU, CPU = "cuda", "cpu"


@dataclass(frozen=True, slots=True)
class Need:
    """How many slots a job takes. `device` is a kind ("cuda"), one slot ("cuda:1"), or None for the server's best."""

    count: int = 1
    device: str | None = None


def kind(name: str) -> str:
    """The kind of a slot: "cuda" of "cuda:1"."""
    return name.partition(":")[0]


def detect_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; without a driver none."""
    if (given := os.environ.get(VISIBLE)) is not None:
        return [part.strip() for part in given.split(",") if part.strip() not in ("", "-1")]
    try:
        done = subprocess.run(SMI, capture_output=True, text=True, timeout=SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdecimal()]


class Slots:
    """All slots by name, and the free ones. Used by one thread."""

    def __init__(self, devices: Sequence[str] = (), cpu_slots: int = 1, gpus: Sequence[str] | None = None) -> None:
        found = detect_gpus() if gpus is None else gpus
        self._ids = {f"{GPU}:{number}": name for number, name in enumerate(found)}
        chosen = list(devices) if devices else [*self._ids, *[CPU] * cpu_slots]
        self.names = tuple(_numbered(chosen))
        self.free = set(self.names)

    def matching(self, need: Need) -> list[str]:
        """The slots that would do, in order. A named slot is exactly that one."""
        wanted = need.device or (CPU if need.count == 0 else kind(self.names[0]))
        return [name for name in self.names if wanted in (name, kind(name))]

    def check(self, need: Need) -> None:
        """Raise ConfigError for what this server can never give."""
        found = self.matching(need)
        if not found:
            wanted = need.device or CPU
            raise ConfigError(f"there is no device {wanted!r}. This server has: {', '.join(self.names)}")
        if need.count > len(found):
            raise ConfigError(
                f"num_gpus is {need.count}, but only {len(found)} fit ({', '.join(found)}). Ask for fewer"
            )

    def take(self, need: Need, reserved: Collection[str] = ()) -> tuple[str, ...] | None:
        """Take slots that are free and not `reserved` for a job before this one; None where there are too few."""
        found = [name for name in self.matching(need) if name in self.free and name not in reserved]
        count = max(need.count, 1)
        if len(found) < count:
            return None
        self.free -= set(found[:count])
        return tuple(found[:count])

    def release(self, names: Iterable[str]) -> None:
        """Give slots back."""
        self.free |= set(names)

    def environment(self, names: Iterable[str]) -> dict[str, str]:
        """What a process is started with that must see these slots alone."""
        gpus = [name for name in names if kind(name) == GPU]
        ids = [self._ids.get(name, name.partition(":")[2]) for name in gpus]
        # By bus, as nvidia-smi numbers them: CUDA's own order is by speed.
        return {VISIBLE: ",".join(ids), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _numbered(names: Sequence[str]) -> list[str]:
    """`names` with a number behind those that have none. Raises ConfigError for one that is named twice."""
    found: list[str] = []
    for name in names:
        if ":" in name:
            found.append(name)
            continue
        number = sum(kind(other) == name for other in found)
        found.append(f"{name}:{number}")
    if not found or len(set(found)) < len(found):
        raise ConfigError(f"devices {', '.join(names) or 'none'} cannot be used: name at least one, each once")
    return found
