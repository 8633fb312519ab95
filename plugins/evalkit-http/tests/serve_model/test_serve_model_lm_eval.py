"""lm-evaluation-harness 0.4.13 as a client: the scores that its own `hf` model and `evalkit run` give.

Needs `--harness`, a Python with `lm-eval[api]` and torch, and `--data-dir`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.runner import evaluate
from evalkit.testing.tiny import tiny_llama
from evalkit_http.openai.server import ModelServer, build_openai_compatible_server

CLIENT = Path(__file__).with_name("harness_client.py")
CONTEXT, WINDOW = 2048, 1024
# The harness keeps places for a generated token and for a first one: its windows are two shorter than its limit.
CLIENT_LENGTH = WINDOW + 2
Found = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def harness(request: pytest.FixtureRequest) -> str:
    """The harness's Python."""
    python: str | None = request.config.getoption("--harness")
    if python is None:
        pytest.skip("needs lm-evaluation-harness in an environment of its own: --harness PYTHON")
    if subprocess.run([python, "-c", "import tenacity, aiohttp, torch"], capture_output=True).returncode:
        pytest.skip("the harness's environment lacks lm-eval[api] or torch")
    return python


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama for long prompts."""
    return tiny_llama(tmp_path_factory.mktemp("harness"), context=CONTEXT).hf


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[ModelServer]:
    """It, served in float32."""
    pytest.importorskip("evalkit_transformers")
    import torch

    torch.set_num_threads(1)
    with build_openai_compatible_server("transformers", str(checkpoint), engine_args={"dtype": "float32"}) as made:
        yield made


@pytest.fixture(scope="module")
def found(harness: str, checkpoint: Path, server: ModelServer, data_dir: str) -> Found:
    """Results by the client's name and the task; one process does all, because the harness is slow to start."""
    hf = f"pretrained={checkpoint},dtype=float32,max_length={WINDOW}"
    # The server cuts no prompt: nor must the harness.
    whole = f"pretrained={checkpoint},dtype=float32,max_length={CONTEXT}"
    common = f"model=any,base_url={server.url}/v1/completions,max_length={CLIENT_LENGTH},num_concurrent=8"
    own = f"{common},tokenizer={checkpoint},tokenizer_backend=huggingface"
    chat = f"model=any,base_url={server.url}/v1/chat/completions,num_concurrent=8"
    choices = {"task": "hellaswag", "limit": 4}
    text = {"task": "wikitext", "limit": 1}
    sums = {"task": "gsm8k", "limit": 3, "shots": 1, "gen": "max_gen_toks=12"}
    talk = {**sums, "chat": True}
    client = {"model": "local-completions", "batch_size": 1}
    jobs = [
        {"name": "hf", "model": "hf", "args": hf, **choices},
        {"name": "tokens", **client, "args": own, **choices, "batch_size": 4},
        {"name": "remote", **client, "args": common, **choices},
        {"name": "texts", **client, "args": f"{own},tokenized_requests=False", **choices},
        {"name": "hf", "model": "hf", "args": hf, **text},
        {"name": "tokens", **client, "args": own, **text},
        {"name": "texts", **client, "args": f"{own},tokenized_requests=False", **text},
        {"name": "hf", "model": "hf", "args": whole, **sums},
        {"name": "tokens", **client, "args": own, **sums},
        {"name": "texts", **client, "args": f"{own},tokenized_requests=False", **sums},
        {"name": "hf-chat", "model": "hf", "args": whole, **talk},
        {"name": "chat", "model": "local-chat-completions", "args": chat, "batch_size": 1, **talk},
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    # This test's own path would hide the harness's packages.
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [harness, str(CLIENT), data_dir, json.dumps(jobs)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return {(line["name"], line["task"]): line for line in lines}


def scores(line: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in line["metrics"].items() if "," in key and "stderr" not in key}


@pytest.mark.parametrize("client", ["tokens", "remote", "texts"])
def test_multiple_choice_is_scored_alike(found: Found, client: str) -> None:
    """Each log-probability and each greedy test of HellaSwag, with the harness's tokenizer, ours, and none."""
    expected, got = found["hf", "hellaswag"], found[client, "hellaswag"]
    assert scores(got) == pytest.approx(scores(expected))
    for theirs, ours in zip(expected["answers"], got["answers"], strict=True):
        for (value, greedy), (other, seen) in zip(_flat(theirs), _flat(ours), strict=True):
            assert (float(other), str(seen)) == (pytest.approx(float(value), abs=1e-3), str(greedy))


@pytest.mark.parametrize("client", ["tokens", "texts"])
def test_long_texts_are_scored_alike(found: Found, client: str) -> None:
    """WikiText in windows."""
    assert scores(found[client, "wikitext"]) == pytest.approx(scores(found["hf", "wikitext"]), rel=1e-3)


@pytest.mark.parametrize("client", ["tokens", "texts"])
def test_texts_are_written_alike(found: Found, client: str) -> None:
    """GSM8K's answers, word for word."""
    assert found[client, "gsm8k"]["answers"] == found["hf", "gsm8k"]["answers"]


def test_chats_are_answered_alike(found: Found) -> None:
    """GSM8K through the chat template, which the server applies."""
    assert found["chat", "gsm8k"]["answers"] == found["hf-chat", "gsm8k"]["answers"]


def test_evalkit_run_gives_the_same(found: Found, checkpoint: Path, data_dir: str, tmp_path: Path) -> None:
    """The same scores without a server."""
    for task, limit in (("hellaswag", 4), ("wikitext", 1)):
        result = evaluate(
            task,
            engine="transformers",
            model=str(checkpoint),
            engine_args={"dtype": "float32"},
            model_args={"max_length": WINDOW},
            limit=limit,
            data_dir=data_dir,
            output=str(tmp_path / task),
        )
        ours = {key: value for key, value in result.results[task].items() if "stderr" not in key}
        assert ours == pytest.approx(scores(found["tokens", task]), rel=1e-3)


@pytest.mark.parametrize(("name", "chat"), [("hf", False), ("hf-chat", True)])
def test_evalkit_run_writes_the_same(
    found: Found, checkpoint: Path, data_dir: str, tmp_path: Path, name: str, chat: bool
) -> None:
    """GSM8K's answers without a server, as a text and as a chat."""
    evaluate(
        "gsm8k",
        engine="transformers",
        model=str(checkpoint),
        engine_args={"dtype": "float32"},
        limit=3,
        num_fewshot=1,
        gen={"max_new_tokens": 12},
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        data_dir=data_dir,
        output=str(tmp_path / "run"),
    )
    (file,) = (tmp_path / "run").glob("samples_*.jsonl")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [sample["resps"] for sample in samples] == found[name, "gsm8k"]["answers"]


def _flat(answers: list[Any]) -> list[Any]:
    return [response for [response] in answers]
