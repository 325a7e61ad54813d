"""params.yaml: what it may hold, and a clear error for anything else."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hfbench.foundation.configuration import AXES, UNIFORM, Configuration
from hfbench.foundation.errors import UserError
from hfbench.foundation.settings import (
    BatchingParams,
    CompileParams,
    KernelEntry,
    ListedLengths,
    NotReserved,
    RequestLengths,
    contradiction,
)
from hfbench.foundation.sources import Source
from hfbench.foundation.sweep import Listed, Sweep
from hfbench.foundation.values import Count, Device, Every, FilePath, MonitorInterval, Name, StoppingRule, Strict
from hfbench.foundation.wording import sentence

LISTED_STAGE = "measure_listed@"  # as dvc.yaml names it


class SamplingParams(Strict):
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


class Limits(Strict):
    """How far the output of a point may be from its reference before the point is flagged and not ranked as best."""

    min_top1_agreement: Annotated[float, Field(ge=0, le=1)]
    max_nll_difference: Annotated[float, Field(gt=0)]


class Compare(Strict):
    """What `hfbench compare` calls the same: a change within `threshold`, a share of the baseline."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Params(Strict):
    """The whole of params.yaml."""

    models: dict[Name, Annotated[Source, Field(discriminator="source")]]
    sweep: Sweep
    configurations: list[Listed]
    device: Device
    prompt: FilePath
    request_lengths: Annotated[dict[Name, RequestLengths], NotReserved] = Field(default_factory=dict)
    compile: CompileParams = CompileParams()
    kernels: list[KernelEntry] = Field(default_factory=list)
    continuous_batching: BatchingParams = BatchingParams()
    sampling: SamplingParams
    limits: Limits
    compare: Compare = Compare()

    def points(self) -> list[Configuration]:
        """Return all points by round: those of the sweep, and then the listed ones."""
        swept = self.sweep.points()
        return [
            point
            for number in self.sweep.round
            for point in (
                *(point for point in swept if point.round == number),
                *(listed.in_round(number) for listed in self.configurations),
            )
        ]

    def workloads(self, model: str) -> list[Configuration]:
        """Return a configuration for each workload of the model, whatever the axes hold that say how it runs."""
        listed = [each.in_round(1) for each in self.configurations if each.model == model]
        return [*self.sweep.workloads(model), *listed]

    def dtypes(self) -> list[str]:
        """Return the dtypes of the sweep and of the listed configurations."""
        return sorted({*self.sweep.dtype, *(each.dtype for each in self.configurations)})

    def stages(self) -> dict[Configuration, str]:
        """Return the stage that measures each point, as DVC names it."""
        listed = {
            each.in_round(number): f"{LISTED_STAGE}{number}-configuration{index}"
            for number in self.sweep.round
            for index, each in enumerate(self.configurations)
        }
        return {
            point: listed.get(point) or "measure@" + "-".join(str(getattr(point, axis)) for axis in AXES)
            for point in self.points()
        }


def load_params(path: Path) -> Params:
    """Read and check params.yaml. Raises `UserError` naming each wrong key, its value and what is allowed."""
    return checked_params(path, read_yaml(path))


def checked_params(path: Path, content: Any) -> Params:
    """Check the content of params.yaml as `load_params` does; `path` is for the sentences of the `UserError`."""
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(dict.fromkeys(sentence(path, detail, Params) for detail in error.errors()))) from None
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
        raise UserError("\n".join(sentence(path, detail, Params) for detail in details)) from None  # type: ignore[arg-type]


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2, as DVC does: `off` is a string, not false. Raises `UserError` where it is missing or no YAML."""
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run hfbench from the folder that holds it.") from None
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None


def _check_references(path: Path, params: Params) -> None:
    complaint = (
        _unknown_name(params)
        or _longest_request(params)
        or _nothing_or_twice(params)
        or contradiction(params.kernels)
        or _bounds(params.sampling)
    )
    if complaint:
        raise UserError(f"{path}: {complaint}")


def _unknown_name(params: Params) -> str | None:
    """Return a sentence on the first name that nothing in the file has."""
    for name in params.sweep.model:
        if name not in params.models:
            return (
                f"sweep.model names {name!r}, which is not under models. Expected one of: {', '.join(params.models)}."
            )
    for index, listed in _numbered(params):
        if listed.model not in params.sweep.model:
            known = ", ".join(params.sweep.model)
            return f"configurations.{index}.model is {listed.model!r}, not one of sweep.model ({known}). Add it there."
    lengths = (UNIFORM, *params.request_lengths)
    named = [("sweep.request_lengths", name) for name in params.sweep.request_lengths]
    named += [(f"configurations.{index}.request_lengths", each.request_lengths) for index, each in _numbered(params)]
    for key, name in named:
        if name not in lengths:
            return f"{key} names {name!r}, which is not under request_lengths. Expected one of: {', '.join(lengths)}."
    return None


def _longest_request(params: Params) -> str | None:
    """Return a sentence on the first point whose lengths are not those of the longest of its listed requests."""
    for point in params.points():
        entry = params.request_lengths.get(point.request_lengths)
        if not isinstance(entry, ListedLengths):
            continue
        for axis, listed in (("sequence_length", entry.prompt_tokens), ("max_new_tokens", entry.new_tokens)):
            if getattr(point, axis) != max(listed):
                return (
                    f"request_lengths.{point.request_lengths} has at most {max(listed)} "
                    f"{'prompt' if axis == 'sequence_length' else 'new'} tokens, and it is to run with {axis} "
                    f"{getattr(point, axis)}. The axis has the longest request's: write {max(listed)} there."
                )
    return None


def _nothing_or_twice(params: Params) -> str | None:
    """Return a sentence where there is nothing to measure, or a configuration to be measured twice."""
    seen: dict[Configuration, str] = dict.fromkeys(params.sweep.points(), "in the sweep")
    if not seen and not params.configurations:
        empty = next(axis for axis in AXES if not getattr(params.sweep, axis))
        return f"sweep.{empty} is empty and configurations lists nothing, so there is nothing to measure. Add a value."
    for index, listed in _numbered(params):
        point = listed.in_round(params.sweep.round[0])
        if point in seen:
            return f"configurations.{index} is {seen[point]} already. Remove it here or there."
        seen[point] = f"configurations.{index}"
    return None


def _numbered(params: Params) -> list[tuple[int, Listed]]:
    return list(enumerate(params.configurations))


def _bounds(sampling: SamplingParams) -> str | None:
    for what in ("iterations", "warmup_iterations"):
        low, high = getattr(sampling, f"min_{what}"), getattr(sampling, f"max_{what}")
        if high < low:
            return f"sampling.max_{what} is {high}, less than sampling.min_{what}, {low}. Raise it."
    return None
