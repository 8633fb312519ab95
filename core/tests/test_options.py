"""`K=V` words become options of the right type, or one line that says what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.options import NotNegative, Positive, build, check_options, parse_assignments


@dataclass
class Options:
    """An option of every kind."""

    count: int = 1
    rate: float = 1.0
    flag: bool = False
    name: str = ""
    revision: str | None = None
    size: int | None = None
    dtype: Literal["auto", "float32"] = "auto"
    words: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    hidden: int = field(default=0, init=False)


@dataclass
class Picky:
    """Checks its own values."""

    even: int = 0

    def __post_init__(self) -> None:
        if self.even % 2:
            raise ValueError(f"{self.even} is odd")


OWNER = "engine 'x'"


def _parse(*words: str) -> dict[str, Any]:
    return parse_assignments(words, Options, OWNER)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("count=3", 3),
        ("count=08", 8),
        ("rate=1e-3", 0.001),
        ("rate=2", 2.0),
        ("flag=true", True),
        ("flag=no", False),
        ("flag=0", False),
        ("revision=null", None),
        ("revision=", None),
        ("size=null", None),
        ("size=4", 4),
        ("dtype=float32", "float32"),
        ("words=[a, b]", ("a", "b")),
        ("extra={a: 1, b: [x]}", {"a": 1, "b": ["x"]}),
        ("name=a=b", "a=b"),
    ],
)
def test_values_are_yaml(word: str, value: Any) -> None:
    """A value is read as YAML and has the option's type."""
    found = _parse(word)[word.partition("=")[0]]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["007", "1.0", "true", "2024-01-01", "[a]", "{a: 1}", "no", "1_000", ": :", "0x1F"])
@pytest.mark.parametrize("option", ["name", "revision"])
def test_text_options_keep_their_text(option: str, text: str) -> None:
    """A text stays as it was typed, though YAML would read a number, a date or a list."""
    assert _parse(f"{option}={text}") == {option: text}


@pytest.mark.parametrize(
    ("word", "type_name"),
    [
        ("count=many", "int"),
        ("rate=[1]", "float"),
        ("flag=maybe", "bool"),
        ("dtype=float16", "Literal"),
        ("count=1.5", "int"),
    ],
)
def test_a_wrong_type_names_option_value_and_type(word: str, type_name: str) -> None:
    """The message says which option of what got which value, and what it takes."""
    name, _, text = word.partition("=")
    with pytest.raises(
        ConfigError, match=rf"option '{name}' of engine 'x': .*Give a value of type {type_name}"
    ) as caught:
        _parse(word)
    assert text.strip("[]") in str(caught.value)


def test_a_misspelt_option_gets_the_nearest() -> None:
    """A wrong name is refused with the right one and the list of all; what has no place in `__init__` is none."""
    with pytest.raises(ConfigError) as caught:
        _parse("cuont=1")
    assert str(caught.value).startswith("engine 'x' has no option 'cuont'. Did you mean 'count'? Options: count, rate")
    with pytest.raises(ConfigError, match=r"no option 'hidden'") as caught:
        _parse("hidden=1")
    assert "hidden" not in str(caught.value).partition("Options:")[2]


@pytest.mark.parametrize("word", ["count", "=3", ""])
def test_a_word_without_name_or_value_is_refused(word: str) -> None:
    """The form is NAME=VALUE."""
    with pytest.raises(ConfigError, match=r"is not of the form NAME=VALUE. Options of engine 'x': count"):
        _parse(word)


def test_the_last_of_equal_words_wins() -> None:
    """Giving an option twice is giving it anew."""
    assert _parse("count=1", "count=2") == {"count": 2}


def test_parsed_values_are_checked_as_well() -> None:
    """Values from a YAML file or from Python are validated, not believed; a text is not parsed again."""
    assert check_options({"count": 2, "name": "7"}, Options, OWNER) == {"count": 2, "name": "7"}
    with pytest.raises(ConfigError, match=r"option 'name' of engine 'x'"):
        check_options({"name": 7}, Options, OWNER)


def test_build_gives_the_instance() -> None:
    """Options that fit make an instance; those left out have their defaults."""
    assert build(Options, {"count": 5}, OWNER) == Options(count=5)
    assert build(Model, {"path": "m", "max_length": 8}, "the model") == Model("m", max_length=8)


@pytest.mark.parametrize(("cls", "values"), [(Picky, {"even": 3}), (Model, {})])
def test_build_reports_what_the_class_refuses(cls: type[Any], values: dict[str, Any]) -> None:
    """A value that the class itself refuses, or a missing one, is a ConfigError with the options."""
    with pytest.raises(ConfigError, match=r"refuses its options: .* Options: (even|path)"):
        build(cls, values, OWNER)


def test_a_class_without_options_says_so() -> None:
    """An engine that is no dataclass has no options."""
    with pytest.raises(ConfigError, match=r"has no option 'a'. Options: none"):
        parse_assignments(["a=1"], object, OWNER)


@dataclass
class Counting:
    """Options that count something."""

    rows: Positive = 1
    ahead: NotNegative = 0
    most: Positive | None = None


@pytest.mark.parametrize("values", [{"rows": 0}, {"rows": -1}, {"ahead": -1}, {"most": 0}])
def test_counts_have_a_least_value(values: dict[str, Any]) -> None:
    """A count of nothing, or less, is refused with the reason and the plain type."""
    with pytest.raises(ConfigError, match=r"Input should be greater than .* Give a value of type [^,]*int"):
        build(Counting, values, "engine 'x'")
    assert build(Counting, {"rows": 1, "ahead": 0, "most": 3}, "engine 'x'") == Counting(1, 0, 3)
