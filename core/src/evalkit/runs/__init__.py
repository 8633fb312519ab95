"""A run is a folder that can be copied: what was asked (run.json), every answer (journal.sqlite), the results."""
