"""What an answer depends on: a different model, option or library is never taken for the same."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evalkit.answers import identity as module
from evalkit.answers.files import content_hash, hash_file
from evalkit.answers.identity import identity, local_files, packages_of
from evalkit.errors import ModelError
from evalkit.model import Model
from evalkit.testing.fake import Fake

if TYPE_CHECKING:
    from conftest import Toy

NAME = "evalkit.testing.fake:Fake"


@dataclass(slots=True)
class Optional(Fake):
    """The fake with options of all shapes."""

    revision: str | None = None
    adapter: str | None = None
    load_kwargs: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder."""
    made = tmp_path / "model"
    (made / "sub").mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (made / "sub" / "weights.bin").write_bytes(bytes(range(256)) * 20_000)
    return made


def _identity(model: Model, engine: Fake | None = None, execution: dict[str, Any] | None = None) -> str:
    return identity(engine or Optional(), NAME, model, execution, hash_file)


def _flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "change",
    [
        # In the middle, where a hash of both ends sees nothing.
        lambda folder: _flip(folder / "sub" / "weights.bin", 2_500_000),
        lambda folder: _flip(folder / "config.json", 0),
        lambda folder: (folder / "config.json").rename(folder / "other.json"),
        lambda folder: (folder / "tokenizer.json").write_text(""),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "sub").rename(folder / "bus"),
    ],
)
def test_one_changed_byte_is_another_model(folder: Path, change: Callable[[Path], object]) -> None:
    """Every byte counts, and every name."""
    before = _identity(Model(str(folder)))
    change(folder)
    assert _identity(Model(str(folder))) != before


def test_a_copy_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    """Neither the place nor the time of its files matters, nor whether they are links."""
    before = _identity(Model(str(folder)))
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "linked").symlink_to(folder)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "config.json").symlink_to(folder / "config.json")
    (tmp_path / "links" / "sub").symlink_to(folder / "sub")
    assert {_identity(Model(str(tmp_path / name))) for name in ("copy", "linked", "links")} == {before}


def test_a_linked_folder_counts_and_a_circle_ends(folder: Path, tmp_path: Path) -> None:
    """What is behind a link is read by the loader, too."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "part.bin").write_bytes(b"1")
    (folder / "far").symlink_to(tmp_path / "far")
    (folder / "circle").symlink_to(folder)
    before = _identity(Model(str(folder)))
    (tmp_path / "far" / "part.bin").write_bytes(b"2")
    assert _identity(Model(str(folder))) != before


def test_parts_of_a_split_file_count(tmp_path: Path) -> None:
    """llama.cpp is given the first part and reads the others."""
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    before = _identity(Model(str(first)))
    (tmp_path / "other.gguf").write_bytes(b"x")
    assert _identity(Model(str(first))) == before
    second.write_bytes(b"3")
    assert _identity(Model(str(first))) != before


def test_two_models_in_one_folder_are_two(tmp_path: Path) -> None:
    """A file that is no GGUF counts with its neighbours, and is not one of them."""
    for name in ("a.bin", "b.bin", "config.json"):
        (tmp_path / name).write_text(name)
    first, second = _identity(Model(str(tmp_path / "a.bin"))), _identity(Model(str(tmp_path / "b.bin")))
    assert first != second
    (tmp_path / "config.json").write_text("changed")
    assert _identity(Model(str(tmp_path / "a.bin"))) != first


# ── options ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_field_of_a_model_counts(folder: Path) -> None:
    """dtype, tokenizer, adapter, template, length and the loader's options."""
    other = str(folder / "sub")
    changes: dict[str, Any] = {
        "path": other,
        "tokenizer_path": other,
        "revision": "r",
        "tokenizer_revision": "r",
        "dtype": "float16",
        "trust_remote_code": True,
        "adapter": other,
        "chat_template": "{{ messages }}",
        "max_length": 7,
        "options": {"quantization": "int4"},
    }
    assert set(changes) == set(Model.__dataclass_fields__)
    base = Model(str(folder))
    found = [_identity(base), *(_identity(replace(base, **{k: v})) for k, v in changes.items())]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", ["tokenizer_path", "adapter", "chat_template"])
def test_what_a_field_leads_to_counts(folder: Path, tmp_path: Path, name: str) -> None:
    """The same path with other content is another tokenizer, adapter or template."""
    (tmp_path / "part").write_text("one")
    model = replace(Model(str(folder)), **{name: str(tmp_path / "part")})
    before = _identity(model)
    (tmp_path / "part").write_text("two")
    assert _identity(model) != before
    assert tmp_path / "part" in local_files(Fake(), model)


@pytest.mark.parametrize(
    ("engine", "same"),
    [
        (Optional(max_length=99), False),
        (Optional(load_kwargs={"KEY_CACHE_PRECISION": "u8"}), False),
        (Optional(revision="r"), False),
        (Fake(), False),
        (Optional(batch_tokens=9, delay=1.0, max_rows=2, trees=True), True),
    ],
)
def test_options_count_unless_declared_neutral(folder: Path, engine: Fake, same: bool) -> None:
    """Those that look like a secret count, too; a subclass is another engine."""
    assert (_identity(Model(str(folder)), engine) == _identity(Model(str(folder)))) == same


def test_options_that_are_paths_count_with_their_content(folder: Path, tmp_path: Path) -> None:
    """However deep they are."""
    (tmp_path / "lora").write_text("one")
    engine = Optional(load_kwargs={"parts": [{"lora": str(tmp_path / "lora")}]})
    before = _identity(Model(str(folder)), engine)
    (tmp_path / "lora").write_text("two")
    assert _identity(Model(str(folder)), engine) != before


def test_what_the_session_says_counts(folder: Path) -> None:
    """device=auto on another machine is another device; what is neutral stays so."""
    found = [_identity(Model(str(folder)), None, {"device": d, "batch_tokens": n}) for d, n in [("cpu", 1), ("cpu", 2)]]
    assert found[0] == found[1]
    assert _identity(Model(str(folder)), None, {"device": "cuda", "batch_tokens": 1}) != found[0]


def test_an_upgrade_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the engine's package, or of what it requires, is asked anew; so is changed code."""
    before = _identity(Model(str(folder)))
    with monkeypatch.context() as patched:
        patched.setattr(module, "packages_of", lambda name, cls: {**packages_of(name, cls), "numpy": "0.1"})
        assert _identity(Model(str(folder))) != before
    with monkeypatch.context() as patched:
        patched.setattr(module, "code_hash", lambda top: "other")
        assert _identity(Model(str(folder))) != before
    assert _identity(Model(str(folder))) == before


@pytest.mark.parametrize("name", ["NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE", "GGML_CUDA_FORCE_MMQ", "BEAM"])
def test_variables_that_change_numbers_count(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Precision, kernels, devices; a variable that has nothing to do with numbers does not."""
    before = _identity(Model(str(folder)))
    monkeypatch.setenv("EDITOR_OF_CHOICE", "ed")
    assert _identity(Model(str(folder))) == before
    monkeypatch.setenv(name, "1")
    assert _identity(Model(str(folder))) != before


def test_a_library_built_anew_counts(toy: Toy) -> None:
    """Though its version is the same: the installer's list of files has their hashes."""
    info = toy.site.path / "dist_toy-1.5.dist-info"
    (info / "RECORD").write_text("toy.py,sha256=one,1\n")
    before = module.builds_of("breakable", toy.module.Breakable)
    (info / "RECORD").write_text("toy.py,sha256=two,1\n")
    after = module.builds_of("breakable", toy.module.Breakable)
    assert set(before) == set(after)
    assert {name for name in before if before[name] != after[name]} == {"dist-toy"}


def test_another_processor_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder that moves to another machine answers nothing there."""
    before = _identity(Model(str(folder)))
    monkeypatch.setattr(module, "_cpu_lines", lambda: ["model name : another", "cpu MHz : 1"])
    assert module.hardware()[0] == "model name : another"
    assert _identity(Model(str(folder))) != before


def test_packages_are_those_of_the_engine(toy: Toy) -> None:
    """A registered engine's distribution and its requirements; all installed ones where there is none."""
    found = packages_of("breakable", toy.module.Breakable)
    assert found["dist-toy"] == "1.5"
    assert "numpy" in packages_of(NAME, Fake)
    assert "pytest" not in packages_of(NAME, Fake)
    toy.site.module("loose", "class Loose: pass\n")
    assert "pytest" in packages_of("loose:Loose", __import__("loose").Loose)
    del sys.modules["loose"]


# ── what cannot be known ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("model", "engine", "cause"),
    [
        (Model("org/nowhere"), Optional(), "'org/nowhere' answers: it is neither a local path"),
        (Model("server-model"), Optional(), "'server-model' answers"),
        (Model("", tokenizer_path="org/nowhere"), Optional(), "'org/nowhere' answers"),
        (Model("", adapter="nowhere"), Optional(), "'nowhere' answers"),
        (Model(""), Optional(load_kwargs={"assistant": "org/nowhere"}), "'org/nowhere' answers"),
        (Model("org/nowhere"), Optional(load_kwargs={"cache_dir": "x"}), "cache_dir may make it mean another one"),
        (Model("org/nowhere", trust_remote_code=True), Optional(), "trust_remote_code may make it"),
    ],
)
def test_nothing_is_guessed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, model: Model, engine: Optional, cause: str
) -> None:
    """What names no files on this machine is refused in one line, with the next step."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError) as caught:
        _identity(replace(model, path=model.path or str(folder)), engine)
    assert cause in str(caught.value)
    assert str(caught.value).endswith("Give a local path, or leave out --cache")
    assert "\n" not in str(caught.value)


def test_code_of_another_repository_is_refused(folder: Path) -> None:
    """Its files are not those of the model."""
    config = folder / "config.json"
    config.write_text('{"auto_map": {"AutoModel": "modeling.Mine"}}')
    assert _identity(Model(str(folder), trust_remote_code=True))
    config.write_text('{"auto_map": {"AutoModel": "org/code--modeling.Theirs"}}')
    with pytest.raises(ModelError, match=r"its code comes from org/code"):
        _identity(Model(str(folder), trust_remote_code=True))


def test_a_model_of_the_hub_is_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the cache of this machine has for the revision: an update is another model."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--org--name"
    (repo / "refs").mkdir(parents=True)

    def update(revision: str, commit: str) -> None:
        (repo / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (repo / "snapshots" / commit / "config.json").write_text("{}")
        (repo / "refs" / revision).write_text(commit)

    update("main", "a" * 40)
    update("v2", "b" * 40)
    first = _identity(Model("org/name"))
    assert _identity(Model("org/name")) == first
    assert _identity(Model("org/name", revision="v2")) != first
    assert _identity(Model("org/name"), Optional(revision="v2")) != first
    update("main", "c" * 40)
    assert _identity(Model("org/name")) != first


def test_an_unreadable_model_is_refused(folder: Path) -> None:
    """A file that vanishes, say, is no traceback."""

    def gone(path: Path) -> str:
        raise FileNotFoundError(2, "No such file", str(path))

    assert content_hash(folder, hash_file)
    with pytest.raises(ModelError, match=r"it cannot be read"):
        identity(Optional(), NAME, Model(str(folder)), None, gone)
