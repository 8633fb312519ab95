"""`--model evalkit` in lm-evaluation-harness: any engine of evalkit answers its requests."""

from __future__ import annotations

import atexit
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm  # type: ignore[import-untyped]

from evalkit.errors import ConfigError, RequestError, did_you_mean
from evalkit.model import Model
from evalkit.options import build
from evalkit.plugins import load_engine_class
from evalkit.requests import GenerationRequest, Output, Request
from evalkit.runs.resolve import build_engine, resolve_model
from evalkit.tasks.context import continued
from evalkit.tasks.fewshot import DEFAULT_SEED
from evalkit_lm_eval.adapter import to_evalkit
from evalkit_lm_eval.harness import LM, Instance, register_model

Ask = Callable[..., Iterator[tuple[int, Output]]]


@register_model("evalkit")
class EvalkitLM(LM):  # type: ignore[misc]
    """An engine of evalkit with a model, as the harness's LM.

    `options` are options of the engine and of the model, by their own names. `batch_size` 1, the harness's default,
    leaves the choice to the engine.
    """

    def __init__(
        self,
        engine: str = "",
        model: str = "",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        seed: int = DEFAULT_SEED,
        **options: Any,
    ) -> None:
        super().__init__()
        if not engine or not model:
            raise ConfigError("--model evalkit needs --model_args engine=NAME,model=PATH. See: evalkit list-engines")
        self.seed = seed
        rows = str(batch_size)
        self.batch_size = int(rows) if rows.isdecimal() and int(rows) > 1 else None
        engine_args, model_args = _sorted_out(engine, options)
        built, spec = build_engine(engine, engine_args)
        self.model = resolve_model(build(Model, {"path": model, **model_args}, "the model"), spec)
        self.session = built.build(self.model)
        # The harness has no word for the end of a model's use.
        atexit.register(self.close)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Self:
        """The model of `--model_args`."""
        made: Self = super().create_from_arg_obj(arg_dict, _without_device(additional_config))
        return made

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Self:
        """The same from one text."""
        made: Self = super().create_from_arg_string(arg_string, _without_device(additional_config))
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the model."""
        atexit.unregister(self.close)
        self.session.close()

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether it is the greedy one."""
        outputs = self._answered("loglikelihood", requests, self.session.loglikelihood_continuous, disable_tqdm)
        return [(output.logprob, output.is_greedy) for output in outputs]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each text."""
        ask = self.session.loglikelihood_rolling_continuous
        return [output.logprob for output in self._answered("loglikelihood_rolling", requests, ask, disable_tqdm)]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text generated for each prompt."""
        outputs = self._answered("generate_until", requests, self.session.generate_continuous, disable_tqdm)
        return [output.text for output in outputs]

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's cache of requests."""
        return (self.model.tokenizer_path or self.model.path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template where one was given; otherwise it is the model's own, which the session keeps to itself."""
        return self.model.chat_template or ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text; without the prompt for a new turn, the last turn goes on."""
        if add_generation_prompt:
            return self.session.apply_chat_template(chat_history)
        return continued(self.session.apply_chat_template, chat_history)

    def _answered(self, kind: str, instances: Sequence[Instance], ask: Ask, quiet: bool) -> list[Any]:
        outputs: dict[int, Output] = {}
        pending = ask(enumerate(self._requests(instances)), batch_size=self.batch_size)
        for index, output in tqdm(pending, total=len(instances), desc=f"evalkit {kind}", disable=quiet):
            if output.error:
                raise RequestError(f"request {index} of kind {kind} failed: {output.error}. Nothing was scored")
            outputs[index] = output
            self.cache_hook.add_partial(kind, instances[index].args, _answer(output))
        self.session.gc()
        return [outputs[index] for index in range(len(instances))]

    def _requests(self, instances: Iterable[Instance]) -> Iterator[Request]:
        """A sampled request gets the seed that evalkit's own runner gives it."""
        asked: Counter[Any] = Counter()
        for instance in instances:
            request, document = to_evalkit(instance), instance.doc_id or 0
            place = (instance.task_name, document)
            if isinstance(request, GenerationRequest) and request.is_sampled and request.seed is None:
                seed = (self.seed * 1_000_003 + document * 1_009 + asked[place]) % 2**31
                request = dataclasses.replace(request, seed=seed)
            asked[place] += 1
            yield request


def _without_device(config: dict[str, Any] | None) -> dict[str, Any]:
    # The harness's --device is "cuda:0" where nobody gave one: engines have an option of their own.
    return {name: value for name, value in (config or {}).items() if name != "device"}


def _answer(output: Any) -> Any:
    """What the harness's cache of answers keeps."""
    if hasattr(output, "text"):
        return output.text
    return (output.logprob, output.is_greedy) if hasattr(output, "is_greedy") else output.logprob


def _sorted_out(engine: str, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the engine, and of the model; `dtype` and the like are the model's where both have them."""
    cls, _ = load_engine_class(engine)
    of_model = {field.name for field in dataclasses.fields(Model)} - {"path"}
    known = of_model | {field.name for field in dataclasses.fields(cls) if field.init}
    for name in set(given) - known:
        near = did_you_mean(name, known)
        raise ConfigError(f"neither engine {engine!r} nor the model has an option {name!r}.{near}")
    return (
        {name: value for name, value in given.items() if name not in of_model},
        {name: value for name, value in given.items() if name in of_model},
    )
