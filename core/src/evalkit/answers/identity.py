"""What an answer depends on beside the request: the model's bytes, options, code and hardware. Nothing is guessed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution, distributions, packages_distributions
from pathlib import Path
from typing import Any

from evalkit.answers.files import Hash, content_hash, files_of
from evalkit.engine import BaseEngine
from evalkit.errors import ModelError, one_line
from evalkit.model import Model
from evalkit.plugins import get_plugins

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
HIDDEN_SOURCES = ("cache_dir", "revision", "code_revision")
"""Options that, passed on to a loader, make a hub id mean something that cannot be seen from here."""
NUMERIC = (
    *("NVIDIA_", "CUDA_", "CUBLAS", "CUDNN_", "HIP_", "ROCM_", "TORCH_", "PYTORCH_", "ATEN_", "OMP_", "KMP_", "MKL_"),
    *("ONEDNN_", "DNNL_", "OPENBLAS_", "GGML_", "LLAMA_", "OV_", "OPENVINO_", "VLLM_", "SGLANG_", "FLASHINFER_"),
    # tinygrad's, in full
    *("ALLOW_TF32", "FLOAT16", "IMAGE", "TRANSCENDENTAL", "TC", "BEAM", "NOOPT", "DEV", "DEFAULT_FLOAT"),
)
"""How the names of variables begin that change numbers. One too many costs an answer, one too few its truth."""
NAMES_OF_MODELS = ("path", "tokenizer_path", "adapter")


def identity(engine: BaseEngine, name: str, model: Model, execution: Mapping[str, Any] | None, hash_file: Hash) -> str:
    """A hash of everything that answers of this session depend on. Raises ModelError where that cannot be known."""
    if engine.is_remote or (name in get_plugins().engines and get_plugins().engine(name).remote):
        raise ModelError(
            f"the answer cache cannot tell which model answers as {model.path!r}: a server may change it at any time. "
            "Leave out --cache"
        )
    neutral = type(engine).neutral_options
    options = {k: v for k, v in _options(engine).items() if k not in neutral}
    of_model = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    sources = _Sources(model, options, hash_file)
    value = {
        "model": {k: sources.resolved(k, v) for k, v in of_model.items()},
        "engine": [name, type(engine).__module__, type(engine).__qualname__],
        "options": {k: sources.resolved(k, v) for k, v in options.items()},
        "execution": {k: v for k, v in (execution or {}).items() if k not in neutral},
        "packages": packages_of(name, type(engine)),
        "builds": builds_of(name, type(engine)),
        "code": [code_hash(part) for part in dict.fromkeys(("evalkit", type(engine).__module__.partition(".")[0]))],
        "machine": [platform.system(), platform.machine(), platform.processor(), platform.python_version()],
        "hardware": hardware(),
        "environment": environment(),
    }
    # Nothing is redacted: "KEY_CACHE_PRECISION" looks like a secret and changes numbers. Only this hash goes on.
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def local_files(engine: BaseEngine, model: Model) -> list[Path]:
    """The files on this disk that the model and the options name."""
    roots = (Path(text) for text in _texts([dataclasses.asdict(model), _options(engine)]) if _is_path(text))
    return [path for root in roots for _, path in files_of(root)]


class _Sources:
    """Puts in the place of every path its content, and in the place of every hub id its commit."""

    def __init__(self, model: Model, options: Mapping[str, Any], hash_file: Hash) -> None:
        self.model = model
        self.hash_file = hash_file
        self.revision = model.revision or options.get("revision")
        self.hidden = sorted(_keys(model.options, *options.values()) & set(HIDDEN_SOURCES))

    def resolved(self, name: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): self.resolved(str(key), item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.resolved("", item) for item in value]
        if not isinstance(value, str):
            return value
        if _is_path(value):
            return {"content": self._content(value)}
        if name in NAMES_OF_MODELS or (HUB_ID.match(value) and name != "chat_template"):
            return {"hub": value, "commit": self._commit(name, value)}
        return value

    def _content(self, path: str) -> str:
        try:
            found = content_hash(Path(path), self.hash_file)
        except OSError as error:
            raise _unknown(path, f"it cannot be read ({one_line(error)})") from error
        if foreign := _foreign_code(Path(path)):
            raise _unknown(path, f"its code comes from {foreign}")
        return found

    def _commit(self, name: str, value: str) -> str:
        if self.hidden or self.model.trust_remote_code:
            raise _unknown(value, f"{', '.join(self.hidden) or 'trust_remote_code'} may make it mean another one")
        if name == "path":
            return _hub_commit(value, self.revision)
        if name == "tokenizer_path":
            return _hub_commit(value, self.model.tokenizer_revision)
        # Loaders differ in whether the model's revision holds for what comes with it.
        return f"{_hub_commit(value, None)} {_hub_commit(value, self.revision) if self.revision else ''}"


def packages_of(name: str, cls: type[Any]) -> dict[str, str]:
    """Versions of the engine's package and all that it requires; of everything installed where it has no package."""
    plugins = get_plugins()
    if name in plugins.engines:
        owner = plugins.engines.owner(name)
        owners = {plugin.distribution for plugin in plugins.plugins if plugin.name == owner}
    else:
        top = cls.__module__.partition(".")[0]
        owners = {"evalkit-core"} if top == "evalkit" else set(_owners().get(top, ()))
    if not owners:
        return {dist.name: dist.version for dist in sorted(distributions(), key=lambda d: d.name)}
    return _versions([*owners, "evalkit-core"])


def builds_of(name: str, cls: type[Any]) -> dict[str, str]:
    """For the same packages a hash of what was installed: a library built anew may have the version of the old one."""
    records = {package: distribution(package).read_text("RECORD") for package in packages_of(name, cls)}
    return {package: hashlib.sha256(text.encode()).hexdigest() for package, text in records.items() if text}


def environment() -> dict[str, str]:
    """The environment variables that change the numbers of numeric libraries: precision, kernels, devices, threads."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(NUMERIC)}


def hardware() -> list[str]:
    """Processor and accelerators by name, and the precision that a program chose for its products of matrices."""
    found = [line for line in _cpu_lines() if line.startswith(("model name", "flags", "Features"))]
    torch = sys.modules.get("torch")
    if torch is not None:
        found.append(str(torch.get_float32_matmul_precision()))
        if torch.cuda.is_available():
            found += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found


def _cpu_lines() -> list[str]:
    """What Linux says about the first processor."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return []


@functools.cache
def _owners() -> Mapping[str, list[str]]:
    return packages_distributions()


def _versions(names: list[str]) -> dict[str, str]:
    """Versions of these distributions, and of all that they need and that is installed."""
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            dist = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = dist.version
        needed = (line for line in dist.requires or [] if "extra ==" not in line)
        waiting += [match[0] for line in needed if (match := re.match(r"[\w.-]+", line))]
    return found


@functools.cache
def code_hash(top: str) -> str:
    """A hash of an imported package's own files: in development code changes and its version does not."""
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:
        return ""
    root = Path(file)
    paths = root.parent.rglob("*") if root.name == "__init__.py" else [root]
    digest = hashlib.sha256()
    for path in sorted(p for p in paths if p.is_file() and p.suffix != ".pyc"):
        digest.update(f"{path.relative_to(root.parent)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _hub_commit(repo: str, revision: str | None) -> str:
    """The commit that the hub's cache on this machine has for a revision: the one that was just loaded."""
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(repo, revision=revision, local_files_only=True)).name
    except Exception as error:  # whatever the library raises: a missing snapshot, no such name, a broken cache
        raise _unknown(repo, "it is neither a local path nor in the hub's cache on this machine") from error


def _foreign_code(root: Path) -> str | None:
    """The repository that a checkpoint takes code from, where that is another one than itself."""
    config = root / "config.json"
    if not config.is_file():
        return None
    found = re.search(r'"auto_map"[^}]*"([\w./-]+)--', config.read_text(encoding="utf-8", errors="replace"))
    return found[1] if found else None


def _unknown(name: str, cause: str) -> ModelError:
    return ModelError(
        f"the answer cache cannot tell which version of {name!r} answers: {cause}. "
        "Give a local path, or leave out --cache"
    )


def _options(engine: BaseEngine) -> dict[str, Any]:
    return dataclasses.asdict(engine) if dataclasses.is_dataclass(engine) else {}


def _is_path(text: str) -> bool:
    # A chat template may be given as text, longer than any file name.
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):
        return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _texts(item)


def _keys(*values: Any) -> set[str]:
    """The keys of all mappings in plain data, however deep."""
    found = set()
    for value in values:
        if isinstance(value, Mapping):
            found |= {str(key) for key in value} | _keys(*value.values())
        elif isinstance(value, (list, tuple)):
            found |= _keys(*value)
    return found
