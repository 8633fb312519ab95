"""What a session of the tinygrad engine takes: computed tokens, memory, the device that is one for the process."""

from __future__ import annotations

import sys

import pytest
from tinygrad import Device
from tinygrad.helpers import DEV

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.requests import GenerationRequest
from evalkit.testing.conformance import check_close_returns_memory
from evalkit.testing.tiny import TinyModel
from evalkit_tinygrad.engine import Tinygrad


def share_computed(tiny: TinyModel, count: int) -> float:
    """Computed tokens / unique ones, where `count` prompts have 20 tokens each behind them."""
    prompts = [f"{number:02} is the number of a line in this book" for number in range(count)]
    requests = [GenerationRequest(prompt=prompt, min_new_tokens=20, max_new_tokens=20) for prompt in prompts]
    with Tinygrad(device="CPU").build(Model(str(tiny.gguf))) as session:
        session.generate(requests)
        counts = session.token_counts()
    return counts.computed / counts.unique


@pytest.mark.parametrize(("count", "most"), [(16, 1.3), (3, 2)])
def test_few_sequences_take_small_passes(tiny: TinyModel, count: int, most: float) -> None:
    """Passes are hardly padded for a full set of rows; for a few, padding and wrong guesses at most double the work."""
    assert share_computed(tiny, count) <= most


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closing_returns_memory(tiny: TinyModel) -> None:
    """Sessions that come and go leave nothing behind; nor are their buffers kept for later tensors."""
    check_close_returns_memory(lambda: Tinygrad(device="CPU").build(Model(str(tiny.gguf))))
    assert not any(Device["CPU"].allocator.cache.values())


def test_the_device_of_a_session_is_its_own(tiny: TinyModel) -> None:
    """tinygrad's setting for the process is as before, while a session is open, when it is closed, and when refused."""
    before = DEV.value
    with Tinygrad(device="CPU").build(Model(str(tiny.gguf))) as session:
        assert DEV.value == before
        assert session.generate([GenerationRequest(prompt="A", max_new_tokens=2)])[0].error is None
    assert DEV.value == before
    for device in ("NOSUCH", "CPU:a:b:c:d"):
        with pytest.raises(ConfigError, match="tinygrad cannot use"):
            Tinygrad(device=device).build(Model(str(tiny.gguf)))
        assert DEV.value == before
