"""SmolLM2-135M-Instruct for evalkit: a small real model that installs from the package index alone."""

__version__ = "0.1.0"
