"""A task of lm-evaluation-harness at work: its requests in document order, its filters, its scores."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from evalkit.errors import RequestError
from evalkit.tasks.context import Context, continued
from evalkit.tasks.fewshot import Doc
from evalkit.tasks.overrides import Overrides
from evalkit_lm_eval.definition import Definition, harness_seeds
from evalkit_lm_eval.generation import to_arguments
from evalkit_lm_eval.harness import Instance

BARE = "doc"
"""The field that holds a document which is no mapping."""


class LiveTask:
    """The harness's task, built when its documents are loaded, with what a run changes about it."""

    def __init__(self, definition: Definition, overrides: Overrides) -> None:
        self.definition = definition
        self.overrides = overrides
        self.unannounced: set[str] = set()
        """Metrics that were found in scores, but not in the configuration."""
        self._task: Any = None
        self._docs: list[Any] = []
        self._shown: list[Doc] = []
        """The documents as evalkit has them. The harness may write into its own while it asks about them."""
        self._next = 0
        """Number of the document whose examples are drawn next."""
        self._unusable: set[int] = set()
        """Numbers of documents that the harness cannot ask about: they are left out, but their examples are drawn."""

    @property
    def shots(self) -> int:
        """How many examples: the run's number, but a task that says 0 itself keeps to it (lm-evaluation-harness)."""
        default, asked = self.definition.config.get("num_fewshot"), self.overrides.num_fewshot
        return int(default or 0) if asked is None or default == 0 else asked

    @property
    def task(self) -> Any:
        """The harness's task. Raises RequestError before its documents are loaded."""
        if self._task is None:
            raise RequestError(f"load the documents of task 'lm_eval:{self.definition.name}' before asking about them")
        return self._task

    def load(self, data_dir: str | None) -> list[Doc]:
        """All documents, as mappings."""
        task = self.definition.build(data_dir, self.shots)
        self._configure(task)
        with harness_seeds():
            self._docs = list(task.eval_docs)
        self._shown = [wrapped(doc) for doc in self._docs]
        self._task = task
        self._unusable = set()
        self._rewind()
        return self._shown

    def _configure(self, task: Any) -> None:
        """The changes in the harness's own order and by its own rules."""
        if task.OUTPUT_TYPE == "generate_until" and (changed := to_arguments(self.overrides.gen)):
            task.set_config("generation_kwargs", changed, update=True)
        if self.overrides.gen.repeats is not None:
            task.set_config("repeats", self.overrides.gen.repeats)
        task.set_config("num_fewshot", self.shots)

    def _rewind(self) -> None:
        self._next = 0
        self.task.set_fewshot_seed(self.overrides.seed)

    def instances(self, doc: Doc, context: Context) -> list[Instance]:
        """What the harness asks about `doc`."""
        number = self._turn(doc)
        return self._built(self._docs[number], number, context)

    def trial(self, doc: Doc) -> list[Instance]:
        """What it asks without a chat template. Raises whatever the harness or its data raise."""
        number = self._turn(doc)
        try:
            # The harness may write into a document while it asks about it: once is enough.
            return self._built(deepcopy(self._docs[number]), number, Context())
        except Exception:
            self._unusable.add(number)
            raise

    def _built(self, original: Any, number: int, context: Context) -> list[Instance]:
        task, template = self.task, _template(context)
        self._next = number + 1
        text = task.fewshot_context(
            original,
            num_fewshot=self.shots,
            system_instruction=context.system or None,
            apply_chat_template=template is not None,
            fewshot_as_multiturn=context.multiturn,
            chat_template=template,
            gen_prefix=task.doc_to_prefix(original),
        )
        made = task.construct_requests(
            doc=original,
            ctx=text,
            metadata=(task.config["task"], number, task.config.repeats),
            apply_chat_template=template is not None,
            chat_template=template,
        )
        return sorted(made if isinstance(made, list) else [made], key=lambda instance: instance.idx)

    def _turn(self, doc: Doc) -> int:
        """The document's number. The shots depend on all draws before: an earlier document starts them anew."""
        number = self._next
        while number in self._unusable:
            number += 1
        if self._shown[number : number + 1] != [doc]:
            number = self._shown.index(doc)
            self._rewind()
        for earlier in self._docs[self._next : number] if self.shots else ():
            # Only the draw counts. What is wrong with an unusable document was said when it was tried.
            with contextlib.suppress(Exception):
                self.task.fewshot_context(earlier, num_fewshot=self.shots)
        return number

    def scores(self, doc: Doc, responses: Sequence[Any]) -> dict[str, tuple[list[Any], dict[str, Any]]]:
        """By filter, what it leaves of the responses and each metric's value. `responses` come repeat after repeat."""
        task, plain = self.task, unwrapped(doc)
        repeats = task.config.repeats
        instances = [
            Instance(str(task.OUTPUT_TYPE), plain, (), index, (task.config["task"], None, repeats))
            for index in range(len(responses) // repeats)
        ]
        for index, response in enumerate(responses):
            instances[index // repeats].resps.append(response)
        for ensemble in task._filters:
            ensemble.apply(instances)
        found = {}
        for name in instances[0].filtered_resps:
            filtered = [instance.filtered_resps[name] for instance in instances]
            found[name] = (filtered, dict(task.process_results(plain, filtered)))
        return found


def wrapped(doc: Any) -> Doc:
    """A document as a mapping."""
    return dict(doc) if isinstance(doc, dict) else {BARE: doc}


def unwrapped(doc: Doc) -> Any:
    """The document as the harness has it."""
    return doc[BARE] if set(doc) == {BARE} else dict(doc)


def _template(context: Context) -> Any:
    chat = context.chat_template
    if chat is None:
        return None

    def render(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return chat(messages) if add_generation_prompt else continued(chat, messages)

    return render
