"""The engine `openai`: models behind any OpenAI-compatible endpoint."""

__version__ = "0.1.0"
