"""Energy is what counters say, across wrap-arounds; without a counter there is no number."""

from __future__ import annotations

import json
import sys
import threading
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.cli.tables import print_result
from evalkit.energy import Counter, Energy, Meter, find_counters, nvidia_counters, rapl_counters

if TYPE_CHECKING:
    from conftest import Toy

RANGE = 262_143_328_850


class Powercap:
    """A folder like /sys/class/powercap."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def zone(self, folder: str, name: str, value: int | None = 0) -> Path:
        """Add a zone, or set its counter; None: a file that cannot be read as a number."""
        zone = self.root / folder
        zone.mkdir(exist_ok=True)
        (zone / "name").write_text(f"{name}\n")
        (zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
        (zone / "energy_uj").write_text("" if value is None else f"{value}\n")
        return zone


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    """An empty one."""
    return Powercap(tmp_path)


class Cards(ModuleType):
    """Stands in for the module of `nvidia-ml-py`: cards with a name and millijoules."""

    class NVMLError(Exception):
        """What the module raises."""

    def __init__(self, *names: str) -> None:
        super().__init__("pynvml")
        self.names = names
        self.used = {index: 1_000 * index for index in range(len(names))}
        self.broken: set[int] = set()

    def nvmlInit(self) -> None:  # noqa: N802 (the module's names)
        """Nothing to do."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        """All cards of the machine."""
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        """The index itself."""
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        """Its name."""
        return self.names[handle]

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:  # noqa: N802
        """Bytes, as older versions give."""
        return f"GPU-{handle}abc".encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        """Millijoules since the driver was loaded."""
        if handle in self.broken:
            raise self.NVMLError("not supported")
        return self.used[handle]


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`cards("H200", "H200")` puts cards into the machine."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)

    def install(*names: str) -> Cards:
        found = Cards(*names)
        monkeypatch.setitem(sys.modules, "pynvml", found)
        return found

    return install


def test_every_package_is_counted_once(powercap: Powercap) -> None:
    """Parts of a package, its second interface and the whole board's domain are not added to it."""
    powercap.zone("intel-rapl:0", "package-0", 1_000_000)
    powercap.zone("intel-rapl:1", "package-1", 5_000_000)
    powercap.zone("intel-rapl:0:0", "core", 7)
    powercap.zone("intel-rapl-mmio:0", "package-0", 7)
    powercap.zone("intel-rapl:2", "psys", 7)
    with Meter(rapl_counters(powercap.root)) as meter:
        powercap.zone("intel-rapl:0", "package-0", 3_500_000)
        powercap.zone("intel-rapl:1", "package-1", 5_250_000)
        assert meter.read().energy() == Energy(pytest.approx(2.75), ("RAPL package-0", "RAPL package-1"))


def test_a_counter_that_cannot_be_read_is_none(powercap: Powercap, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file, no right to read it, or nothing in it: no counter, and so no number."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert rapl_counters(powercap.root / "missing") == []
    powercap.zone("intel-rapl:0", "package-0", None)
    (powercap.zone("intel-rapl:1", "package-1") / "energy_uj").unlink()
    monkeypatch.setattr("evalkit.energy.RAPL", powercap.root)
    assert find_counters() == ()
    with Meter() as meter:
        assert meter.read().energy() is None


@given(st.integers(0, RANGE - 1), st.lists(st.integers(0, RANGE - 1), max_size=20))
def test_wrap_around_loses_nothing(start: int, used: list[int]) -> None:
    """However often a counter begins anew, all that was used is counted, where it is read once a round."""
    total, units = start, 0
    readings = [start]
    for step in used:
        total += step
        readings.append(total % RANGE)
    counter = Counter("any", lambda: 0, 1.0, wrap=RANGE)
    for before, after in pairwise(readings):
        units += counter.between(before, after)
    assert units == sum(used)


def test_a_long_silence_is_read_through() -> None:
    """The meter reads while nobody asks, so that a counter that wraps twice between answers is not misread."""
    values = iter([0, 60, 20, 80])
    enough = threading.Event()

    def value() -> int:
        found = next(values, None)
        if found is None:
            enough.set()
            return 80
        return found

    with Meter([Counter("any", value, 1.0, wrap=100)], every=0.001) as meter:
        assert enough.wait(30)
        assert meter.energy() == Energy(180.0, ("any",))


@pytest.mark.parametrize("problem", [OSError("gone"), RuntimeError("driver"), ValueError("")])
def test_a_counter_that_fails_gives_no_half_answer(problem: Exception) -> None:
    """What was missed is not guessed, and the run goes on."""
    values: list[Any] = [5, 9, problem]

    def read() -> int:
        found = values.pop(0)
        if isinstance(found, Exception):
            raise found
        return int(found)

    with Meter([Counter("any", read, 1.0)]) as meter:
        assert meter.read().energy() == Energy(4.0, ("any",))
        assert meter.read().energy() is None
    assert meter.energy() is None


def test_a_counter_that_was_set_back_is_not_trusted() -> None:
    """A driver that is loaded anew counts from 0: what came before is lost."""
    values = [500, 20]
    with Meter([Counter("any", lambda: values.pop(0), 1.0)]) as meter:
        assert meter.read().energy() is None


@pytest.mark.parametrize(
    ("visible", "order", "names", "counted"),
    [
        (None, None, "aaa", [0, 1, 2]),
        ("", None, "aaa", []),
        ("-1", None, "aaa", []),
        ("2,0", None, "aaa", [2, 0]),
        ("1,9,0", None, "aaa", [1]),
        ("0,0", None, "aaa", [0]),
        ("GPU-1a,GPU-2abc", None, "aaa", [1, 2]),
        ("GPU-", None, "aaa", []),
        ("MIG-1abc", None, "aaa", []),
        ("1", None, "abb", []),
        ("1", "PCI_BUS_ID", "abb", [1]),
        ("GPU-1", None, "abb", [1]),
    ],
)
def test_only_visible_cards_count(
    cards: Any,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    order: str | None,
    names: str,
    counted: list[int],
) -> None:
    """CUDA_VISIBLE_DEVICES is read as CUDA reads it; where it is ambiguous nothing is counted."""
    cards(*names)
    for variable, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert [counter.name[-7:] for counter in nvidia_counters()] == [f"GPU-{index}abc"[-7:] for index in counted]


def test_a_card_counts_in_millijoules(cards: Any) -> None:
    """What one card used, by its name."""
    found = cards("H200")
    with Meter(nvidia_counters()) as meter:
        found.used[0] += 2_500
        assert meter.read().energy() == Energy(2.5, ("NVIDIA H200 GPU-0abc",))


def test_a_card_without_a_counter_leaves_no_half_answer(cards: Any) -> None:
    """Joules of one of two cards would look like those of both."""
    cards("old", "new").broken.add(0)
    assert nvidia_counters() == []


def test_no_nvidia_package_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is asked for on use only, and need not be there."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvidia_counters() == []


def test_a_run_tells_its_joules(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are in the result, in results.json and under the table, with the counters they are from."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr("evalkit.energy.RAPL", tmp_path / "powercap")
    (tmp_path / "powercap").mkdir()
    powercap = Powercap(tmp_path / "powercap")
    powercap.zone("intel-rapl:0", "package-0", 1_000)
    result = toy.run(on_progress=lambda progress: powercap.zone("intel-rapl:0", "package-0", 42_001_000))
    assert result.energy == Energy(pytest.approx(42.0), ("RAPL package-0",))
    written = json.loads((Path(result.run_dir) / "results.json").read_text(encoding="utf-8"))
    assert (written["joules"], written["joules_from"]) == (42.0, ["RAPL package-0"])
    assert written["speed"]["joules_per_1000_tokens"] == pytest.approx(42_000 / result.tokens.requested, abs=1e-3)
    print_result(result)
    assert "; 42 joules; " in capsys.readouterr().out


def test_a_run_without_a_counter_says_nothing_of_joules(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key: 0 would be a number."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr("evalkit.energy.RAPL", tmp_path / "missing")
    result = toy.run(limit=1)
    assert result.energy is None
    assert "joules" not in (Path(result.run_dir) / "results.json").read_text(encoding="utf-8")
