"""For authors of engines and tasks: a conformance suite, a fake engine, and tiny models built on the spot.

`evalkit.testing.conformance` needs pytest, `evalkit.testing.tiny` needs the extra `evalkit-core[testing]`.
"""
