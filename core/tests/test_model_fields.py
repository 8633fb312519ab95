"""Fields of a model that an engine cannot honour are refused, not ignored."""

from __future__ import annotations

import pytest

from evalkit.errors import ConfigError
from evalkit.model import Model, chosen_dtype, refuse_fields


@pytest.mark.parametrize(("name", "value"), [("adapter", "lora"), ("options", {"a": 1})])
def test_a_field_without_use_is_named(name: str, value: object) -> None:
    """With what to do instead; fields that are not set are no matter."""
    advice = {"adapter": "Merge it.", "options": "Drop them."}
    refuse_fields(Model("m"), "toy", **advice)
    with pytest.raises(ConfigError, match=rf"'toy' has no use for the model's {name}. {advice[name]}"):
        refuse_fields(Model("m", **{name: value}), "toy", **advice)  # type: ignore[arg-type]


def test_the_dtype_of_the_model_comes_first() -> None:
    """Then the engine's; one that the engine does not know is refused."""
    known = ("auto", "float32")
    assert chosen_dtype(Model("m", dtype="float32"), "toy", "auto", known) == "float32"
    assert chosen_dtype(Model("m"), "toy", "auto", known) == "auto"
    with pytest.raises(ConfigError, match=r"'float64'\. Use auto, float32"):
        chosen_dtype(Model("m", dtype="float64"), "toy", "auto", known)
