"""SGLang's runtime."""
