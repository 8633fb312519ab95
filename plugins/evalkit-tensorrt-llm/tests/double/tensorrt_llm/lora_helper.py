"""Configuration of adapters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LoraConfig:
    """`tensorrt_llm.lora_helper.LoraConfig`."""

    lora_dir: list[str]
