"""What the core's tests share: plugins installed for one test through real entry points, and a toy benchmark."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from evalkit.plugins import get_plugins
from evalkit.results import RunResult
from evalkit.runner import evaluate

settings.register_profile("evalkit", deadline=None)
settings.load_profile("evalkit")

Doc = dict[str, Any]
Holding = Callable[[Path], AbstractContextManager["subprocess.Popen[str]"]]
HOLDER = """
import sys
from pathlib import Path
from evalkit.runs.folder import RunFolder

folder = RunFolder.open(Path(sys.argv[1]))
folder.lock()
print("locked", flush=True)
sys.stdin.read()
"""


class Site:
    """A folder of installed distributions that only one test sees."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.names: list[str] = []
        self._monkeypatch = monkeypatch
        path.mkdir()
        monkeypatch.syspath_prepend(str(path))
        self.limit_to()

    def module(self, name: str, source: str) -> None:
        """Install a module that is no plugin."""
        (self.path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()

    def plugin(self, name: str, source: str, *, module: str | None = None, distribution: str | None = None) -> None:
        """Install a distribution with one module, to which the entry point `name` leads."""
        distribution = distribution or f"dist-{name}"
        module = module or f"plugin_{name.replace('-', '_')}"
        info = self.path / f"{distribution.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[evalkit]\n{name} = {module}\n", encoding="utf-8")
        self.module(module, source)
        self.names = [*dict.fromkeys([*self.names, name])]
        self.limit_to(*self.names)

    def limit_to(self, *names: str) -> None:
        """Load these plugins only, whatever else the machine has; without names none."""
        self._monkeypatch.setenv("EVALKIT_PLUGINS", ",".join(names))
        get_plugins.cache_clear()

    def forget(self) -> None:
        """Unload what was imported from here."""
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(str(self.path)):
                del sys.modules[name]
        get_plugins.cache_clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Installs plugins for this test; those of the machine are not loaded."""
    made = Site(tmp_path / "site", monkeypatch)
    yield made
    made.forget()


@dataclass(frozen=True, slots=True)
class Toy:
    """The toy benchmark of `toy_benchmark.py`, installed as a plugin."""

    path: Path
    data_dir: Path
    site: Site

    @property
    def module(self) -> Any:
        """The plugin's module."""
        return importlib.import_module("toy_benchmark")

    @property
    def tape(self) -> Any:
        """What the engine was asked and answered, and when it crashes."""
        return self.module.TAPE

    def write(self, split: str, docs: list[Doc]) -> None:
        """Replace the documents of a split."""
        folder = self.data_dir / "toy" / "facts" / "default"
        folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(doc) + "\n" for doc in docs)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")

    def run(self, *tasks: str, **fields: Any) -> RunResult:
        """Evaluate on `tasks` (all of them by default) with the toy engine."""
        given = {"engine": "breakable", "model": "fake", "data_dir": str(self.data_dir), **fields}
        return evaluate(list(tasks) or ["toy"], **given)

    def samples(self, result: RunResult, task: str) -> list[Doc]:
        """The rows of a sample file."""
        text = (Path(result.run_dir) / f"samples_{task}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def sample_files(self, run_dir: str | Path) -> dict[str, str]:
        """The sample files' contents."""
        return {path.name: path.read_text(encoding="utf-8") for path in Path(run_dir).glob("samples_*")}

    def manifest(self, run_dir: str | Path) -> dict[str, Any]:
        """What run.json holds."""
        found: dict[str, Any] = json.loads((Path(run_dir) / "run.json").read_text(encoding="utf-8"))
        return found

    def crash(self, output: Path, after: int, **fields: Any) -> None:
        """Run until `after` requests are answered."""
        self.tape.crash_after = after
        with pytest.raises(RuntimeError, match=r"the machine went away"):
            self.run(output=str(output), **fields)
        self.tape.crash_after = None


def fact(number: int, answer: int) -> Doc:
    """A document of the toy benchmark."""
    return {
        "question": f"{number} + {number}?",
        "choices": [f"{2 * number}", f"naïve {number}", "no"],
        "answer": answer,
        "text": f"Page {number}.\nTwo lines, {number} words.",
    }


@pytest.fixture
def toy(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The toy benchmark: `toy.run(...)` evaluates it with an engine that can be made to crash."""
    name = "toy_benchmark"
    site.plugin("toy", Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"), module=name)
    monkeypatch.setenv("EVALKIT_RUNS_DIR", str(tmp_path / "runs"))
    made = Toy(tmp_path, tmp_path / "data", site)
    made.write("test", [fact(number, number % 3) for number in range(4)])
    made.write("train", [fact(number, 0) for number in range(10, 15)])
    return made


@pytest.fixture
def held_elsewhere() -> Holding:
    """`with held_elsewhere(path) as process`: another process holds the lock of the run folder `path`."""
    return _held_elsewhere


@contextmanager
def _held_elsewhere(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder's lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "locked\n"
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()
