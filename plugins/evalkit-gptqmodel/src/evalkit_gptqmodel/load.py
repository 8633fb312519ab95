"""Load a quantized checkpoint with GPTQModel, and make sure that it is what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gptqmodel
import torch
from gptqmodel.adapter.adapter import AdapterCache, Lora
from gptqmodel.quantization import METHOD

from evalkit.errors import ConfigError, MissingDependencyError, ModelError, one_line
from evalkit.model import Model
from evalkit_gptqmodel.checkpoint import check_adapter, quantization
from evalkit_gptqmodel.engine import GPTQModel
from evalkit_gptqmodel.quiet import quiet, set_log_level

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ELSEWHERE = {"vllm": "--engine vllm", "sglang": "--engine sglang", "mlx": "another kernel: evalkit has no MLX engine"}
"""Backends of GPTQModel that hand the model to another system."""
OWN_OPTIONS = ("backend", "device", "device_map", "dtype", "trust_remote_code", "adapter", "attn_implementation")
PACKAGE = "gptqmodel.nn_modules"


def load_model(engine: GPTQModel, model: Model, folder: Path) -> Any:
    """GPTQModel's wrapper of the model. Raises ModelError, ConfigError, MissingDependencyError."""
    _check_method(folder)
    kwargs = _load_kwargs(engine, model)
    adapter = model.adapter or engine.adapter
    if adapter is not None:
        check_adapter(adapter)
        kwargs["adapter"] = Lora(rank=None, path=adapter)
    set_log_level(verbose=engine.verbose)
    AdapterCache.cache.clear()
    with quiet(verbose=engine.verbose):
        try:
            loaded = gptqmodel.GPTQModel.load(str(folder), **kwargs)
        except ImportError as error:
            raise MissingDependencyError(f"model {model.path!r} needs a library: {one_line(error, 200)}") from error
        except Exception as error:
            raise _failure(engine, model, error) from error
    _check_loaded(engine, model, loaded)
    if engine.attn_implementation is not None:
        _set_attention(loaded.model, engine.attn_implementation)
    loaded.model.eval().requires_grad_(False)
    return loaded


def quantized_layers(model: Any) -> list[Any]:
    """The layers that GPTQModel put in the place of linear ones."""
    return [module for module in model.modules() if type(module).__module__.startswith(PACKAGE)]


def _check_method(folder: Path) -> None:
    found = quantization(folder)
    method = str(found.get("quant_method", found.get("method", METHOD.GPTQ.value))).lower()
    known = sorted(str(one.value) for one in METHOD)
    if method not in known:
        raise ModelError(
            f"{folder} is quantized by {method!r}, which GPTQModel does not load (it loads {', '.join(known)}). "
            "Use --engine transformers or --engine vllm"
        )


def _load_kwargs(engine: GPTQModel, model: Model) -> dict[str, Any]:
    kwargs: dict[str, Any] = {**engine.load_kwargs, **model.options}
    for name in OWN_OPTIONS:
        if name in kwargs:
            raise ConfigError(f"{name!r} is an option of its own. Give --engine-arg {name}=, not in load_kwargs")
    if engine.device != "auto" and engine.device_map is not None:
        raise ConfigError("device and device_map contradict each other. Give one of them")
    kwargs["backend"] = _backend(engine.backend)
    dtype = model.dtype or engine.dtype
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError(f"there is no dtype {dtype!r}. Use auto, {', '.join(DTYPES)}")
        # Not its name: GPTQModel takes every text for "auto".
        kwargs["dtype"] = DTYPES[dtype]
    if engine.device != "auto":
        kwargs["device"] = _device(engine.device)
    if engine.device_map is not None:
        kwargs["device_map"] = engine.device_map
    kwargs["trust_remote_code"] = engine.trust_remote_code or model.trust_remote_code
    return kwargs


def _backend(name: str) -> Any:
    names = {str(backend.value): backend for backend in gptqmodel.BACKEND}
    lowered = name.lower()
    if lowered in ELSEWHERE:
        raise ConfigError(f"backend {name!r} is another system. Use {ELSEWHERE[lowered]}")
    if lowered not in names:
        known = ", ".join(sorted(set(names) - set(ELSEWHERE)))
        raise ConfigError(f"GPTQModel {gptqmodel.__version__} has no backend {name!r}. Use one of: {known}")
    return names[lowered]


def _device(name: str) -> str:
    try:
        torch.empty(1, device=torch.device(name))
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r} is not available here. Use device=auto or device=cpu") from error
    return name


def _set_attention(model: Any, name: str) -> None:
    # GPTQModel itself heeds the option on some devices only.
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError, KeyError) as error:
        raise ConfigError(f"attn_implementation={name} is not possible here: {one_line(error, 160)}") from error
    if model.config._attn_implementation != name:
        raise ConfigError(f"attn_implementation={name} is not possible with {type(model).__name__}. Leave it out")


def _failure(engine: GPTQModel, model: Model, error: Exception) -> ModelError:
    cause = one_line(error, 240) or type(error).__name__
    if "trust_remote_code" in cause:
        return ModelError(
            f"model {model.path!r} brings code of its own. If you trust it: --model-arg trust_remote_code=true"
        )
    asked = f"backend={engine.backend}, device={engine.device}, dtype={model.dtype or engine.dtype}"
    return ModelError(
        f"GPTQModel cannot load {model.path!r} with {asked}: {cause}. Leave these options out, or check its files"
    )


def _check_loaded(engine: GPTQModel, model: Model, loaded: Any) -> None:
    """GPTQModel changes some requests without an error, and leaves layers that it does not know as they are."""
    if not quantized_layers(loaded.model):
        raise ModelError(f"GPTQModel found no quantized layer in {model.path!r}. Use --engine transformers")
    dtype = model.dtype or engine.dtype
    if dtype != "auto" and loaded.model.dtype != DTYPES[dtype]:
        found = str(loaded.model.dtype).removeprefix("torch.")
        raise ConfigError(f"GPTQModel computes this checkpoint in {found}, not in {dtype}. Leave dtype out")
    left = [name for entry in AdapterCache.cache.values() for name in entry["weights"]]
    if left:
        raise ModelError(
            f"the adapter has {len(left)} weights that no quantized layer takes, {min(left)} among them. "
            "Check that it is for this model"
        )
