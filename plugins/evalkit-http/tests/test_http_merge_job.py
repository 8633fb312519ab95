"""POST /merge: a job of the service, inside the allowed folders."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from evalkit_http import AsyncEvalClient, EvalClient
from evalkit_http.merge.job import merge_work
from evalkit_http.merge.protocol import MergeRequest
from evalkit_http.service.args import ServerArgs
from evalkit_http.service.slots import Slots

pytest.importorskip("torch")
CASE = "2-axis"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sharded checkpoint of two processes."""
    folder = tmp_path_factory.mktemp("job-shards")
    script = Path(__file__).with_name("fsdp_shards.py")
    subprocess.run([sys.executable, script, folder, CASE], check=True, timeout=300)
    return folder / CASE / "checkpoint-7"


@pytest.fixture
def checkpoint(written: Path, tmp_path: Path) -> Path:
    """A copy in the working folder, which is what a server allows by default."""
    return Path(shutil.copytree(written, tmp_path / "checkpoint-7"))


def test_a_merge_is_a_job_and_its_client_waits(serve: Callable[..., Any], checkpoint: Path) -> None:
    """The answer is lmms-eval's; the job stays to be looked at, and the same merge again is done at once."""
    server = serve()
    answer = server.client.merge_checkpoint(str(checkpoint))
    assert (answer["success"], answer["merged_path"]) == (True, str(checkpoint / "merged"))
    assert (checkpoint / "merged" / "model.safetensors").is_file()
    job = server.client.get_job(answer["job_id"])
    assert (job["kind"], job["status"]) == ("merge", "completed")
    assert job["result"] == {"merged_path": str(checkpoint / "merged")}
    later = httpx.post(f"{server.url}/merge", params={"wait": 0}, json={"checkpoint_path": str(checkpoint)}).json()
    assert later["merged_path"] is None
    assert server.wait(later["job_id"])["result"] == job["result"]


def test_the_checkpoint_that_was_chosen_is_merged(checkpoint: Path, tmp_path: Path) -> None:
    """Of a folder of checkpoints the highest at submission: one that appears later changes nothing."""
    runs = tmp_path / "runs"
    shutil.copytree(checkpoint, runs / "checkpoint-100")
    args = ServerArgs(state_dir=tmp_path / "state")
    work = merge_work(MergeRequest(checkpoint_path="runs"), args, Slots(("cpu",)))
    shutil.copytree(checkpoint, runs / "checkpoint-200")
    assert work["checkpoint_path"] == str(runs / "checkpoint-100")
    assert work["output_path"] == str(runs / "checkpoint-100" / "merged")


def test_a_client_waits_longer_than_its_connections(serve: Callable[..., Any], checkpoint: Path) -> None:
    """A merge that takes longer than the client's time limit is one job all the same, and its end is seen."""
    server = serve()
    with EvalClient(server.url, timeout=0.6) as client:
        answer = client.merge_checkpoint(str(checkpoint))
    assert answer["merged_path"] == str(checkpoint / "merged")
    assert len(httpx.get(f"{server.url}/jobs").json()["jobs"]) == 1

    async def again() -> dict[str, Any]:
        async with AsyncEvalClient(server.url) as client:
            return await client.merge_checkpoint(str(checkpoint))

    assert asyncio.run(again())["merged_path"] == answer["merged_path"]


def test_a_merge_that_fails_says_why(serve: Callable[..., Any], checkpoint: Path) -> None:
    """What can be seen is refused at submission; a damaged shard fails the job, and both say one clear line."""
    server = serve()
    shard = checkpoint / "pytorch_model_fsdp_0" / "model_world_size_2_rank_1.pt"
    shard.write_bytes(shard.read_bytes()[:1000])
    damaged = httpx.post(f"{server.url}/merge", json={"checkpoint_path": str(checkpoint)}, timeout=120)
    assert damaged.status_code == 409
    assert "rank_1.pt is damaged" in damaged.json()["detail"]
    shard.unlink()
    missing = httpx.post(f"{server.url}/merge", json={"checkpoint_path": "checkpoint-7"})
    assert (missing.status_code, "lacks rank 1 of 2" in missing.json()["detail"]) == (400, True)


def test_paths_of_a_merge_stay_inside_the_roots(serve: Callable[..., Any], written: Path, checkpoint: Path) -> None:
    """Neither what is read nor what is written may lie elsewhere."""
    url = f"{serve().url}/merge"
    for body in (
        {"checkpoint_path": str(written)},
        {"checkpoint_path": "../job-shards0"},
        {"checkpoint_path": str(checkpoint), "output_path": str(written / "out")},
        {"checkpoint_path": str(checkpoint), "output_path": "/proc/self/cwd/../x"},
        {"checkpoint_path": "/dev/zero"},
    ):
        assert httpx.post(url, json=body).status_code == 403, body


def test_the_example_of_the_guide_runs(serve: Callable[..., Any], checkpoint: Path) -> None:
    """docs/service.md: merge, then evaluate what was merged; only address, names and paths are replaced."""
    server = serve(checkpoint_settle=0)
    section = (Path(__file__).parents[3] / "docs" / "service.md").read_text(encoding="utf-8")
    example = section.partition("## Sharded checkpoints")[2].partition("```python\n")[2].partition("```")[0]
    for old, new in (
        ("http://127.0.0.1:8000", server.url),
        ("runs/checkpoint-100", str(checkpoint)),
        ("ema", "regular"),
        ("transformers", "evalkit.testing.fake:Fake"),
        ("hellaswag", "starter_questions"),
    ):
        assert old in example
        example = example.replace(old, new)
    exec(example, {})
    job = httpx.get(f"{server.url}/jobs").json()["jobs"][0]
    assert job["request"]["model_args"]["pretrained"] == str(checkpoint / "merged")
    assert server.wait(job["job_id"])["status"] == "completed"
