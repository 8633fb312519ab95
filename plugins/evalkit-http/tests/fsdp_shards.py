"""Write real sharded checkpoints: `python fsdp_shards.py FOLDER CASE...`; not a test itself.

A case begins with its number of processes: "4-hybrid-tied". It becomes FOLDER/CASE/checkpoint-7 as a trainer leaves
it, with the unsharded weights beside it in FOLDER/CASE/reference.safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

SEED, VOCAB, HIDDEN, LAYERS = 7, 261, 12, 3


class Attention(nn.Module):
    """A Llama's four projections."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(HIDDEN, HIDDEN, bias=False) for _ in range(4))


class Mlp(nn.Module):
    """A Llama's three."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(HIDDEN, width, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(width, HIDDEN, bias=False)


class Layer(nn.Module):
    """A Llama's layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), Mlp(width)
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(HIDDEN), nn.RMSNorm(HIDDEN)


class Body(nn.Module):
    """All below the head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, HIDDEN)
        self.layers = nn.ModuleList(Layer(width) for _ in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN)


class Llama(nn.Module):
    """Weights with a Llama's names; few of their sizes divide by the number of processes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = Body(width)
        self.lm_head = nn.Linear(HIDDEN, VOCAB, bias=False)


def build(case: str) -> tuple[Llama, dict[str, object]]:
    """A case's model and its configuration."""
    torch.manual_seed(SEED)
    width = 20 if "tensor" in case else 21
    model = Llama(width)
    if "tied" in case:
        model.lm_head.weight = model.model.embed_tokens.weight
    if "mixed" in case:
        model.model.layers.to(torch.bfloat16)
    if "ema" in case:
        model.requires_grad_(False)
        for parameter in model.parameters():
            parameter.mul_(0.5)
    sizes = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": width, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": "tied" in case}
    return model, {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **sizes, **heads}


def shard(model: Llama, case: str, world: int) -> None:
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


def split_by_tensor(model: Llama, mesh: DeviceMesh) -> None:
    """Split each MLP over the mesh: columns, then rows."""
    plan = {"mlp.gate_proj": ColwiseParallel(), "mlp.up_proj": ColwiseParallel(), "mlp.down_proj": RowwiseParallel()}
    for layer in model.model.layers:
        parallelize_module(layer, mesh, plan)


def write(folder: Path, case: str, rank: int, world: int) -> None:
    """Write one case: every rank its shard, the first rank the rest."""
    model, config = build(case)
    checkpoint = folder / case / "checkpoint-7"
    shards = checkpoint / ("pytorch_ema_model_fsdp_0" if "ema" in case else "pytorch_model_fsdp_0")
    if rank == 0:
        shards.mkdir(parents=True)
        (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
        whole = {name: value.clone() for name, value in model.state_dict().items()}
        save_file(whole, folder / case / "reference.safetensors")
    dist.barrier()
    shard(model, case, world)
    torch.save(model.state_dict(), shards / f"model_world_size_{world}_rank_{rank}.pt")


def work(rank: int, folder: Path, world: int, cases: list[str]) -> None:
    """One rank."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{world}"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    for case in cases:
        write(folder, case, rank, world)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for size in sorted({int(case.partition("-")[0]) for case in sys.argv[2:]}):
        wanted = [case for case in sys.argv[2:] if case.startswith(f"{size}-")]
        # Forked, so that torch is imported once and not by every rank.
        mp.start_processes(work, (target, size, wanted), nprocs=size, start_method="fork")
