"""Sharded checkpoints merge to the unsharded weights bit for bit, or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from evalkit.errors import EvalkitError
from evalkit_http.merge.merging import merge
from evalkit_http.merge.protocol import MergeRequest

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
transformers = pytest.importorskip("transformers")

CASES = ["2-axis", "2-axis-tied-mixed", "4-axis", "4-hybrid-tied-mixed", "4-tensor", "4-axis-ema"]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sharded checkpoints, one a case, written by 2 and by 4 processes."""
    folder = tmp_path_factory.mktemp("shards")
    script = Path(__file__).with_name("fsdp_shards.py")
    subprocess.run([sys.executable, script, folder, *CASES], check=True, timeout=300)
    return folder


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    """A copy of the 2-process checkpoint, to be damaged."""
    return Path(shutil.copytree(written / "2-axis" / "checkpoint-7", tmp_path / "checkpoint-7"))


def shards(checkpoint: Path) -> list[Path]:
    return sorted((checkpoint / "pytorch_model_fsdp_0").iterdir())


def kind(case: str) -> str:
    return "ema" if "ema" in case else "regular"


def bits(tensor: Any) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


def refused(checkpoint: Path, match: str, output: Path | None = None) -> None:
    """Merging ends with one line that says `match`, and leaves nothing behind."""
    output = output or checkpoint.parent / "out"
    before = set(output.parent.iterdir())
    with pytest.raises(EvalkitError, match=match) as error:
        merge(checkpoint, output)
    assert "\n" not in str(error.value)
    assert set(output.parent.iterdir()) == before


@pytest.mark.parametrize("case", CASES)
def test_merged_weights_are_the_unsharded_ones(written: Path, tmp_path: Path, case: str) -> None:
    """Bit for bit and dtype for dtype, over one axis, two axes, tensor parallelism and uneven sizes."""
    merged = merge(written / case, tmp_path / "out", kind(case))
    found = safetensors.load_file(merged / "model.safetensors")
    wanted = safetensors.load_file(written / case / "reference.safetensors")
    assert set(wanted) - set(found) == ({"lm_head.weight"} if "tied" in case else set())
    assert {name: bits(found[name]) for name in found} == {name: bits(wanted[name]) for name in found}
    assert len({tensor.dtype for tensor in found.values()}) == (2 if "mixed" in case else 1)


@pytest.mark.parametrize("case", ["2-axis-tied-mixed", "4-axis"])
def test_the_merged_model_loads(written: Path, tmp_path: Path, case: str) -> None:
    """Transformers loads it with nothing missing, and tied weights are one tensor again."""
    merged = merge(written / case, tmp_path / "out")
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        merged, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    wanted = safetensors.load_file(written / case / "reference.safetensors")
    assert all(torch.equal(value, wanted[name].float()) for name, value in model.state_dict().items())
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == ("tied" in case)


def test_a_large_model_is_several_files(written: Path, tmp_path: Path) -> None:
    """Beyond the limit the tensors go to numbered files with an index, and no file exceeds it."""
    merged = merge(written / "4-axis", tmp_path / "out", max_shard_bytes=8000)
    index = json.loads((merged / "model.safetensors.index.json").read_text(encoding="utf-8"))
    wanted = safetensors.load_file(written / "4-axis" / "reference.safetensors")
    found = {name: safetensors.load_file(merged / file)[name] for name, file in index["weight_map"].items()}
    assert {name: bits(value) for name, value in found.items()} == {name: bits(value) for name, value in wanted.items()}
    files = sorted(merged.glob("model-*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert len(files) > 2
    model = transformers.AutoModelForCausalLM.from_pretrained(merged)
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


def test_shards_that_name_a_gpu_merge_without_one(checkpoint: Path, written: Path, tmp_path: Path) -> None:
    """A trainer saves from its GPUs; here the files are made to say so, for devices and meshes alike."""
    for shard in shards(checkpoint):
        with zipfile.ZipFile(shard) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(shard, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data.replace(pickled_text("cpu"), pickled_text("cuda:0")))
        assert b"cuda:0" in shard.read_bytes()
    found = safetensors.load_file(merge(checkpoint, tmp_path / "out") / "model.safetensors")
    wanted = safetensors.load_file(written / "2-axis" / "reference.safetensors")
    assert {name: bits(value) for name, value in found.items()} == {name: bits(value) for name, value in wanted.items()}


def pickled_text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def test_the_highest_step_is_taken(written: Path, tmp_path: Path) -> None:
    """Of several checkpoints the last is merged, by number and not by name; a step without shards is passed over."""
    shutil.copytree(written / "2-axis" / "checkpoint-7", tmp_path / "checkpoint-9")
    shutil.copytree(written / "2-axis-tied-mixed" / "checkpoint-7", tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-11").mkdir()
    merged = merge(tmp_path)
    assert merged == tmp_path / "checkpoint-10" / "merged"
    assert len(safetensors.load_file(merged / "model.safetensors")) == 29


def test_tokenizer_and_processor_come_along(checkpoint: Path, tmp_path: Path) -> None:
    """Everything a loader reads, and nothing that only the trainer does."""
    wanted = {"config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "preprocessor_config.json"}
    for name in (wanted | {"trainer_state.json", "training_args.bin", "optimizer.pt"}) - {"config.json"}:
        (checkpoint / name).write_text("{}", encoding="utf-8")
    merged = merge(checkpoint, tmp_path / "out")
    assert {path.name for path in merged.iterdir()} == wanted | {"model.safetensors", "merge.json"}


def test_a_second_merge_finds_the_work_done(checkpoint: Path, tmp_path: Path) -> None:
    """Asked again for the same shards nothing is written; for others the folder is not overwritten."""
    merged = merge(checkpoint, tmp_path / "out")
    before = (merged / "model.safetensors").stat().st_mtime_ns
    assert merge(checkpoint, tmp_path / "out") == merged
    assert (merged / "model.safetensors").stat().st_mtime_ns == before
    os.utime(shards(checkpoint)[0], (1, 1))
    refused(checkpoint, "exists already")


def test_what_a_killed_merge_left_is_no_hindrance(checkpoint: Path, tmp_path: Path) -> None:
    """The half-made folder is used again, unless its owner is still at work."""
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    holder = os.open(partial, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(EvalkitError, match="another merge"):
        merge(checkpoint, tmp_path / "out")
    assert (partial / "model.safetensors").read_bytes() == b"half"
    os.close(holder)
    assert safetensors.load_file(merge(checkpoint, tmp_path / "out") / "model.safetensors")
    assert not partial.exists()


def test_a_missing_rank_is_named(checkpoint: Path) -> None:
    """Half a model is no model."""
    shards(checkpoint)[1].unlink()
    refused(checkpoint, "lacks rank 1 of 2")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_shard_is_named(checkpoint: Path, keep: float) -> None:
    """A copy that stopped half way is not merged."""
    shard = shards(checkpoint)[1]
    data = shard.read_bytes()
    shard.write_bytes(data[: int(keep if keep > 1 else len(data) * keep)])
    refused(checkpoint, r"rank_1\.pt is damaged or still being written")


def test_shards_of_another_world_size_are_refused(checkpoint: Path, written: Path) -> None:
    """Neither leftovers of an older save nor renamed files make a model."""
    older = sorted((written / "4-axis" / "checkpoint-7" / "pytorch_model_fsdp_0").iterdir())
    first, second = shards(checkpoint)
    extra = Path(shutil.copy(older[3], first.parent))
    refused(checkpoint, r"several world sizes: \[2, 4\]")
    extra.unlink()
    for rank in range(4):
        shutil.copy((first, second)[rank % 2], first.with_name(f"model_world_size_4_rank_{rank}.pt"))
    first.unlink()
    second.unlink()
    refused(checkpoint, "another world size")
    for rank in range(4):
        first.with_name(f"model_world_size_4_rank_{rank}.pt").unlink()
    shutil.copy(older[0], first)
    shutil.copy(older[1], second)
    refused(checkpoint, "another world size")


def test_shards_of_different_saves_are_refused(checkpoint: Path, written: Path) -> None:
    """A rank whose tensors have another shape, dtype or name belongs to another model."""
    other = written / "2-axis-tied-mixed" / "checkpoint-7" / "pytorch_model_fsdp_0" / shards(checkpoint)[1].name
    shutil.copy(other, shards(checkpoint)[1])
    refused(checkpoint, "different saves")


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("pickled", ["in an archive", "plain"])
def test_a_pickle_that_runs_code_is_refused(checkpoint: Path, tmp_path: Path, pickled: str) -> None:
    """No code in a shard runs, whatever the format it hides in."""
    shard = shards(checkpoint)[0]
    if pickled == "plain":
        shard.write_bytes(pickle.dumps({"a": Evil(tmp_path / "ran")}))
    else:
        torch.save({"a": Evil(tmp_path / "ran")}, shard)
    refused(checkpoint, r"rank_0\.pt (holds more than tensors|is damaged)")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [[1, 2], {}, {"a": 1}, {1: 2}])
def test_what_is_no_state_dict_is_refused(checkpoint: Path, value: Any) -> None:
    """Other objects of torch.save are named for what they are."""
    torch.save(value, shards(checkpoint)[0])
    refused(checkpoint, "no state dict|no tensors")


def test_links_do_not_lead_out_of_the_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    """A link in a checkpoint is no way to read another file."""
    secret = tmp_path / "secret.json"
    secret.write_text("{}", encoding="utf-8")
    (checkpoint / "tokenizer.json").symlink_to(secret)
    refused(checkpoint, "leads out of the checkpoint")
    (checkpoint / "tokenizer.json").unlink()
    outside = Path(shutil.move(shards(checkpoint)[0], tmp_path / "shard.pt"))
    (checkpoint / "pytorch_model_fsdp_0" / "model_world_size_2_rank_0.pt").symlink_to(outside)
    refused(checkpoint, "leads out of the checkpoint")


def test_other_mistakes_are_one_line_each(checkpoint: Path, tmp_path: Path) -> None:
    """No folder, no shards, no configuration, an output that is taken."""
    refused(tmp_path / "nothing", "is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "pytorch_model_fsdp_0")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").touch()
    refused(checkpoint, "exists already", taken)
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(EvalkitError, match="cannot be"):
        merge(checkpoint, file / "out")
    (checkpoint / "config.json").write_text("{", encoding="utf-8")
    refused(checkpoint, "is no JSON")
    (checkpoint / "config.json").unlink()
    refused(checkpoint, r"has no config\.json")


def test_the_command_prints_one_result(written: Path, tmp_path: Path) -> None:
    """`python -m evalkit_http.merge` prints what POST /merge answers, or one line and status 2."""
    command = [sys.executable, "-m", "evalkit_http.merge", str(written / "4-axis-ema"), "--json", "--type"]
    done = subprocess.run(
        [*command, "ema", "--output", str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {"success": True, "message": "Merged", "merged_path": str(tmp_path / "out")}
    failed = subprocess.run([*command, "regular"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (2, "", 1)
    assert failed.stderr.startswith("evalkit: neither ")


def test_a_request_loads_no_torch() -> None:
    """The server knows the request's fields, and loads nothing of what merging needs."""
    program = "import evalkit_http.merge.protocol, evalkit_http.merge.layout, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert MergeRequest(checkpoint_path="a").checkpoint_type == "regular"
    for wrong in ({}, {"checkpoint_path": ""}, {"checkpoint_path": "a", "checkpoint_type": "x"}, {"path": "a"}):
        with pytest.raises(ValidationError):
            MergeRequest.model_validate(wrong)
