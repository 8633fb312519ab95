"""One attempt at a run, in the order in which things can go wrong: cheap checks before the model loads."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from evalkit import options
from evalkit.answers.cache import AnswerCache, is_from_cache
from evalkit.energy import Meter
from evalkit.engine import BaseInferenceSession, redact
from evalkit.environments import find_environment
from evalkit.errors import DiskFullError, MissingDependencyError, RunError
from evalkit.model import Model
from evalkit.plugins import get_plugins
from evalkit.requests import Output, Request, generated_tokens
from evalkit.results import RunResult, Seconds
from evalkit.runs.context import RunContext
from evalkit.runs.environment import fingerprint, prompts_hash
from evalkit.runs.folder import RunFolder, default_path
from evalkit.runs.infer import OnProgress, check_lengths, infer
from evalkit.runs.journal import Journal, Spent
from evalkit.runs.plan import Asked, make_plan
from evalkit.runs.progress import progress_reporter
from evalkit.runs.resolve import choose_engine, isolated_engine, portable, resolve_model
from evalkit.runs.score import Tally, samples
from evalkit.runs.spec import RunSpec
from evalkit.runs.summary import summarize, warnings
from evalkit.servers import ServableEngine
from evalkit.tasks.context import chat_template
from evalkit.tasks.files import is_task_file

Questions = dict[str, list[tuple[Asked, ...]]]
"""By task, for each document, what is asked."""


class Attempt:
    """Tasks -> requests -> session -> journal -> scores. Making it loads the documents, `execute` the model."""

    def __init__(self, spec: RunSpec, on_progress: OnProgress | None) -> None:
        self.started = time.perf_counter()
        self.on_progress = on_progress
        self.written = 0
        self.engine, engine_spec = choose_engine(spec)
        asked = options.build(Model, {"path": spec.model, **spec.model_args}, "the model")
        self.plan = make_plan(spec)
        self.model = resolve_model(asked, engine_spec)
        self.is_remote = engine_spec.remote
        self.spec = portable(spec, is_remote=self.is_remote)
        self.answers = AnswerCache(self.engine, spec.engine, self.model) if spec.cache else None

    def execute(self, folder: RunFolder | None) -> RunResult:
        """Ask what the journal of `folder` lacks, in a new folder where there is none, and score everything."""
        try:
            return self._execute(folder)
        finally:
            if self.answers is not None:
                self.answers.close()

    def _execute(self, folder: RunFolder | None) -> RunResult:
        load_started = time.perf_counter()
        with self._session() as session:
            load = time.perf_counter() - load_started
            requests = self._requests(session)
            self._check_lengths(session, requests)
            if self.answers is not None:
                self.answers.open(session.describe_execution())
            if folder is not None:
                self._check_model(folder)
                return self._answer(folder, session, requests, load)
            return self._start(session, requests, load)

    def _session(self) -> BaseInferenceSession:
        """The model loaded; in the engine's environment where this one lacks its libraries."""
        try:
            return self.engine.build(self.model)
        except MissingDependencyError:
            # A server has looked for an environment itself.
            is_served = isinstance(self.engine, ServableEngine) and self.engine.is_served
            environment = None if is_served else find_environment(self.spec.engine)
            if environment is None:
                raise
            self.engine, _ = isolated_engine(self.spec, environment)
            return self.engine.build(self.model)

    def _check_lengths(self, session: BaseInferenceSession, questions: Questions) -> None:
        by_task = {n: [a.request for doc in asked for a in doc] for n, asked in questions.items()}
        check_lengths(session, by_task, truncate=self.spec.truncate)

    def _requests(self, session: BaseInferenceSession) -> Questions:
        template = chat_template(session, self.spec.chat_template_args) if self.spec.apply_chat_template else None
        return {name: task.ask(self.spec.seed, template) for name, task in self.plan.tasks.items()}

    def _start(self, session: BaseInferenceSession, requests: Questions, load: float) -> RunResult:
        path = (
            Path(self.spec.output)
            if self.spec.output
            else default_path("-".join(Path(name).stem if is_task_file(name) else name for name in self.spec.tasks))
        )
        manifest = {
            "id": uuid.uuid4().hex,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "status": "running",
            "spec": redact(self.spec.model_dump(exclude={"output"})),
            "model": {"path": redact(self.model.path), "fingerprint": self._fingerprint()},
            "requests": len(_unique(requests)),
            "prompts": prompts_hash(_unique(requests)),
        }
        folder = RunFolder.create(path, manifest)
        try:
            return self._answer(folder, session, requests, load)
        except BaseException as error:
            # Only what this process knows counts: on a full disk the journal may not even open again.
            if self.written == 0:
                folder.remove()
                if isinstance(error, DiskFullError):
                    raise DiskFullError(f"no disk space left for {path}. Free some space, then run again") from error
            raise
        finally:
            folder.release()

    def _fingerprint(self) -> str | None:
        # A server's model may have the name of a folder that happens to lie here.
        return None if self.is_remote else fingerprint(self.model.path)

    def _check_model(self, folder: RunFolder) -> None:
        recorded = folder.manifest().get("model") or {}
        if "fingerprint" in recorded and recorded["fingerprint"] != self._fingerprint():
            raise RunError(f"the model at {self.model.path} changed since {folder.path} was started. Start a new run")

    def _answer(
        self,
        folder: RunFolder,
        session: BaseInferenceSession,
        requests: Questions,
        load: float,
    ) -> RunResult:
        context = self._context(folder, session)
        with Journal(folder.journal_path) as journal:
            get_plugins().hook.run_started(run=context)
            outputs = self._infer(context, session, requests, journal, load)
            result = self._score(context, journal, requests, outputs)
        get_plugins().hook.run_finished(run=context, result=result)
        folder.update_manifest(status="finished")
        return result

    def _infer(
        self,
        context: RunContext,
        session: BaseInferenceSession,
        requests: Questions,
        journal: Journal,
        load: float,
    ) -> dict[str, Output]:
        """All answers; what they cost is in the journal."""
        with Meter() as meter:
            started = time.perf_counter()

            def spent() -> Spent:
                return Spent(session.token_counts(), load, time.perf_counter() - started, meter.energy())

            asked = _unique(requests)
            try:
                outputs = infer(
                    session,
                    asked,
                    journal,
                    batch_size=self.spec.rows,
                    on_progress=self.on_progress,
                    on_answer=progress_reporter(context, session, len(asked)),
                    answers=self.answers,
                    spent=spent,
                )
            finally:
                self.written = journal.written
                if self.answers is not None:
                    self.answers.flush()
            meter.read()
            journal.finish_attempt(spent())
        return outputs

    def _context(self, folder: RunFolder, session: BaseInferenceSession) -> RunContext:
        planned = self.plan.tasks
        return RunContext(
            folder=folder,
            spec=self.spec,
            tasks={name: item.task for name, item in planned.items()},
            engine={**self.engine.to_dict(), "execution": redact(session.describe_execution())},
            documents={name: len(item.docs) for name, item in planned.items()},
            shots={name: item.num_fewshot for name, item in planned.items()},
        )

    def _score(
        self,
        context: RunContext,
        journal: Journal,
        requests: Questions,
        outputs: dict[str, Output],
    ) -> RunResult:
        tallies = {name: Tally(planned) for name, planned in self.plan.tasks.items()}
        sample_scored = get_plugins().hook.sample_scored
        for name, tally in tallies.items():
            for sample in samples(tally.planned, requests[name], outputs):
                tally.add(sample)
                sample_scored(run=context, sample=sample)
        summary = summarize(self.plan, tallies)
        spent = journal.costs()
        return RunResult(
            run_dir=str(context.folder.path),
            results=summary.results,
            tokens=spent.tokens,
            seconds=Seconds(spent.load, spent.inference, time.perf_counter() - self.started),
            errors=sum(output.error is not None for output in outputs.values()),
            unusable=sum(tally.unusable for tally in tallies.values()),
            details=summary.details,
            warnings=(*warnings(tallies, journal), *self._cache_warnings()),
            from_cache=sum(is_from_cache(output) for output in outputs.values()),
            tokens_out=generated_tokens(output for output in outputs.values() if not is_from_cache(output)),
            energy=spent.energy,
        )

    def _cache_warnings(self) -> list[str]:
        return [self.answers.warning] if self.answers is not None and self.answers.warning else []


def _unique(questions: Questions) -> dict[str, Request]:
    return {key: request for asked in questions.values() for doc in asked for key, request in doc}
