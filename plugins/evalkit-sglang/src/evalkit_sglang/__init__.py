"""The engine `sglang`: Hugging Face checkpoints with SGLang, on GPUs."""

__version__ = "0.1.0"
