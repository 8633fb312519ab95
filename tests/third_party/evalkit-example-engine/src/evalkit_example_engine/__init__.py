"""A third party's engine for evalkit, as small as can be."""
