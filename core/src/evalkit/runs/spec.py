"""RunSpec: everything that `evalkit run` is told, from the command line, a YAML file or Python."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evalkit.errors import ConfigError, did_you_mean, one_line
from evalkit.tasks.fewshot import DEFAULT_SEED


class RunSpec(BaseModel):
    """The fields of a run; a YAML file holds the same ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: Annotated[list[str], Field(min_length=1)]
    engine: str
    model: str
    engine_args: dict[str, Any] = {}
    model_args: dict[str, Any] = {}
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    gen: dict[str, Any] = {}
    apply_chat_template: bool = False
    chat_template_args: dict[str, Any] = {}
    fewshot_as_multiturn: bool | None = None
    system_prompt: str | None = None
    think_end: str | None = None
    allow_code_execution: bool = False
    truncate: bool = False
    cache: bool = False
    isolate: bool = False
    env: str | None = None
    restarts: Annotated[int, Field(ge=0)] = 0
    seed: int = DEFAULT_SEED
    data_dir: str | None = None
    output: str | None = None

    def limited(self, available: int) -> int:
        """How many of a task's documents are asked about; a share is rounded up, as lm-evaluation-harness does."""
        if self.limit is None:
            return available
        return math.ceil(available * self.limit) if self.limit < 1 else int(self.limit)

    @property
    def is_multiturn(self) -> bool:
        """Whether examples are turns of their own; by default so with a chat template, as lm-evaluation-harness."""
        return self.apply_chat_template if self.fewshot_as_multiturn is None else self.fewshot_as_multiturn

    @property
    def rows(self) -> int | None:
        """Batch size in rows; None where the engine chooses."""
        return None if self.batch_size == "auto" else self.batch_size


def make_spec(values: dict[str, Any]) -> RunSpec:
    """A RunSpec. Raises ConfigError that names the field at fault."""
    unknown = sorted(set(values) - set(RunSpec.model_fields))
    if unknown:
        raise ConfigError(f"a run has no field {unknown[0]!r}.{did_you_mean(unknown[0], RunSpec.model_fields)}")
    missing = [name for name in ("tasks", "engine", "model") if not values.get(name)]
    if missing:
        raise ConfigError(f"a run needs {', '.join(missing)}. See: evalkit run --help")
    try:
        return _consistent(RunSpec.model_validate(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(
            f"field {name!r}: {first['msg']}, not {values.get(name)!r}. See: evalkit run --help"
        ) from error


def _consistent(spec: RunSpec) -> RunSpec:
    if spec.fewshot_as_multiturn and not spec.apply_chat_template:
        raise ConfigError(
            "examples can be turns of their own (--fewshot-as-multiturn) only in a conversation. "
            "Add --apply-chat-template, or leave it out"
        )
    return spec


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields in a YAML file. Raises ConfigError with the line at fault."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"config file {path} does not exist. Check --config") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config file {path} cannot be read: {one_line(error)}. Mend it and run again") from error
    if not isinstance(values, dict):
        raise ConfigError(f"config file {path} holds no mapping. Write fields such as 'tasks: [hellaswag]'")
    if isinstance(values.get("tasks"), str):
        values["tasks"] = [values["tasks"]]
    return {str(name).replace("-", "_"): value for name, value in values.items()}
