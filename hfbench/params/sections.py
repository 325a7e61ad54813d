"""The values that params.yaml may hold: the axes, and the sections on which points depend beside them."""

import re
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    model_validator,
)

from hfbench.core.point import (
    AXES,
    AXIS_TABLE,
    AXIS_TYPES,
    HUB_NAME,
    INPUT_AXES,
    NONE,
    PROMPT_LOOKUP,
    UNIFORM,
    Axis,
    Configuration,
)
from hfbench.core.results import inputs_name
from hfbench.core.sources import FilePath, Name, Strict, matches

StoppingRule = Literal["precision", "fixed"]
_SHORTEST_INTERVAL_SECONDS = 0.05  # a reading takes about half a millisecond


def _unique(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError("values that differ from each other")
    return values


def _none_or(least: float, expected: str) -> AfterValidator:
    """Accept 0, and numbers of at least `least`; `expected` says so and why."""

    def check(value: Any) -> Any:
        if value != 0 and value < least:
            raise ValueError(expected)
        return value

    return AfterValidator(check)


Device = Annotated[str, matches(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", "auto, cpu, cuda, cuda:1, xpu or mps")]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]  # 0: none
# Every so many iterations, and seconds between readings of the hardware; 0 for never.
Every = Annotated[int, _none_or(2, "0 (none), or 2 and more: the iterations between are the ones that count")]
MonitorInterval = Annotated[
    float,
    _none_or(
        _SHORTEST_INTERVAL_SECONDS,
        f"0 (no monitoring), or at least {_SHORTEST_INTERVAL_SECONDS} s: the monitor must not disturb",
    ),
]


def _value_type(name: str, axis: Axis) -> Any:
    """Return the type of one value of an axis."""
    if AXIS_TYPES[name] is bool:
        return bool
    if AXIS_TYPES[name] is int:
        return Annotated[int, Field(ge=axis.minimum)]
    if not axis.pattern:
        return Literal[axis.values]
    expected = f"one of {', '.join(axis.values)}, or {axis.expected}" if axis.values else axis.expected
    text = Annotated[str, matches("|".join([*map(re.escape, axis.values), axis.pattern]), expected)]
    return Annotated[text, BeforeValidator(_number_as_text)] if axis.kind == "load" else text


def _number_as_text(value: Any) -> Any:
    """Return a number as DVC writes it into commands and names."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _list_type(name: str, axis: Axis) -> Any:
    """Return the type of the values of an axis in the sweep; listed configurations need rounds and models too.

    And what drafts, which has a stage of its own as models have.
    """
    fewest = 1 if axis.kind in {"round", "model"} or name == "assistant" else 0
    return Annotated[list[_value_type(name, axis)], Field(min_length=fewest), AfterValidator(_unique)]  # type: ignore[misc]


if TYPE_CHECKING:

    class _Values(Strict):
        def __getattr__(self, axis: str) -> Any: ...

    _Lists = _Values
else:
    _Lists = create_model(
        "_Lists", __base__=Strict, **{name: (_list_type(name, axis), ...) for name, axis in AXIS_TABLE.items()}
    )
    _Values = create_model(
        "_Values",
        __base__=Strict,
        **{name: (_value_type(name, axis), ...) for name, axis in AXIS_TABLE.items() if axis.kind != "round"},
    )


class Sweep(_Lists):
    """The axes, each a list; every combination of their values is measured, and none where one is empty."""

    def points(self) -> list[Configuration]:
        """Return every combination, the first axis slowest, as DVC's matrix orders them."""
        combinations = product(*(getattr(self, axis) for axis in AXES))
        return [Configuration(**dict(zip(AXES, values, strict=True))) for values in combinations]


class Listed(_Values):
    """A single configuration: a value of each axis but `round`. It is measured in every round of the sweep."""

    def in_round(self, number: int) -> Configuration:
        """Return the point of this round."""
        return Configuration(round=number, **self.model_dump())


# A branch or a tag may move, and nothing would be measured again.
_FIND_COMMIT = "docs/kernels.md says how to find that of a branch"
# Source: AUTO_QUANTIZATION_CONFIG_MAPPING of transformers 5.22, without gguf, which hfbench dequantises.
QUANT_METHODS = (
    *("aqlm", "auto-round", "awq", "bitnet", "bitsandbytes", "compressed-tensors", "eetq", "fbgemm_fp8"),
    *("fouroversix", "fp8", "fp_quant", "gemma", "gptq", "higgs", "hqq", "metal", "mxfp4", "mxfp8", "nvfp4"),
    *("quanto", "quark", "sinq", "spqr", "torchao", "vptq"),
)
KernelDevice = Literal["cpu", "cuda", "rocm", "xpu", "mps", "npu"]


class CompileParams(Strict):
    """What `CompileConfig` takes beside the mode, for every point that compiles; `options` add to those of the mode.

    With `measure_warm_start` a second process makes the first call again on the caches that the first one filled.
    """

    backend: Annotated[str, matches(r"[A-Za-z0-9_.-]+", "the name of a backend of torch.compile")] = "inductor"
    fullgraph: bool = False
    dynamic: bool | None = None
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    measure_warm_start: bool = True


class AttentionKernel(Strict):
    """A repository of the Hugging Face hub, pinned, for an attn_implementation of that name."""

    repository: Annotated[str, matches(HUB_NAME, "a repository as OWNER/NAME")]
    revision: Annotated[str, matches(r"[0-9a-f]{40}", f"a commit of 40 hexadecimal digits; {_FIND_COMMIT}")]
    trust_remote_code: bool = False


class HubKernel(AttentionKernel):
    """A repository of the Hugging Face hub, pinned: its layer `layer_name` takes the place of `layer`."""

    layer: Annotated[str, matches(r"\w+", "the name of a layer, as RMSNorm")]
    device: KernelDevice
    layer_name: Annotated[str, matches(r"\w+", "the name of a class in the kernel's layers")]


class LocalKernel(Strict):
    """A folder with a built kernel: its layer `layer_name` takes the place of `layer`."""

    layer: Annotated[str, matches(r"\w+", "the name of a layer, as RMSNorm")]
    device: KernelDevice
    path: FilePath
    layer_name: Annotated[str, matches(r"\w+", "the name of a class in the kernel's layers")]


class QuantizationEntry(BaseModel):
    """What transformers' `quantization_config` takes, by transformers' own names; the rest of it transformers checks.

    For torchao, `quant_type` is the name of a config of `torchao.quantization`, or that name with its arguments, beside
    the form that transformers writes into a checkpoint.
    """

    model_config = ConfigDict(extra="allow")
    quant_method: Literal[QUANT_METHODS]  # type: ignore[valid-type]


class QuantizedCacheParams(Strict):
    """What transformers' `QuantizedCache` takes, for every point with that cache; None leaves it to the backend.

    The backend fp8 stores 8 bits with a scale a tensor, and takes none of the others.
    """

    backend: Literal["quanto", "hqq", "fp8"] = "quanto"
    nbits: Count | None = None
    axis_key: Annotated[int, Field(ge=-1, le=1)] | None = None
    axis_value: Annotated[int, Field(ge=-1, le=1)] | None = None
    q_group_size: Count | None = None
    residual_length: Count | None = None

    @model_validator(mode="after")
    def _fits_backend(self) -> Self:
        given = [name for name, value in self if name != "backend" and value is not None]
        if self.backend == "fp8" and given:
            raise ValueError(f"only backend where that is fp8, which takes no {' and no '.join(given)}")
        return self


class BatchingParams(Strict):
    """What `ContinuousBatchingConfig` takes, for every point with continuous batching; docs/request-lengths.md.

    None, and 0 for an interval, leave it to transformers, or to hfbench where `hfbench.measure.batching` says so.
    What the axes decide (requests at a time, compilation, attention) and what would make an iteration another amount of
    work (a sampling seed, log probabilities) is no key here.
    """

    page_size: Annotated[int, Field(ge=4)] = 256
    num_blocks: Count | None = None
    max_batch_tokens: Count | None = None
    max_memory_percent: Annotated[float, Field(gt=0, le=1)] | None = None
    max_blocks_per_request: CountOrNone | None = None
    scheduler_type: Literal["fifo", "prefill_first"] = "fifo"
    safety_margin: Annotated[float, Field(ge=0, le=1)] | None = None
    allow_block_sharing: bool = False
    use_async_batching: bool | None = None
    use_cuda_graph: bool | None = None
    q_padding_interval_size: CountOrNone = 0
    kv_padding_interval_size: CountOrNone = 0
    cpu_offload_space: Annotated[float, Field(ge=0)] = 0.0


class AssistedDecodingParams(Strict):
    """What `generate` takes for a point with an assistant, by the names of transformers' `GenerationConfig`.

    The schedule `heuristic` is no value: it carries the length of drafts from one call to the next.
    """

    prompt_lookup_num_tokens: Count = 10
    max_matching_ngram_size: Count = 2
    num_assistant_tokens: Count = 20
    num_assistant_tokens_schedule: Literal["constant", "heuristic_transient"] = "constant"
    assistant_confidence_threshold: Annotated[float, Field(ge=0, lt=1)] = 0.4

    def used_by(self, assistant: str) -> dict[str, Any] | None:
        """Return what of it an assistant takes."""
        values = self.model_dump()
        of_lookup = {name: values.pop(name) for name in ("prompt_lookup_num_tokens", "max_matching_ngram_size")}
        return None if assistant == NONE else of_lookup if assistant == PROMPT_LOOKUP else values


class ArrivalParams(Strict):
    """How requests arrive, for every point with a `request_rate`: as a Poisson process of this seed."""

    seed: Annotated[int, Field(ge=0)] = 0


class ListedLengths(Strict):
    """Requests of these lengths, in tokens; both lists have an entry a request.

    All begin with the same `shared_prefix_tokens`, and go on differently.
    """

    prompt_tokens: Annotated[list[Count], Field(min_length=1)]
    new_tokens: Annotated[list[Count], Field(min_length=1)]
    shared_prefix_tokens: CountOrNone = 0

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.prompt_tokens) != len(self.new_tokens):
            raise ValueError(
                f"as many new_tokens as prompt_tokens; there are {len(self.new_tokens)} and {len(self.prompt_tokens)}"
            )
        if min(self.prompt_tokens) <= self.shared_prefix_tokens:
            raise ValueError(f"prompt_tokens of more than the {self.shared_prefix_tokens} shared_prefix_tokens each")
        return self


class LogNormalLengths(Strict):
    """`requests` with seeded log-normal lengths of this `sigma`, scaled so that the longest is the axis's value.

    A `sigma` of 0 makes all alike. All begin with the same `shared_prefix_tokens`, and have one more at least.
    """

    requests: Count
    sigma: Annotated[float, Field(ge=0, le=3)]
    shared_prefix_tokens: CountOrNone = 0
    seed: Annotated[int, Field(ge=0)] = 0


def not_reserved(*reserved: str) -> AfterValidator:
    """Return what refuses entries of these names, which mean something else."""

    def check(value: dict[str, Any]) -> dict[str, Any]:
        for name in reserved:
            if name in value:
                raise ValueError(f"other names than {name}, which is built in")
        return value

    return AfterValidator(check)


def _kernel_tag(value: Any) -> str:
    if _has(value, "path"):
        return KERNEL_TAGS[1]
    # Without any of them the entry only pins the repository.
    return KERNEL_TAGS[0 if any(_has(value, key) for key in ("layer", "device", "layer_name")) else 2]


def _lengths_tag(value: Any) -> str:
    return LENGTHS_TAGS[not (_has(value, "prompt_tokens") or _has(value, "new_tokens"))]


def _has(value: Any, key: str) -> bool:
    return key in value if isinstance(value, dict) else hasattr(value, key)


KERNEL_TAGS = ("hub kernel", "local kernel", "attention kernel")
LENGTHS_TAGS = ("listed lengths", "log-normal lengths")
KernelEntry = Annotated[
    Annotated[HubKernel, Tag(KERNEL_TAGS[0])]
    | Annotated[LocalKernel, Tag(KERNEL_TAGS[1])]
    | Annotated[AttentionKernel, Tag(KERNEL_TAGS[2])],
    Discriminator(_kernel_tag),
]
RequestLengths = Annotated[
    Annotated[ListedLengths, Tag(LENGTHS_TAGS[0])] | Annotated[LogNormalLengths, Tag(LENGTHS_TAGS[1])],
    Discriminator(_lengths_tag),
]
RequestLengthsByName = Annotated[dict[Name, RequestLengths], not_reserved(UNIFORM)]
QuantizationByName = Annotated[dict[Name, QuantizationEntry], not_reserved(NONE)]


class Shape(Strict):
    """One input, in tokens: `batch_size` rows of `context_depth` and then `sequence_length` prompt tokens each.

    Where `request_lengths` is not `uniform`, the rows are that entry's requests, the longest of them as long as this.
    """

    request_lengths: str
    batch_size: int
    sequence_length: int
    max_new_tokens: int
    context_depth: int

    @classmethod
    def of(cls, point: Configuration) -> Self:
        """Return the shape of a point."""
        return cls(**{axis: getattr(point, axis) for axis in INPUT_AXES})

    @property
    def row_tokens(self) -> int:
        """The prompt tokens of a row with those of its context."""
        return self.context_depth + self.sequence_length

    @property
    def file_name(self) -> str:
        """The name of this shape's file in the model's folder of inputs."""
        return inputs_name(**self.model_dump())


class Workloads(Strict):
    """What the inputs of one model are made for: each shape once, and the entries of `request_lengths:` they name."""

    shapes: list[Shape]
    request_lengths: dict[str, RequestLengths]


def contradiction(entries: Sequence[KernelEntry]) -> str | None:
    """Return a sentence on the first entry of `kernels:` that another one contradicts, or None."""
    layers: dict[tuple[str, str], int] = {}
    revisions: dict[str, tuple[int, str]] = {}
    for index, entry in enumerate(entries):
        if isinstance(entry, HubKernel | LocalKernel):
            before = layers.setdefault((entry.layer, entry.device), index)
            if before != index:
                layer = f"{entry.layer} on {entry.device}"
                return f"kernels.{index} replaces {layer}, as kernels.{before} does. Remove one of them."
        if isinstance(entry, AttentionKernel):  # of a layer too: an attention in the same repository has its revision
            before, revision = revisions.setdefault(entry.repository, (index, entry.revision))
            if revision != entry.revision:
                return (
                    f"kernels.{index}.revision is not that of kernels.{before}, which is of {entry.repository} too. "
                    "Give both the same."
                )
    return None
