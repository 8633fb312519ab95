"""Evaluation as a service over HTTP, and any of evalkit's engines as an OpenAI-compatible server."""

__version__ = "0.1.0"
