"""A session in another process, perhaps of another environment, behind the same contract."""
