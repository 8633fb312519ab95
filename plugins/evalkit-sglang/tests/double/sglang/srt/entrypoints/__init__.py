"""SGLang's ways in."""
