"""The evaluation service: jobs over HTTP, each an `evalkit run` in a process of its own."""
