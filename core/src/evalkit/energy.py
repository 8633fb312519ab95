"""Measure the energy that this machine's counters see while requests are answered.

Two kinds of counters: Linux RAPL (the packages of the processor) and NVIDIA's (whole cards). Each counts all that its
part of the machine does, other processes included. Without a counter there is no number: nothing here is estimated.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

RAPL = Path("/sys/class/powercap")
READ_EVERY = 20.0
"""Seconds between readings: a package's counter may begin anew after a minute at full load."""


@dataclass(frozen=True, slots=True)
class Counter:
    """`read` gives units since some time; `wrap`: the counter begins anew behind that many (0: never)."""

    name: str
    read: Callable[[], int]
    joules: float
    """Of one unit."""
    wrap: int = 0

    def between(self, before: int, after: int) -> int:
        """Units from one reading to the next. Raises ValueError where a counter that never wraps went back."""
        if after >= before:
            return after - before
        if not self.wrap:
            raise ValueError(f"{self.name} was set back")
        return after - before + self.wrap


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules, and the names of the counters that they are from."""

    joules: float
    counters: tuple[str, ...]


class Meter:
    """Adds up what counters see while it is open; it reads them now and then, so that none wraps twice unseen."""

    def __init__(self, counters: Sequence[Counter] | None = None, every: float = READ_EVERY) -> None:
        self._counters = find_counters() if counters is None else tuple(counters)
        self._last: list[int] = []
        self._units = [0] * len(self._counters)
        self._failed = False
        self._every = every
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        try:
            self._last = [counter.read() for counter in self._counters]
        except Exception:  # a driver's own errors too
            self._counters = ()
        if self._counters:
            self._thread = threading.Thread(target=self._watch, name="evalkit-energy", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closed.set()
        if self._thread is not None:
            self._thread.join()

    def energy(self) -> Energy | None:
        """Since it was opened, as of the last reading; None without a counter, or once one has failed."""
        with self._lock:
            if not self._counters or self._failed:
                return None
            joules = sum(units * counter.joules for units, counter in zip(self._units, self._counters, strict=True))
            return Energy(joules, tuple(counter.name for counter in self._counters))

    def _watch(self) -> None:
        while not self._closed.wait(self._every):
            self.read()

    def read(self) -> Self:
        """Read the counters now."""
        with self._lock:
            if self._failed or not self._counters:
                return self
            try:
                for index, counter in enumerate(self._counters):
                    value = counter.read()
                    self._units[index] += counter.between(self._last[index], value)
                    self._last[index] = value
            except Exception:  # a counter that fails must not end a run; what it missed is not guessed
                self._failed = True
        return self


def find_counters() -> tuple[Counter, ...]:
    """The counters that this process may read."""
    return (*rapl_counters(RAPL), *nvidia_counters())


def rapl_counters(root: Path) -> list[Counter]:
    """One for each package of the processor: cores, caches and, by model, its graphics; memory is not in it."""
    found = []
    # "intel-rapl-mmio:0" would count package 0 twice, and "intel-rapl:0:1" is a part of it. AMD has the same names.
    for zone in sorted(root.glob("intel-rapl:*")):
        try:
            name = (zone / "name").read_text().strip()
            if zone.name.count(":") != 1 or not name.startswith("package"):
                continue
            counter = _rapl_counter(zone, name)
            counter.read()
        except (OSError, ValueError):
            # Many systems let only root read it.
            continue
        found.append(counter)
    return found


def _rapl_counter(zone: Path, name: str) -> Counter:
    file, highest = zone / "energy_uj", int((zone / "max_energy_range_uj").read_text())
    return Counter(f"RAPL {name}", lambda: int(file.read_text()), 1e-6, wrap=highest)


def nvidia_counters() -> list[Counter]:
    """One for each card that CUDA shows this process, where `nvidia-ml-py` is installed and the card counts."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [_nvidia_counter(pynvml, handles[index]) for index in _visible(pynvml, handles)]
    except pynvml.NVMLError:
        # No driver, or a card without a counter: part of the cards would be half an answer.
        return []


def _nvidia_counter(pynvml: Any, handle: Any) -> Counter:
    name = f"NVIDIA {_text(pynvml.nvmlDeviceGetName(handle))} {_text(pynvml.nvmlDeviceGetUUID(handle))}"
    counter = Counter(name, lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)), 1e-3)
    counter.read()
    return counter


def _visible(pynvml: Any, handles: Sequence[Any]) -> list[int]:
    """The indices that CUDA_VISIBLE_DEVICES leaves, read as CUDA does; none where it cannot be told which they are."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return list(range(len(handles)))
    ids = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    alike = len({_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles}) < 2
    by_slot = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    found: list[int] = []
    for word in (word.strip() for word in asked.split(",")):
        index = _index(word, ids)
        if index is None or index in found:
            break
        if word.isdecimal() and not (alike or by_slot):
            # CUDA counts the fastest first, NVML by slot.
            return []
        found.append(index)
    return found


def _index(word: str, ids: Sequence[str]) -> int | None:
    """Of a number or the beginning of a card's id; None ends CUDA's list."""
    if word.isdecimal():
        return int(word) if int(word) < len(ids) else None
    matching = [index for index, name in enumerate(ids) if word.startswith("GPU-") and name.startswith(word)]
    return matching[0] if len(matching) == 1 else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
