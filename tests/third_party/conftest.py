"""The stranger's own tests run in the stranger's environment only."""

collect_ignore = ["evalkit-example-engine"]
