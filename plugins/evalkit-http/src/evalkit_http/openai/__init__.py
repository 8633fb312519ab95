"""Any engine as an OpenAI-compatible server: `evalkit serve-model` and `build_openai_compatible_server`."""
