"""Starter tasks for evalkit: questions, arithmetic and prose that come with the package."""

__version__ = "0.1.0"
