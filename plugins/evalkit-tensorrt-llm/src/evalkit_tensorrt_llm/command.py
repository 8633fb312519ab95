"""The command line of `trtllm-serve`."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.servers import ServerCommand
from evalkit_tensorrt_llm.arguments import all_arguments
from evalkit_tensorrt_llm.engine import TensorRTLLM


def server_command(engine: TensorRTLLM, model: Model, served_name: str, port: int) -> ServerCommand:
    """`trtllm-serve` with this model. Raises ConfigError for what it cannot do."""
    if model.adapter is not None:
        raise ConfigError("an adapter cannot be asked for through a server of tensorrt-llm. Leave out start_server")
    given = all_arguments(engine, model)
    path, tokenizer, _ = (given.pop(name) for name in ("model", "tokenizer", "backend"))
    folder = Path(tempfile.mkdtemp(prefix="evalkit-tensorrt-llm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    more = folder / "options.yaml"
    # JSON is YAML.
    more.write_text(json.dumps(given), encoding="utf-8")
    own = {"host": "127.0.0.1", "port": port, "backend": "pytorch", "tokenizer": tokenizer}
    own |= {"extra_llm_api_options": more}
    words = [word for name, value in {**own, **engine.server_args}.items() for word in _words(name, value)]
    return ServerCommand(
        ("-m", "tensorrt_llm.commands.serve", "serve", str(_named(path, folder / served_name)), *words)
    )


def _named(path: str, link: Path) -> Path:
    """The model under another name: the server calls a model as its folder is called, and takes no other name."""
    if not Path(path).is_dir():
        raise ConfigError(f"a server of tensorrt-llm takes a local folder, and {path!r} is none. Download it first")
    link.symlink_to(Path(path).resolve(), target_is_directory=True)
    return link


def _words(name: str, value: Any) -> tuple[str, ...]:
    """Its options are spelled with underscores; its switches have no opposites."""
    return () if value in (None, False) else (f"--{name}",) if value is True else (f"--{name}", str(value))
