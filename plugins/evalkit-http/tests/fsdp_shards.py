"""Write real sharded checkpoints: `python fsdp_shards.py FOLDER WORLD CASE...`; not a test itself.

Each case becomes FOLDER/CASE/checkpoint-7 as a trainer leaves it, with the unsharded weights beside it in
FOLDER/CASE/reference.safetensors.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from transformers import LlamaConfig, LlamaForCausalLM

SEED = 7


def build(case: str) -> LlamaForCausalLM:
    """A model none of whose sizes divides evenly: 261 words, hidden 12, 20 in between, 3 layers."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=261,
        hidden_size=12,
        intermediate_size=20 if "tensor" in case else 21,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings="tied" in case,
    )
    model = LlamaForCausalLM(config)
    if "mixed" in case:
        model.model.layers.to(torch.bfloat16)
    if "ema" in case:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
    return model


def shard(model: LlamaForCausalLM, case: str, world: int) -> None:
    """Shard over one axis, over the inner one of two, or beside tensor parallelism."""
    if "hybrid" in case:
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replicate", "shard"))
    elif "tensor" in case:
        both = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("data", "tensor"))
        split_by_tensor(model, both["tensor"])
        mesh = both["data"]
    else:
        mesh = init_device_mesh("cpu", (world,), mesh_dim_names=("shard",))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def split_by_tensor(model: LlamaForCausalLM, mesh: DeviceMesh) -> None:
    """Split each MLP over the mesh: columns, then rows."""
    plan = {"mlp.gate_proj": ColwiseParallel(), "mlp.up_proj": ColwiseParallel(), "mlp.down_proj": RowwiseParallel()}
    for layer in model.model.layers:
        parallelize_module(layer, mesh, plan)


def write(folder: Path, case: str, rank: int, world: int) -> None:
    """Write one case: every rank its shard, the first rank the rest."""
    model = build(case)
    checkpoint = folder / case / "checkpoint-7"
    shards = checkpoint / ("pytorch_ema_model_fsdp_0" if "ema" in case else "pytorch_model_fsdp_0")
    if rank == 0:
        shards.mkdir(parents=True)
        model.config.save_pretrained(checkpoint)
        save_file(
            {name: value.clone() for name, value in model.state_dict().items()}, folder / case / "reference.safetensors"
        )
    dist.barrier()
    shard(model, case, world)
    state: dict[str, Any] = model.state_dict()
    torch.save(state, shards / f"model_world_size_{world}_rank_{rank}.pt")
    dist.barrier()


def work(rank: int, folder: Path, world: int, cases: list[str]) -> None:
    """One rank."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    for case in cases:
        write(folder, case, rank, world)
    dist.destroy_process_group()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    mp.spawn(work, (target, int(sys.argv[2]), sys.argv[3:]), nprocs=int(sys.argv[2]))
