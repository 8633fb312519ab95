"""Merge the sharded checkpoints of FSDP2 into one that every engine loads. Only the merging process imports torch.

The server runs `python -m evalkit_http.merge CHECKPOINT --output FOLDER` as a job; `merging.merge` is the same from
Python.
"""
