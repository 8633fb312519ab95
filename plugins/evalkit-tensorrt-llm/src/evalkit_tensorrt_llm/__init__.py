"""The engine `tensorrt-llm`: Hugging Face checkpoints with TensorRT LLM, on NVIDIA GPUs."""

__version__ = "0.1.0"
