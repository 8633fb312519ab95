"""An evalkit that was installed from a wheel, and engine packages so small that their environment takes seconds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import evalkit

PLUGIN = """
from evalkit import EngineSpec, hookimpl


@hookimpl
def register_engines(register):
    register(EngineSpec({name!r}, "for tests", load="{module}.engine:Tiny", formats=("gguf",)))
    register(EngineSpec("{name}-slow", "for tests", load="{module}.engine:Tiny"))
"""
ENGINE = "from evalkit.testing.fake import Fake as Tiny\n\n\ndef device():\n    return 'an abacus'\n"
RECIPE = 'library = "evalkit-{name}"\nimports = ["json"]\ndevice = "{module}.engine:device"\n'


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str], points: str = "") -> Path:
    """A wheel without dependencies."""
    normal = name.replace("-", "_")
    path = folder / f"{normal}-{version}-py3-none-any.whl"
    info = f"{normal}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, text)
    return path


@dataclass(frozen=True, slots=True)
class Home:
    """Where evalkit is installed, and where the environments of a test are."""

    folder: Path
    site: Path

    def at(self, folder: Path) -> Home:
        """The same installation with other environments."""
        folder.mkdir(exist_ok=True)
        return Home(folder, self.site)

    @property
    def environments(self) -> Path:
        """The folder of environments."""
        return self.folder / "environments"

    def engine(self, name: str = "tiny", version: str = "1.0", recipe: str = "", engine: str = ENGINE) -> Path:
        """The wheel of an engine's package; its environment sees the libraries of this Python."""
        module = f"evalkit_{name.replace('-', '_')}"
        files = {
            f"{module}/__init__.py": "",
            f"{module}/plugin.py": PLUGIN.format(name=name, module=module),
            f"{module}/engine.py": engine,
            f"{module}/environment.toml": RECIPE.format(name=name, module=module) + recipe,
            f"{module}.pth": sysconfig.get_path("purelib") + "\n",
        }
        return write_wheel(self.folder, f"evalkit-{name}", version, files, f"[evalkit]\n{name} = {module}.plugin\n")

    def variables(self, **more: str) -> dict[str, str]:
        """The environment of its processes: no package index, pip alone."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("EVALKIT_", "PIP_", "UV_"))}
        own = {
            "PYTHONPATH": str(self.site),
            "EVALKIT_ENVS": str(self.environments),
            "EVALKIT_CACHE_DIR": str(self.folder / "cache"),
            "EVALKIT_UV": "0",
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "COLUMNS": "200",
        }
        return {**kept, **own, **more}

    def start(self, *words: object, command: str = "env", **more: str) -> subprocess.Popen[str]:
        """Begin `evalkit env WORDS...`, or another command."""
        full = [sys.executable, "-m", "evalkit", command, *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            full,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=self.variables(**more),
            cwd=self.folder,
            # What starts the tests in the background may have Ctrl-C ignored, which processes inherit.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: object, command: str = "env", **more: str) -> subprocess.CompletedProcess[str]:
        """The same to its end."""
        with self.start(*words, command=command, **more) as process:
            out, error = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, error)


def make_home(folder: Path) -> Home:
    """Install evalkit from a wheel: its code, and what pip notes of where it came from."""
    site = folder / "site"
    source = Path(evalkit.__file__).parent
    shutil.copytree(source, site / "evalkit", ignore=shutil.ignore_patterns("__pycache__"))
    code = {str(Path("evalkit") / path.relative_to(source)): path for path in source.rglob("*") if path.is_file()}
    texts = {name: path.read_text("utf-8") for name, path in code.items() if "__pycache__" not in name}
    wheel = write_wheel(folder, "evalkit-core", evalkit.__version__, texts)
    info = site / f"evalkit_core-{evalkit.__version__}.dist-info"
    info.mkdir()
    text = f"Metadata-Version: 2.1\nName: evalkit-core\nVersion: {evalkit.__version__}\n"
    (info / "METADATA").write_text(text, encoding="utf-8")
    origin = {"url": wheel.as_uri(), "archive_info": {}}
    (info / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
    return Home(folder, site)
