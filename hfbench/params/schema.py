"""params.yaml: what it may hold, and a clear error for anything else."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hfbench.core.errors import UserError
from hfbench.core.point import (
    AXES,
    AXIS_TABLE,
    CONFIGURATION_AXES,
    NONE,
    NOT_MODELS,
    UNIFORM,
    Configuration,
    value_text,
)
from hfbench.core.results import PARAMS, SETTINGS_AXES, listed_stage, record_path, settings_path, sweep_stage
from hfbench.core.sources import FilePath, Name, Source, Strict
from hfbench.params.sections import (
    KERNEL_TAGS,
    LENGTHS_TAGS,
    ArrivalParams,
    AssistedDecodingParams,
    BatchingParams,
    CompileParams,
    Count,
    Device,
    Every,
    KernelEntry,
    Listed,
    ListedLengths,
    MonitorInterval,
    QuantizationByName,
    QuantizedCacheParams,
    RequestLengthsByName,
    Shape,
    StoppingRule,
    Sweep,
    Workloads,
    contradiction,
    not_reserved,
)

_SOURCE_NAMES = tuple(get_args(source.model_fields["source"].annotation)[0] for source in get_args(Source))
_TAGS = {*_SOURCE_NAMES, *KERNEL_TAGS, *LENGTHS_TAGS}  # pydantic names the alternative that it tried


def sentence(path: Path, detail: ErrorDetails, root: type[BaseModel]) -> str:
    """Turn one error of pydantic into a sentence: the key, the value, what is allowed. `root` is the whole schema."""
    location = [part for part in detail["loc"] if not (isinstance(part, str) and part in _TAGS)]
    key = ".".join(str(part) for part in location)
    given, kind, message = detail["input"], detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        return f"{path}: {key} is not a key that hfbench knows. {_did_you_mean(location, root)}"
    if kind == "missing":
        how = " as a list of at least one value" if location[0] == "sweep" else ""
        return f"{path}: {key} is missing. Add it{how}."
    if kind == "value_error":
        message = f"expected {detail['ctx']['error']}"
    elif kind.startswith("union_tag"):
        key, given = f"{key}.source", given.get("source") if isinstance(given, dict) else given
        message = f"expected one of {', '.join(_SOURCE_NAMES)}"
    else:
        message = message.replace("Input should be", "expected").replace("Input", "expected something that")
    return f"{path}: {key} is {given!r}; {message}."


def _did_you_mean(location: list[Any], root: type[BaseModel]) -> str:
    section: Any = root
    for part in location[:-1]:
        if isinstance(part, int):
            section = get_args(section)[0]
        else:  # the entries of a dictionary are of several kinds
            fields = getattr(section, "model_fields", {})
            section = fields[part].annotation if part in fields else None
    known = list(getattr(section, "model_fields", {}))
    if not known:
        return "Remove it."
    # An axis is also known by the name that heads its column.
    names = {AXIS_TABLE[name].label: name for name in known if name in AXIS_TABLE} | {name: name for name in known}
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"Did you mean {names[close[0]]}?" if close else f"Expected one of: {', '.join(known)}."


class SamplingParams(Strict):
    """How many iterations a measurement takes; see `hfbench.core.record.Sampling`."""

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
    min_watched_seconds: Annotated[float, Field(ge=0)] = 2.0


class Limits(Strict):
    """How far the output of a point may be from its reference before the point is flagged and not ranked as best.

    Quantised weights have a price in quality by design, and limits of their own.
    """

    min_top1_agreement: Annotated[float, Field(ge=0, le=1)]
    max_nll_difference: Annotated[float, Field(gt=0)]
    min_quantized_top1_agreement: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_quantized_nll_difference: Annotated[float, Field(gt=0)] = 0.5


class Compare(Strict):
    """What `hfbench compare` calls the same: a change within `threshold`, a share of the baseline."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02


def threshold_of(content: Any) -> float:
    """Return `compare.threshold` of the content of a params.yaml, of any version, or the default.

    Raises `UserError` where it is no share.
    """
    default = Compare().threshold
    section = content.get("compare") if isinstance(content, Mapping) else None
    value = section.get("threshold", default) if isinstance(section, Mapping) else default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError(f"{PARAMS}: compare.threshold is {value!r}; expected a share between 0 and 1, such as 0.02.")
    return float(value)


class Params(Strict):
    """The whole of params.yaml."""

    models: Annotated[dict[Name, Annotated[Source, Field(discriminator="source")]], not_reserved(*NOT_MODELS)]
    sweep: Sweep
    configurations: list[Listed]
    device: Device
    prompt: FilePath
    request_lengths: RequestLengthsByName = Field(default_factory=dict)
    quantization: QuantizationByName = Field(default_factory=dict)
    compile: CompileParams = CompileParams()
    kernels: list[KernelEntry] = Field(default_factory=list)
    quantized_cache: QuantizedCacheParams = QuantizedCacheParams()
    assisted_decoding: AssistedDecodingParams = AssistedDecodingParams()
    arrivals: ArrivalParams = ArrivalParams()
    continuous_batching: BatchingParams = BatchingParams()
    sampling: SamplingParams
    limits: Limits
    compare: Compare = Compare()

    def points(self) -> list[Configuration]:
        """Return all points by round: those of the sweep, and then the listed ones."""
        swept = self.sweep.points()
        listed = [each.in_round(number) for number in self.sweep.round for each in self.configurations]
        return sorted([*swept, *listed], key=lambda point: self.sweep.round.index(point.round))

    def workloads(self, model: str) -> Workloads:
        """Return what the points of the model compute, whatever their axes hold that say how; none without points."""
        points = [point for point in self.points() if point.model == model]
        shapes = list(dict.fromkeys(map(Shape.of, points)))
        named = {shape.request_lengths for shape in shapes}
        return Workloads(
            shapes=shapes,
            request_lengths={name: entry for name, entry in self.request_lengths.items() if name in named},
        )

    def dtypes(self) -> list[str]:
        """Return the dtypes of the points."""
        return sorted({point.dtype for point in self.points()})

    def stages(self) -> dict[Configuration, str]:
        """Return the stage that measures each point, as DVC names it."""
        listed = {
            each.in_round(number): listed_stage(number, index)
            for number in self.sweep.round
            for index, each in enumerate(self.configurations)
        }
        return {point: listed.get(point) or sweep_stage(point) for point in self.points()}


def load_params(path: Path) -> Params:
    """Read and check params.yaml. Raises `UserError` naming each wrong key, its value and what is allowed."""
    return checked_params(path, read_yaml(path))


def checked_params(path: Path, content: Any) -> Params:
    """Check the content of params.yaml as `load_params` does; `path` is for the sentences of the `UserError`."""
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(dict.fromkeys(sentence(path, detail, Params) for detail in error.errors()))) from None
    complaint = (
        _unknown_name(params)
        or _longest_request(params)
        or _nothing_or_twice(params)
        or _one_file(params)
        or contradiction(params.kernels)
        or _other_order(content["configurations"])
        or _bounds(params.sampling)
    )
    if complaint:
        raise UserError(f"{path}: {complaint}")
    return params


def read_yaml(path: Path) -> Any:
    """Read YAML 1.2, as DVC does: `off` is a string, not false. Raises `UserError` where it is missing or no YAML."""
    try:
        return parse_yaml(path.read_bytes(), path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run hfbench from the folder that holds it.") from None


def parse_yaml(content: bytes, path: Path | str) -> Any:
    """Return what the content of a YAML file holds, as `read_yaml` does; `path` is named where it is no YAML."""
    try:
        return YAML(typ="safe").load(content)
    except YAMLError as error:
        said = " ".join(str(error).split())
        # Of ruamel.yaml.clib, where it is installed: within brackets it knows no `sdpa:math`, in DVC's hands neither.
        remedy = " Put a value that holds a colon in quotes." if "found unexpected ':'" in said else ""
        raise UserError(f"{path} is not valid YAML: {said}.{remedy}") from None


def _unknown_name(params: Params) -> str | None:
    """Return a sentence on the first name that nothing in the file has."""
    for name in params.sweep.model:
        if name not in params.models:
            return (
                f"sweep.model names {name!r}, which is not under models. Expected one of: {', '.join(params.models)}."
            )
    for name in params.sweep.assistant:
        if name not in (*NOT_MODELS, *params.models):
            known = ", ".join((*NOT_MODELS, *params.models))
            return f"sweep.assistant names {name!r}, which is not under models. Expected one of: {known}."
    for index, listed in enumerate(params.configurations):
        for axis in ("model", "assistant"):  # whose values have a stage of their own
            named, known = getattr(listed, axis), getattr(params.sweep, axis)
            if named not in known:
                listing = ", ".join(known)
                return f"configurations.{index}.{axis} is {named!r}, not one of sweep.{axis} ({listing}). Add it there."
    for section, usual in (("request_lengths", UNIFORM), ("quantization", NONE)):
        entries = (usual, *getattr(params, section))
        # Without points of its own, the sweep names nothing.
        named = [(f"sweep.{section}", name) for name in getattr(params.sweep, section) if params.sweep.points()]
        named += [
            (f"configurations.{index}.{section}", getattr(listed, section))
            for index, listed in enumerate(params.configurations)
        ]
        for key, name in named:
            if name not in entries:
                return f"{key} names {name!r}, which is not under {section}. Expected one of: {', '.join(entries)}."
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
    for index, listed in enumerate(params.configurations):
        point = listed.in_round(params.sweep.round[0])
        if point in seen:
            return f"configurations.{index} is {seen[point]} already. Remove it here or there."
        seen[point] = f"configurations.{index}"
    return None


def _one_file(params: Params) -> str | None:
    """Return a sentence on two points whose values, joined by hyphens, would name one file."""
    seen: dict[Path, tuple[Any, ...]] = {}
    for point in params.points():
        for path, axes in ((record_path(point), AXES), (settings_path(point), SETTINGS_AXES)):
            values = tuple(getattr(point, axis) for axis in axes)
            before = seen.setdefault(path, values)
            if before != values:
                axis = next(axis for axis, one, other in zip(axes, before, values, strict=True) if one != other)
                return (
                    f"two points would both have the file {path}, one of them with {axis} "
                    f"{value_text(getattr(point, axis))}. Choose names that hold no value of the axes beside them."
                )
    return None


def _other_order(configurations: Sequence[Mapping[str, Any]]) -> str | None:
    """Return a sentence on the first single configuration whose axes do not stand as in the sweep.

    Commands name the axes as they stand there, and by its command DVC finds a point that was measured in the sweep.
    """
    for index, entry in enumerate(configurations):
        for given, expected in zip(entry, CONFIGURATION_AXES, strict=True):
            if given != expected:
                return (
                    f"configurations.{index} has {given} where {expected} is expected: with another order of its axes "
                    "DVC would not know the point from that of the sweep. Write them in the order of sweep."
                )
    return None


def _bounds(sampling: SamplingParams) -> str | None:
    for what in ("iterations", "warmup_iterations"):
        low, high = getattr(sampling, f"min_{what}"), getattr(sampling, f"max_{what}")
        if high < low:
            return f"sampling.max_{what} is {high}, less than sampling.min_{what}, {low}. Raise it."
    return None
