"""How much memory is left to this process, and one error where it runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from evalkit.errors import OutOfMemoryError, one_line

CGROUP = Path("/sys/fs/cgroup")
FAILED_ALLOCATION = ("allocate", "allocation", "bad_alloc", "out of memory")


def available_memory() -> int | None:
    """Bytes that may still be used, by the machine's count and by the container's; None where neither is known."""
    known = [value for value in (_machine(Path("/proc/meminfo")), _container(CGROUP)) if value is not None]
    return min(known, default=None)


@contextmanager
def memory_errors(place: object, give_back: Callable[[], None] | None = None) -> Iterator[None]:
    """Turn a failed allocation on a device into OutOfMemoryError, after `give_back` freed what a library keeps.

    Libraries raise RuntimeError: PyTorch for CUDA a subclass of it, for a CPU or MPS the class itself, OpenVINO too.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(word in str(error).lower() for word in FAILED_ALLOCATION):
            raise
        if give_back is not None:
            give_back()
        raise OutOfMemoryError(f"no memory left on {place}: {one_line(error, 200)}") from error


def _machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


def _container(folder: Path) -> int | None:
    """What the control group allows, less what it uses; files in its cache can be given up."""
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        statistics = (folder / "memory.stat").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    cached = dict(zip(statistics[::2], statistics[1::2], strict=False)).get("inactive_file", "0")
    return max(0, int(limit) - used + int(cached))
