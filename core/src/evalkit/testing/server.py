"""A small OpenAI-compatible server over the fake engine: `python -m evalkit.testing.server --served-model-name N`.

It is a process as real servers are, and can be told to fail as they do: `--trouble never-ready`, `dies`, `refuses`,
`another-name`. `--workers N` starts as many processes that leave its process group.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from evalkit.model import Model
from evalkit.requests import GenerationRequest
from evalkit.testing.fake import BOS, EOS, VOCABULARY, ByteTokenizer, Fake, next_scores

Json = dict[str, Any]
SPECIAL = {"<bos>": [BOS], "<eos>": [EOS]}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
OWN_NAMES = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}
KEPT = ("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "min_tokens")
TROUBLES = ("none", "dies", "never-ready", "refuses", "another-name")


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    options: argparse.Namespace

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing about requests."""

    def do_GET(self) -> None:
        """Models, version and tokenizer."""
        name = "stranger" if self.options.trouble == "another-name" else self.options.served_model_name
        found: dict[str, Json] = {
            "/v1/models": {
                "data": [{"id": name, "root": self.options.model, "max_model_len": self.options.max_length}]
            },
            "/version": {"version": "1.5"},
            "/tokenizer_info": {"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": TEMPLATE},
        }
        self._answer(200 if self.path in found else 404, found.get(self.path, {"detail": "Not Found"}))

    def do_POST(self) -> None:
        """Completions and tokens."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        routes: dict[str, Callable[[Json], Json]] = {
            "/v1/completions": self._complete,
            "/tokenize": lambda body: {"tokens": SPECIAL.get(body["prompt"], list(body["prompt"].encode()))},
            "/detokenize": lambda body: {"prompt": ByteTokenizer().decode(body["tokens"])},
        }
        if self.path not in routes or self.options.trouble == "refuses":
            return self._answer(404, {"detail": "Not Found"})
        try:
            self._answer(200, routes[self.path](body))
        except (TypeError, ValueError) as error:
            self._answer(400, {"error": {"message": str(error), "code": 400}})

    def _answer(self, status: int, content: Json) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _complete(self, body: Json) -> Json:
        if body.get("model") != self.options.served_model_name:
            raise ValueError(f"The model `{body.get('model')}` does not exist.")
        time.sleep(self.options.delay)
        prompt = body["prompt"]
        ids = tuple(prompt.encode() if isinstance(prompt, str) else prompt)
        if self.options.fail_on and self.options.fail_on in ByteTokenizer().decode(ids):
            raise ValueError(f"`{body['model']}` fails on {self.options.fail_on!r}")
        if len(ids) + body["max_tokens"] > self.options.max_length:
            raise ValueError(f"{len(ids)} tokens are too many")
        values = {OWN_NAMES.get(name, name): body[name] for name in KEPT if name in body}
        request = GenerationRequest(input_ids=ids or (BOS,), **values, stop=tuple(body.get("stop") or ()))
        with Fake(max_length=self.options.max_length).build(Model("any")) as session:
            output = session.generate([request])[0]
        if output.error:
            raise ValueError(output.error)
        choice: Json = {"index": 0, "text": output.text, "finish_reason": output.finish_reason}
        if body.get("return_token_ids"):
            choice["token_ids"] = list(output.token_ids)
        if body.get("logprobs"):
            choice["logprobs"] = _logprobs((*ids, *output.token_ids), 0 if body.get("echo") else len(ids))
        usage = {"prompt_tokens": len(ids), "completion_tokens": len(output.token_ids)}
        return {"object": "text_completion", "choices": [choice], "usage": usage}


def _logprobs(ids: Sequence[int], start: int) -> Json:
    """The log-probability of each token from `start` on, but of the first one of all; with the likeliest beside it."""
    found: Json = {"tokens": [_spelled(token) for token in ids[start:]], "token_logprobs": [], "top_logprobs": []}
    for at in range(start, len(ids)):
        scores = next_scores(ids[:at])
        total = math.log(math.fsum(map(math.exp, scores)))
        best = max(range(VOCABULARY), key=scores.__getitem__)
        both = {_spelled(token): scores[token] - total for token in (best, ids[at])}
        found["token_logprobs"].append(both[_spelled(ids[at])] if at else None)
        found["top_logprobs"].append(both if at else None)
    return found


def _spelled(token: int) -> str:
    return chr(token) if token < 128 else f"<{token}>"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no news."""


def main() -> None:
    """Serve until this process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="any")
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--fail-on")
    parser.add_argument("--trouble", choices=TROUBLES, default="none")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    for _ in range(options.workers):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    if options.trouble == "dies":
        sys.exit("RuntimeError: no kernel image is available")
    if options.trouble == "never-ready":
        time.sleep(600)
    server = _Server(("127.0.0.1", options.port), type("Bound", (Handler,), {"options": options}))
    print(f"serving {options.model} in process {os.getpid()}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
