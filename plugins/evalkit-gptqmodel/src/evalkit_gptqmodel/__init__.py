"""The GPTQModel engine for evalkit."""

__version__ = "0.1.0"
