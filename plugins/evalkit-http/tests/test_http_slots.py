"""Device slots: what is detected, what fits, and that no two jobs share one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import ConfigError
from evalkit_http.service.slots import Need, Slots, detect_gpus

TWO = ("0", "GPU-5a")


def test_all_gpus_and_a_slot_without_one_by_default() -> None:
    """A machine with GPUs has a slot for each, and jobs without a GPU have their own."""
    assert Slots(gpus=TWO).names == ("cuda:0", "cuda:1", "cpu:0")
    assert Slots(gpus=(), cpu_slots=2).names == ("cpu:0", "cpu:1")


def test_visible_devices_limit_what_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is itself kept on some GPUs gives out no others."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5a")
    assert detect_gpus() == ["3", "GPU-5a"]
    assert Slots().environment(["cuda:0"])["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect_gpus() == []


@pytest.mark.parametrize(
    ("need", "taken"),
    [
        (Need(), ("cuda:0",)),
        (Need(2), ("cuda:0", "cuda:1")),
        (Need(1, "cuda"), ("cuda:0",)),
        (Need(1, "cuda:1"), ("cuda:1",)),
        (Need(1, "cpu"), ("cpu:0",)),
        (Need(0), ("cpu:0",)),
    ],
)
def test_a_need_is_met_by_what_fits(need: Need, taken: tuple[str, ...]) -> None:
    """A kind takes any of the kind, a number exactly that one, nothing the server's best."""
    assert Slots(gpus=TWO).take(need) == taken


def test_a_process_sees_its_own_gpus_only() -> None:
    """The variable names the machine's GPUs as the driver does; without a GPU slot there is none to see."""
    slots = Slots(gpus=TWO)
    assert slots.environment(["cuda:1"])["CUDA_VISIBLE_DEVICES"] == "GPU-5a"
    assert slots.environment(["cpu:0"])["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("need", "says"), [(Need(3), "only 2 fit"), (Need(1, "cuda:7"), "This server has"), (Need(2, "cuda:0"), "only 1")]
)
def test_what_can_never_be_met_is_refused(need: Need, says: str) -> None:
    """More than there is, and devices that there are not, are refused at once."""
    with pytest.raises(ConfigError, match=says):
        Slots(gpus=TWO).check(need)


def test_slots_are_named_once() -> None:
    """A slot that is listed twice would run two jobs at a time."""
    with pytest.raises(ConfigError, match="each once"):
        Slots(("cuda:0", "cuda:0"))
    assert Slots(("cpu", "cpu"), gpus=()).names == ("cpu:0", "cpu:1")


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([None, "cuda", "cpu", "cuda:1"]), st.booleans()), max_size=40)
)
def test_no_slot_is_given_twice(steps: list[tuple[int, str | None, bool]]) -> None:
    """Whatever is taken and given back: slots taken at one time are disjoint, and none gets lost."""
    slots = Slots(gpus=("0", "1", "2"), cpu_slots=2)
    held: list[tuple[str, ...]] = []
    for count, device, give in steps:
        if give and held:
            slots.release(held.pop(0))
        elif (taken := slots.take(Need(count, device))) is not None:
            held.append(taken)
        flat = [name for names in held for name in names]
        assert len(set(flat)) == len(flat)
        assert slots.free == set(slots.names) - set(flat)
