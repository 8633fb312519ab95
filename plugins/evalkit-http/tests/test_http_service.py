"""The service over real sockets, with real jobs in processes of their own."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from evalkit.runner import evaluate
from evalkit.testing.waiting import eventually
from evalkit_http.service.process import PYTHON, child_environment
from evalkit_http.service.webhooks import signature

FAKE = {"model": "evalkit.testing.fake:Fake", "model_args": {"pretrained": "any"}}
QUICK = {**FAKE, "tasks": ["starter_questions"], "limit": 2}
Serve = Callable[..., Any]


def slow(seconds: float, **more: Any) -> dict[str, Any]:
    """A job that answers a document every `seconds`."""
    arguments = {"pretrained": "any", "delay": seconds}
    return {**FAKE, "model_args": arguments, "tasks": ["starter_arithmetic"], "limit": 40, **more}


@pytest.mark.parametrize("limit", [3, 3.0])
def test_a_job_gives_the_scores_of_evalkit_run(serve: Serve, limit: float) -> None:
    """The metrics themselves are in the job's result, and equal those of the same run elsewhere."""
    server = serve()
    job = server.run(**{**QUICK, "limit": limit})
    assert (job["status"], job["error"]) == ("completed", None)
    here = evaluate(QUICK["tasks"], engine=FAKE["model"], model="any", limit=3)
    assert job["result"]["results"] == here.results
    assert job["result"]["intervals"]["starter_questions"]
    assert job["created_at"] <= job["started_at"] <= job["completed_at"]
    assert job["created_at"].endswith("+00:00")
    assert "run_dir" not in job["result"]


def test_samples_and_log_can_be_fetched(serve: Serve) -> None:
    """What was asked and answered is downloaded, not looked for on the server's disk."""
    server = serve()
    id = server.run(**QUICK)["job_id"]
    rows = server.client.samples(id, "starter_questions")
    assert [row["doc_id"] for row in rows] == [0, 1]
    assert "starter_questions" in server.client.log(id)
    for path in ("samples/nothing", "samples/..%2F..%2Fjobs", "samples/%2Fetc%2Fpasswd"):
        assert httpx.get(f"{server.url}/jobs/{id}/{path}").status_code == 404


def test_names_that_no_file_has_are_not_found(serve: Serve) -> None:
    """A task's name that is longer than a file's may be is no bug of the server."""
    server = serve()
    id = server.run(**QUICK)["job_id"]
    assert httpx.get(f"{server.url}/jobs/{id}/samples/{'n' * 300}").status_code == 404


def test_a_log_is_not_cut_through_a_secret(serve: Serve) -> None:
    """Only whole lines are shown: the tail of a secret looks like nothing."""
    server = serve()
    id = server.run(**QUICK)["job_id"]
    log = server.service.scheduler.folder(server.service.store.find(id)) / "job.log"
    log.write_text(f"before\nthe key is hf_{'a' * 20}\nafter\n")

    def shown(most: int) -> str:
        return httpx.get(f"{server.url}/jobs/{id}/log", params={"most": most}).text

    assert shown(1000) == "before\nthe key is ***\nafter\n"
    assert shown(15) == "after\n"
    assert shown(3) == ""


def test_programs_of_jobs_and_reports_have_no_secret_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """They import nothing from the working folder, and know neither tokens nor what signs webhooks."""
    for name in ("EVALKIT_WEBHOOK_SECRET", "EVALKIT_TOKENS"):
        monkeypatch.setenv(name, "s" * 20)
    assert "s" * 20 not in child_environment().values()
    assert "-P" in PYTHON


def test_a_report_imports_nothing_from_the_working_folder(serve: Serve, tmp_path: Path) -> None:
    """A file that is called like a library stays unread."""
    server = serve()
    id = server.run(**QUICK)["job_id"]
    (tmp_path / "evalkit.py").write_text("open('imported', 'w').close()")
    httpx.get(f"{server.url}/jobs/{id}/report", timeout=120)
    assert not (tmp_path / "imported").exists()


def test_no_samples_where_none_are_wanted(serve: Serve) -> None:
    """`log_samples` false leaves no samples behind."""
    server = serve()
    job = server.run(**QUICK, log_samples=False)
    assert job["status"] == "completed"
    assert httpx.get(f"{server.url}/jobs/{job['job_id']}/samples/starter_questions").status_code == 404


def test_every_route_of_the_lmms_server_answers(serve: Serve) -> None:
    """Bodies have all of lmms-eval's fields."""
    server = serve()
    get = lambda path: httpx.get(server.url + path).json()  # noqa: E731
    assert {"status", "timestamp", "queue_size"} <= get("/health").keys()
    assert "starter_questions" in get("/tasks")["tasks"]
    assert "models" in get("/models")
    sent = httpx.post(f"{server.url}/evaluate", json=QUICK)
    assert sent.status_code == 200
    assert {"job_id", "status", "position_in_queue", "message"} <= sent.json().keys()
    assert sent.json()["status"] == "queued"
    fields = {"job_id", "status", "created_at", "started_at", "completed_at", "request", "result", "error"}
    assert fields | {"position_in_queue"} <= get(f"/jobs/{sent.json()['job_id']}").keys()
    assert {"queue_size", "running_job", "queued_jobs", "completed_jobs", "failed_jobs"} <= get("/queue").keys()
    assert httpx.get(f"{server.url}/docs").status_code == httpx.get(f"{server.url}/redoc").status_code == 200
    assert httpx.get(f"{server.url}/ready").status_code == 200
    assert get("/openapi.json")["paths"].keys() >= {"/evaluate", "/jobs/{job_id}", "/queue"}
    assert server.wait(sent.json()["job_id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({**QUICK, "tasks": ["starter_question"]}, "Did you mean 'starter_questions'"),
        ({**QUICK, "limits": 3}, "Did you mean 'limit'"),
        ({**QUICK, "limit": 0}, "limit"),
        ({**QUICK, "num_gpus": 2}, "num_gpus is 2"),
        ({"model": "nothing", "tasks": ["x"]}, "unknown task"),
        ([], "dictionary"),
        ({}, "model"),
    ],
    ids=str,
)
def test_what_cannot_run_is_refused_at_submission(serve: Serve, body: Any, says: str) -> None:
    """The answer is a 4xx that says what to change, and nothing is queued."""
    server = serve()
    refused = httpx.post(f"{server.url}/evaluate", json=body)
    assert 400 <= refused.status_code < 500
    assert says in json.dumps(refused.json()["detail"])
    assert server.client.get_queue_status()["queue_size"] == 0


def test_a_job_that_fails_says_why(serve: Serve) -> None:
    """The error is the line that the command line prints."""
    server = serve()
    job = server.run(**{**QUICK, "model_args": {"pretrained": "any", "max_length": 8}})
    assert job["status"] == "failed"
    assert "prompts are longer than the context" in job["error"]
    assert job["result"] is None


def test_requests_that_fail_are_told_beside_the_scores(serve: Serve) -> None:
    """A document without an answer is no wrong answer: the job says that it is missing."""
    server = serve()
    arguments = {"pretrained": "any", "fail_on": "7 + 5?"}
    job = server.run(**{**FAKE, "model_args": arguments, "tasks": ["starter_arithmetic"], "limit": 4})
    assert job["status"] == "completed"
    assert job["result"]["errors"] == 1
    assert "1 requests failed" in job["error"]


def test_disjoint_jobs_run_side_by_side(serve: Serve) -> None:
    """Each job has a slot of its own, and sees no GPU but those of its slots."""
    server = serve(devices=("cuda:0", "cuda:1"))
    ids = [server.client.evaluate(**slow(0.1))["job_id"] for _ in range(2)]
    ids.append(server.client.evaluate(**slow(0.1), device="cuda:0")["job_id"])
    running = [server.until(id, lambda job: job["status"] == "running") for id in ids[:2]]
    assert sorted(job["devices"] for job in running) == [["cuda:0"], ["cuda:1"]]
    assert server.client.get_job(ids[2])["position_in_queue"] == 0
    visible = {p.environ()["CUDA_VISIBLE_DEVICES"] for p in _children()}
    assert visible == {"0", "1"}
    for id in ids:
        server.client.cancel_job(id)
        assert server.wait(id)["status"] == "cancelled"


def _children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "EVALKIT_JOB_FOLDER" in p.environ()]


def test_cancelling_ends_the_whole_process_group(serve: Serve) -> None:
    """A running job is stopped, with all its processes, and its slot is free for the next."""
    server = serve()
    id = server.client.evaluate(**slow(0.5))["job_id"]
    server.until(id, lambda job: job["progress"] and job["progress"]["answered"])
    children = _children()
    assert children
    answer = server.client.cancel_job(id)
    assert (answer["status"], answer["job_id"]) == ("running", id)
    job = server.wait(id)
    assert job["status"] == "cancelled"
    assert not any(child.is_running() for child in children)
    with pytest.raises(Exception, match="cancelled already"):
        server.client.cancel_job(id)
    assert server.run(**QUICK)["status"] == "completed"


def test_a_queued_job_is_cancelled_at_once(serve: Serve) -> None:
    """A job that waits is cancelled without having run, and is not counted as failed."""
    server = serve()
    first = server.client.evaluate(**slow(0.5))["job_id"]
    second = server.client.evaluate(**QUICK)["job_id"]
    assert server.client.cancel_job(second)["status"] == "cancelled"
    job = server.client.wait_for_job(second)
    assert (job["status"], job["started_at"]) == ("cancelled", None)
    counts = server.client.get_queue_status()
    assert (counts["failed_jobs"], counts["completed_jobs"], counts["cancelled_jobs"]) == (0, 0, 1)
    server.client.cancel_job(first)


def test_a_job_that_runs_too_long_is_stopped(serve: Serve) -> None:
    """`timeout` counts the time of running, and its end is a failure."""
    server = serve()
    job = server.run(**slow(5), timeout=4)
    assert job["status"] == "failed"
    assert "timeout of 4 s" in job["error"]


def test_the_most_urgent_job_is_next(serve: Serve) -> None:
    """Of jobs that wait, the one with the highest priority starts first."""
    server = serve()
    first = server.client.evaluate(**slow(0.2))["job_id"]
    server.until(first, lambda job: job["status"] == "running")
    low = server.client.evaluate(**QUICK)["job_id"]
    high = server.client.evaluate(**QUICK, priority=5)["job_id"]
    assert server.client.get_queue_status()["queued_jobs"] == [high, low]
    server.client.cancel_job(first)
    assert server.wait(high)["started_at"] < server.wait(low)["started_at"]


def test_the_same_key_is_the_same_job(serve: Serve) -> None:
    """A client that does not know whether it was heard asks again without a second job."""
    server = serve()
    send = lambda body: httpx.post(f"{server.url}/evaluate", json=body, headers={"Idempotency-Key": "one"})  # noqa: E731
    first, again = send(slow(0.1)).json(), send(slow(0.1)).json()
    assert first["job_id"] == again["job_id"]
    assert send(QUICK).status_code == 409
    server.client.cancel_job(first["job_id"])


def test_events_tell_a_jobs_life(serve: Serve) -> None:
    """Server-sent events: each status once, progress between, and the end of the stream at the job's end."""
    server = serve()
    id = server.client.evaluate(**slow(0.05))["job_id"]
    statuses, progress = [], []
    for kind, data in _events(f"{server.url}/jobs/{id}/events"):
        if kind == "status":
            statuses.append(data["status"])
        else:
            progress.append((data["answered"], data["total"]))
    assert list(dict.fromkeys(statuses))[-2:] == ["running", "completed"]
    assert progress == sorted(progress)
    assert {total for _, total in progress} == {40}


def _events(url: str) -> Iterator[tuple[str, Any]]:
    kind = ""
    with httpx.stream("GET", url, timeout=60) as response:
        for line in response.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                yield kind, json.loads(value)


def test_old_jobs_and_their_folders_go(serve: Serve, tmp_path: Path) -> None:
    """Only the youngest ended jobs are kept; the folders of others are deleted with them."""
    server = serve(max_completed_jobs=1, temp_dir_prefix="kept_")
    ids = [server.run(**QUICK)["job_id"] for _ in range(2)]
    server.until(ids[1], lambda job: httpx.get(f"{server.url}/jobs/{ids[0]}").status_code == 404)
    assert [path.name for path in (tmp_path / "state" / "jobs").iterdir()] == [f"kept_{ids[1]}"]


def test_results_may_go_to_a_folder_of_the_client(serve: Serve, tmp_path: Path) -> None:
    """`output_dir` holds the run folder, where the operator allows it; forgetting the job leaves it."""
    server = serve()
    job = server.run(**QUICK, output_dir=str(tmp_path / "mine"))
    assert job["status"] == "completed"
    assert [path.name for path in (tmp_path / "mine").glob("*/results.json")]
    refused = httpx.post(f"{server.url}/evaluate", json={**QUICK, "output_dir": "/proc"})
    assert refused.status_code == 403


def test_metrics_count_jobs(serve: Serve) -> None:
    """Prometheus reads how many jobs there are and how each ended."""
    server = serve()
    server.run(**QUICK)
    text = httpx.get(f"{server.url}/metrics").text
    assert 'evalkit_jobs_ended_total{status="completed"} 1.0' in text
    assert 'evalkit_slot_busy{device="cpu:0"} 0.0' in text
    assert 'evalkit_job_run_seconds_count{kind="evaluate"} 1.0' in text


class Receiver(HTTPServer):
    """Keeps what is posted to it; the first `fails` times it is not ready."""

    received: list[tuple[dict[str, str], bytes]]
    fails = 0
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        status = 503 if self.server.asked <= self.server.fails else 204
        if status == 204:
            self.server.received.append((dict(self.headers), body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@contextmanager
def receiver(fails: int = 0) -> Iterator[Receiver]:
    server = Receiver(("127.0.0.1", 0), _Handler)
    server.received, server.fails = [], fails
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_is_signed_and_tried_again(serve: Serve) -> None:
    """The receiver is told of the end, after it was not ready once, and can check who told it."""
    with receiver(fails=1) as there:
        server = serve(webhook_hosts=("127.0.0.1",), webhook_secret="a secret")
        job = server.run(**QUICK, webhook=f"http://127.0.0.1:{there.server_port}/done")
        headers, body = eventually(lambda: there.received)[0]
        assert headers["X-Evalkit-Signature"] == signature("a secret", headers["X-Evalkit-Timestamp"], body)
        told = json.loads(body)
        assert (told["job_id"], told["status"], told["result"]) == (job["job_id"], "completed", job["result"])
        assert there.asked == 2


def test_a_checkpoint_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    """A job whose checkpoint is still to be written waits and says so, and starts when it is complete."""
    server = serve(checkpoint_settle=0.5)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    id = server.client.evaluate(**{**QUICK, "model_args": {"model": "checkpoints/step_5"}})["job_id"]
    job = server.until(id, lambda job: job["reason"])
    assert "step_5 does not exist yet" in job["reason"]
    (folder / "step_5").mkdir()
    (folder / "step_5" / "config.json").write_text("{}")
    server.until(id, lambda job: "no weights yet" in str(job["reason"]))
    header = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    weights = len(header).to_bytes(8, "little") + header + bytes(16)
    (folder / "step_5" / "model.safetensors").write_bytes(weights)
    assert server.wait(id)["status"] == "completed"


def test_a_checkpoint_that_never_comes_is_a_failure(serve: Serve, tmp_path: Path) -> None:
    """The wait has an end, and the error says what was missing."""
    server = serve(checkpoint_wait=1)
    job = server.run(**{**QUICK, "model_args": {"path": str(tmp_path / "never")}})
    assert job["status"] == "failed"
    assert "never does not exist yet" in job["error"]
    assert job["started_at"] is None
