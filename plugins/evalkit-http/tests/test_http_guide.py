"""docs/service.md: its examples run against a real server, its manifests and tables are those of the code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalkit_http.service.protocol import EvaluateRequest
from evalkit_http.service.routes import router

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "service.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"<!-- needs: a running server -->\n```python\n(.*?)```", PAGE, re.S)
MANIFESTS = re.findall(r"```yaml[^\n]*\n(.*?)```", PAGE, re.S)


def train_one_epoch(epoch: int) -> None:
    """Write a checkpoint, as small as one can be."""
    folder = Path("checkpoints") / f"epoch_{epoch}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


def test_the_examples_run(serve: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Both patterns of a training loop, both lanes and both clients; only engine and address are replaced."""
    server = serve(checkpoint_settle=0, devices=("cpu", "cpu"))
    train_one_epoch(0)
    names: dict[str, Any] = {"train_one_epoch": train_one_epoch}
    assert len(EXAMPLES) == 6
    for example in EXAMPLES:
        text = example.replace("http://127.0.0.1:8000", server.url).replace(', "dtype": "float32"', "")
        exec(text.replace('"transformers"', '"evalkit.testing.fake:Fake"'), names)
    assert not names["pending"]
    for client in (names["client"], *names["clients"]):
        client.close()
    printed = capsys.readouterr().out
    assert "failed" not in printed
    assert "epoch 2: {'starter_questions'" in printed
    assert server.client.get_queue_status()["failed_jobs"] == 0


def test_every_field_of_a_request_is_described() -> None:
    """The table of fields lists them all, in order."""
    table = PAGE.partition("## What a job may ask")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", " ".join(cells)) == list(EvaluateRequest.model_fields)


def test_every_route_of_the_service_is_described() -> None:
    """The table of routes has each route of the service, with its method."""
    listed = set(re.findall(r"`([A-Z]+ /[^`]*)`", PAGE.partition("## Routes")[2].partition("\n## ")[0]))
    there = {f"{next(iter(route.methods))} {route.path}" for route in router.routes}  # type: ignore[attr-defined]
    assert {route.replace("{job_id}", "{id}") for route in there} <= listed


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_manifests_are_sound(manifest: str) -> None:
    """They are YAML, their selectors find their pods, and their probes ask for routes that there are."""
    parts = {part["kind"]: part for part in yaml.safe_load_all(manifest)}
    workload = parts.get("Deployment") or parts["StatefulSet"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels == parts["Service"]["spec"]["selector"]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    paths = {container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths <= {route.path for route in router.routes}  # type: ignore[attr-defined]
    claims = workload["spec"].get("volumeClaimTemplates", [])
    volumes = {v["name"] for v in workload["spec"]["template"]["spec"]["volumes"]} | {
        claim["metadata"]["name"] for claim in claims
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
