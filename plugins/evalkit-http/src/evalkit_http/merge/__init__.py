"""Merge the sharded checkpoints of FSDP2 into one that every engine loads. Only the merging process imports torch.

`evalkit merge CHECKPOINT` does it, the server runs that as a job, and `merging.merge` is the same from Python.
"""
