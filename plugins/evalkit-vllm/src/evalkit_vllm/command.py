"""The command line of vLLM's server. Imports no vLLM."""

from __future__ import annotations

import os
from typing import Any

from evalkit.environments.recipe import has_gpu
from evalkit.errors import ConfigError
from evalkit.model import Model
from evalkit.servers import ServerCommand, flags
from evalkit_vllm.arguments import all_arguments, merged
from evalkit_vllm.engine import VLLM

VARIABLES = {"VLLM_NO_USAGE_STATS": "1"}
CPU_VARIABLES = {"VLLM_CPU_KVCACHE_SPACE": "2"}
"""GiB of its cache on a CPU, of which vLLM would take nearly all memory."""


def server_command(engine: VLLM, model: Model, served_name: str, port: int) -> ServerCommand:
    """vLLM's own server with this model. Raises ConfigError for options that contradict each other."""
    model = merged(engine, model)
    given: dict[str, Any] = all_arguments(engine, model)
    if model.max_length is not None:
        given["max_model_len"] = model.max_length + 1
    if twice := sorted(set(given) & {name.strip("-").replace("-", "_") for name in engine.server_args}):
        raise ConfigError(f"{twice[0]} is given twice: by itself, and in server_args. Leave one out")
    own: dict[str, Any] = {"host": "127.0.0.1", "port": port, "enable_tokenizer_info_endpoint": True}
    # An adapter is a model of its own there, and the one that is asked.
    own["served_model_name"] = f"{served_name}-base" if model.adapter else served_name
    if model.adapter:
        own["lora_modules"] = [f"{served_name}={model.adapter}"]
    # Not `vllm serve`, which in the build for the CPU does not find its own version.
    words = ("-m", "vllm.entrypoints.openai.api_server", *flags({**own, **given, **engine.server_args}))
    wanted = VARIABLES | ({} if has_gpu() else CPU_VARIABLES)
    return ServerCommand(words, {name: value for name, value in wanted.items() if name not in os.environ})
