"""A run asks every request once, loses no answer, and a resumed run is the same as an unbroken one."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import evalkit
from evalkit.errors import (
    ConfigError,
    EvalkitError,
    ModelNotFoundError,
    RequestError,
    RunError,
    RunLockedError,
    UnknownNameError,
)
from evalkit.model import Model
from evalkit.requests import LoglikelihoodRequest, RollingLoglikelihoodRequest
from evalkit.results import RunResult
from evalkit.runner import resume
from evalkit.runs.folder import list_runs
from evalkit.runs.infer import Progress

if TYPE_CHECKING:
    from conftest import Holding, Toy

TASKS = ("toy_choice", "toy_target", "toy_text", "toy_pages")
REQUESTS = 4 * 3 + 4 + 4 + 4
"""What the toy benchmark asks: four documents in four tasks, one of them with three choices."""


# ── results ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_results_have_every_task_and_group(toy: Toy) -> None:
    """Each metric and its error under the harness's keys; the group has its own metric only."""
    result = toy.run()
    assert {name: sorted(key for key in row if "_stderr" not in key) for name, row in result.results.items()} == {
        "toy_choice": ["acc,none", "acc_norm,none"],
        "toy_target": ["acc,none", "perplexity,none"],
        "toy_text": ["exact_match,none", "exact_match,small"],
        "toy_pages": ["bits_per_byte,none", "byte_perplexity,none", "word_perplexity,none"],
        "toy": ["acc,none"],
    }
    mean = (result.results["toy_choice"]["acc,none"] + result.results["toy_target"]["acc,none"]) / 2
    assert result.results["toy"]["acc,none"] == pytest.approx(mean)
    assert (result.errors, result.warnings) == (0, ())


def test_results_json_holds_what_was_returned_and_the_harnesss_keys(toy: Toy) -> None:
    """One file has the numbers, what they are made of, and what they cost."""
    result = toy.run(num_fewshot=2, limit=3, batch_size=4, model_args={"max_length": 900})
    written = json.loads((Path(result.run_dir) / "results.json").read_text(encoding="utf-8"))
    assert written["results"] == result.results
    assert RunResult.from_dict(written).tokens == result.tokens
    assert written["tokens"]["requested"] >= written["tokens"]["unique"] > 0
    assert written["n-samples"] == {name: {"original": 4, "effective": 3} for name in TASKS}
    assert written["n-shot"] == {"toy_choice": 2, "toy_target": 2, "toy_text": 2, "toy_pages": 0}
    assert written["versions"] == dict.fromkeys(TASKS, "1.0")
    assert written["higher_is_better"]["toy_target"] == {"perplexity": False, "acc": True}
    assert written["group_subtasks"] == {"toy": list(TASKS)}
    assert written["group_weighted"] == {"toy": True}
    assert written["config"] == {
        "model": "breakable",
        "model_args": "pretrained=fake,max_length=900",
        "batch_size": 4,
        "limit": 3,
        "fewshot_seed": 1234,
    }
    assert written["engine"]["execution"] == {"backend": "fake", "max_length": 900}
    assert (written["errors"], written["warnings"]) == (0, [])


def test_sample_files_have_every_document(toy: Toy) -> None:
    """One row for each document and filter, in document order, with what was asked and answered."""
    result = toy.run()
    assert sorted(toy.sample_files(result.run_dir)) == sorted(f"samples_{name}.jsonl" for name in TASKS)
    assert [row["doc_id"] for row in toy.samples(result, "toy_choice")] == [0, 1, 2, 3]
    texts = toy.samples(result, "toy_text")
    assert [(row["doc_id"], row["filter"]) for row in texts] == [(n, f) for n in range(4) for f in ("none", "small")]
    row = toy.samples(result, "toy_choice")[1]
    assert row["arguments"][1][1] == " naïve 1"
    assert row["arguments"][0][0].endswith("\n\nQ: 1 + 1?\nA:")
    assert len(row["resps"]) == 3
    assert row["target"] == row["doc"]["answer"] == 1
    assert row["acc"] in (0.0, 1.0)


def test_run_json_says_what_was_asked_and_on_what_it_ran(toy: Toy) -> None:
    """Specification, number of requests, and for each attempt the machine and the packages."""
    result = toy.run(limit=2, truncate=True)
    manifest = toy.manifest(result.run_dir)
    assert manifest["status"] == "finished"
    assert (
        manifest["spec"] | {"tasks": ["toy"], "limit": 2, "truncate": True, "engine": "breakable"} == manifest["spec"]
    )
    assert manifest["model"] == {"path": "fake", "fingerprint": None}
    (attempt,) = manifest["attempts"]
    assert attempt["packages"]["evalkit-core"] == evalkit.__version__
    assert attempt["packages"]["dist-toy"] == "1.5"
    assert attempt["engine"]["class"] == "Breakable"
    assert attempt["machine"]["python"] == sys.version.split()[0]


@pytest.mark.parametrize("fields", [{"batch_size": 1}, {"batch_size": 64}, {"engine_args": {"max_rows": 2}}])
def test_scores_do_not_depend_on_batches(toy: Toy, fields: dict[str, Any]) -> None:
    """Whatever the batch size and the memory, every row of every sample file is the same."""
    expected = toy.run()
    found = toy.run(**fields)
    assert found.results == expected.results
    assert toy.sample_files(found.run_dir) == toy.sample_files(expected.run_dir)


def test_equal_requests_are_asked_once(toy: Toy) -> None:
    """Two tasks over the same documents, and documents that occur twice, share their answers."""
    toy.write("test", [{"question": "Q?", "choices": ["a", "b"], "answer": 0, "text": "T"}] * 3)
    result = toy.run("toy_choice", "toy_target", "toy_pages", num_fewshot=0)
    # Choice 0 is the target's answer, too.
    assert Counter(type(request) for request in toy.tape.asked) == {
        LoglikelihoodRequest: 2,
        RollingLoglikelihoodRequest: 1,
    }
    assert len(toy.samples(result, "toy_choice")) == 3
    assert toy.manifest(result.run_dir)["requests"] == 3


def test_progress_counts_answers(toy: Toy) -> None:
    """Each answer is one step; each kind of request has its own total."""
    seen: list[Progress] = []
    toy.run(on_progress=seen.append)
    assert len(seen) == REQUESTS
    last = {progress.kind: progress for progress in seen}
    assert last == {
        "loglikelihood": Progress("loglikelihood", 16, 16, 0),
        "generation": Progress("generation", 4, 4, 0),
        "rolling": Progress("rolling", 4, 4, 0),
    }


def test_hooks_see_the_run_in_order(toy: Toy) -> None:
    """`run_started` before the first request, every sample in document order, `run_finished` before the end."""
    source = """
from evalkit import hookimpl

SEEN = []

@hookimpl
def run_started(run):
    import toy_benchmark
    SEEN.append(("started", len(toy_benchmark.TAPE.asked), dict(run.documents)))

@hookimpl
def sample_scored(run, sample):
    SEEN.append((sample.task, sample.doc_id))

@hookimpl
def run_finished(run, result):
    SEEN.append(("finished", run.folder.manifest()["status"], result.results))
"""
    toy.site.plugin("watcher", source)
    result = toy.run("toy_target", "toy_pages", limit=2)
    assert [
        ("started", 0, {"toy_target": 2, "toy_pages": 2}),
        ("toy_target", 0),
        ("toy_target", 1),
        ("toy_pages", 0),
        ("toy_pages", 1),
        ("finished", "running", result.results),
    ] == sys.modules["plugin_watcher"].SEEN


# ── requests that fail ──────────────────────────────────────────────────────────────────────────────────────
def test_failed_requests_are_counted_and_never_scored(toy: Toy) -> None:
    """A document with a failed request is left out of its task's numbers; other tasks are whole."""
    expected = toy.run()
    toy.tape.fails_on = "Q: 2 + 2?\\nA:', continuation=' naïve 2'"
    result = toy.run()
    assert result.errors == 1
    rows = toy.samples(result, "toy_choice")
    assert [row.get("error") for row in rows] == [None, None, "the engine lost it", None]
    assert "acc" not in rows[2]
    hits = [row["acc"] for row in rows if "error" not in row]
    assert result.results["toy_choice"]["acc,none"] == pytest.approx(sum(hits) / 3)
    assert result.results["toy_pages"] == expected.results["toy_pages"]
    written = json.loads((Path(result.run_dir) / "results.json").read_text(encoding="utf-8"))
    assert written["n-samples"]["toy_choice"] == {"original": 4, "effective": 3}
    assert written["errors"] == 1
    assert result.warnings == ("toy_choice: 1 documents not scored because a request failed (the engine lost it)",)


def test_failed_requests_are_asked_again_on_resume(toy: Toy) -> None:
    """Resuming a finished run with errors asks those requests alone; then it is as if nothing had failed."""
    expected = toy.run()
    toy.tape.fails_on = "1 + 1?"
    broken = toy.run()
    assert broken.errors == 3 + 1 + 1
    assert len(broken.warnings) == 3
    toy.tape.fails_on = None
    del toy.tape.asked[:]
    result = resume(broken.run_dir)
    assert len(toy.tape.asked) == broken.errors
    assert (result.errors, result.warnings) == (0, ())
    assert result.results == expected.results
    assert toy.sample_files(result.run_dir) == toy.sample_files(expected.run_dir)


def test_warnings_name_the_cause_of_their_own_task(toy: Toy) -> None:
    """A task's warning does not show another task's error."""
    toy.tape.fails_on = "toy-text-only"
    toy.write("test", [{"question": "bad", "choices": ["", "b"], "answer": 0, "text": "toy-text-only"}])
    template = {"apply_chat_template": True}
    result = toy.run("toy_choice", "toy_pages", num_fewshot=0, **template)
    assert result.warnings == (
        "toy_choice: 1 documents not scored because a request failed (the continuation is empty)",
        "toy_pages: 1 documents not scored because a request failed (the engine lost it)",
    )


def test_a_run_in_which_everything_fails_still_ends(toy: Toy) -> None:
    """No numbers, all errors, and a run that can be resumed."""
    toy.tape.fails_on = "Request("
    result = toy.run()
    assert result.errors == REQUESTS
    assert result.results == {name: {} for name in TASKS}
    toy.tape.fails_on = None
    assert resume(result.run_dir).results == toy.run().results


# ── folders ─────────────────────────────────────────────────────────────────────────────────────────────────
WRONG: list[tuple[dict[str, Any], type[EvalkitError]]] = [
    ({"tasks": ["toy", "toy_nothing"]}, UnknownNameError),
    ({"engine": "breakabel"}, UnknownNameError),
    ({"engine_args": {"max_row": 1}}, ConfigError),
    ({"engine_args": {"max_rows": "many"}}, ConfigError),
    ({"model_args": {"dtyp": "float32"}}, ConfigError),
    ({"model": "toy-modle"}, UnknownNameError),
    ({"model": "./nowhere"}, ModelNotFoundError),
    ({"model": "toy-quantized"}, ModelNotFoundError),
    ({"num_fewshot": 99}, ConfigError),
    ({"limit": 0}, ConfigError),
    ({"data_dir": "nowhere"}, EvalkitError),
    ({"engine_args": {"max_length": 20}}, RequestError),
]


@pytest.mark.parametrize(("fields", "error"), WRONG)
def test_what_cannot_run_leaves_no_folder(toy: Toy, fields: dict[str, Any], error: type[EvalkitError]) -> None:
    """Every expected error before the first answer is one line, and nothing is left behind."""
    tasks = fields.pop("tasks", ["toy"])
    with pytest.raises(error) as caught:
        toy.run(*tasks, output=str(toy.path / "out" / "run"), **fields)
    assert "\n" not in str(caught.value)
    assert not (toy.path / "out").exists()
    assert toy.tape.asked == []


def test_a_crash_before_the_first_answer_leaves_no_folder(toy: Toy) -> None:
    """Nothing of value was written."""
    toy.crash(toy.path / "broken", 0)
    assert not (toy.path / "broken").exists()


def test_a_plugin_that_fails_at_the_start_leaves_no_folder(toy: Toy) -> None:
    """A hook's own error comes through, with its traceback."""
    toy.site.plugin(
        "bad", "from evalkit import hookimpl\n@hookimpl\ndef run_started(run):\n    raise ZeroDivisionError\n"
    )
    with pytest.raises(ZeroDivisionError):
        toy.run(output=str(toy.path / "broken"))
    assert not (toy.path / "broken").exists()


def test_a_plugin_that_fails_at_the_end_loses_no_answer(toy: Toy) -> None:
    """The answers are journaled: without the plugin the run is completed and asks nothing."""
    toy.site.plugin("bad", "from evalkit import hookimpl\n@hookimpl\ndef sample_scored(run, sample):\n    1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        toy.run(output=str(toy.path / "broken"))
    toy.site.limit_to("toy")
    asked = len(toy.tape.asked)
    assert resume(toy.path / "broken").errors == 0
    assert len(toy.tape.asked) == asked == REQUESTS


def test_an_existing_run_is_not_overwritten(toy: Toy) -> None:
    """`--output` onto a run is refused with the command that completes it; the run stays as it is."""
    result = toy.run(output=str(toy.path / "run"))
    before = toy.sample_files(result.run_dir)
    with pytest.raises(RunError, match=r"already holds a run. Complete it with: evalkit resume"):
        toy.run(output=str(toy.path / "run"), limit=1)
    assert toy.sample_files(result.run_dir) == before
    assert resume(toy.path / "run").results == result.results


def test_a_second_process_is_refused(toy: Toy, held_elsewhere: Holding) -> None:
    """Two processes never write to one journal; the lock of a killed process is gone."""
    toy.crash(toy.path / "broken", 3)
    with held_elsewhere(toy.path / "broken") as process:
        with pytest.raises(RunLockedError, match=r"another process is writing"):
            resume(toy.path / "broken")
        process.kill()
        process.wait()
        assert resume(toy.path / "broken").errors == 0


def test_the_lock_is_given_up_at_the_end(toy: Toy) -> None:
    """A finished, a crashed and a refused run can all be resumed by this very process."""
    result = toy.run()
    assert resume(result.run_dir).errors == 0
    toy.crash(toy.path / "broken", len(toy.tape.answered) + 2)
    toy.tape.crash_after = 0
    with pytest.raises(RuntimeError):
        resume(toy.path / "broken")
    toy.tape.crash_after = None
    assert resume(toy.path / "broken").errors == 0


def test_runs_get_folders_of_their_own(toy: Toy) -> None:
    """Without `--output` each run is a new folder below EVALKIT_RUNS_DIR."""
    found = {toy.run("toy_pages", limit=1).run_dir for _ in range(3)}
    assert {str(path) for path in list_runs(toy.path / "runs")} == found
    assert len(found) == 3


# ── long prompts, chat ──────────────────────────────────────────────────────────────────────────────────────
def test_long_prompts_are_refused_unless_truncated(toy: Toy) -> None:
    """The error says how many, how long, and what to do; with `truncate` the run warns instead."""
    fields: dict[str, Any] = {"engine_args": {"max_length": 30}, "num_fewshot": 1}
    with pytest.raises(
        RequestError, match=r"task 'toy_choice': 12 of 12 prompts are longer .*30 fit\). Pass --truncate"
    ):
        toy.run("toy_choice", **fields)
    result = toy.run("toy_choice", truncate=True, **fields)
    assert result.warnings == ("toy_choice: 4 samples truncated",)
    assert toy.samples(result, "toy_choice")[0]["notes"][0].startswith("truncated: ")


def test_what_truncation_cannot_help_is_refused(toy: Toy) -> None:
    """A continuation longer than the whole context cannot be scored."""
    with pytest.raises(RequestError, match=r"Use a model with a longer context"):
        toy.run("toy_choice", truncate=True, engine_args={"max_length": 3})


def test_the_chat_template_is_the_sessions(toy: Toy) -> None:
    """Prompts go through the template; whole texts do not."""
    result = toy.run("toy_target", "toy_pages", apply_chat_template=True, limit=1)
    assert toy.samples(result, "toy_target")[0]["arguments"] == [["<user>Q: 0 + 0?\nA:\n<assistant>", " 0"]]
    assert toy.samples(result, "toy_pages")[0]["arguments"] == [["Page 0.\nTwo lines, 0 words."]]


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────
def test_no_secret_reaches_the_run_folder(toy: Toy) -> None:
    """Run folders are copied and shared: neither the engine's nor the model's secrets are in any file."""
    fields: dict[str, Any] = {
        "engine_args": {"api_key": "sesame-engine"},
        "model_args": {"options": {"token": "sesame-model", "kept": 1}},
    }
    toy.crash(toy.path / "broken", 3, **fields)
    result = resume(toy.path / "broken")
    files = [path for path in (toy.path / "broken").rglob("*") if path.is_file()]
    assert len(files) >= 6
    for path in files:
        assert b"sesame" not in path.read_bytes(), path.name
    spec = toy.manifest(result.run_dir)["spec"]
    assert spec["engine_args"] == {"api_key": "***"}
    assert spec["model_args"] == {"options": {"token": "***", "kept": 1}}


def test_a_redacted_secret_is_not_used_as_one(toy: Toy) -> None:
    """On resume a secret is simply not given: the engine finds it where it does by default."""
    toy.crash(toy.path / "broken", 3, engine_args={"api_key": "sesame"})
    seen = []
    build = toy.module.Breakable.build

    def watched(engine: Any, model: Model) -> Any:
        seen.append((engine.api_key, model.options))
        return build(engine, model)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(toy.module.Breakable, "build", watched)
        resume(toy.path / "broken")
    assert seen == [(None, {})]
