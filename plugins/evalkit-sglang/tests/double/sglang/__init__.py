"""A stand-in for SGLang with the parts of its API that the engine uses, and no others; see ../../sglang_api.json."""

__version__ = "0.5.23"
