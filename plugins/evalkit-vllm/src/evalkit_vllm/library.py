"""vLLM, imported quietly and with the settings of an evaluation. All else here imports it from this module."""

from __future__ import annotations

import os
import warnings

# Read while vLLM is imported. Its scheduler runs in this process, so that nothing is left when this one is killed.
for _name, _value in {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}.items():
    os.environ.setdefault(_name, _value)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import vllm
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.lora.request import LoRARequest
    from vllm.platforms import current_platform
    from vllm.sampling_params import BeamSearchParams, RequestOutputKind
    from vllm.transformers_utils.config import get_config

__all__ = [
    "BeamSearchParams",
    "LoRARequest",
    "RequestOutputKind",
    "SamplingParams",
    "VLLMValidationError",
    "current_platform",
    "get_config",
    "vllm",
]
