"""A point and its axes: the one table from which schema, options, file names, keys, labels and words are made.

A new axis is a field of `Configuration`, a line of each `measure` stage in dvc.yaml, and its values in params.yaml.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

ATTN_IMPLEMENTATIONS = (
    "eager",
    "sdpa",
    "sdpa:math",
    "sdpa:flash_attention",
    "sdpa:efficient_attention",
    "sdpa:cudnn_attention",
    "flex_attention",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
)
# Source: ALL_CACHE_IMPLEMENTATIONS of transformers 5.22, without those that it calls deprecated.
CACHE_IMPLEMENTATIONS = ("auto", "dynamic", "static", "offloaded", "offloaded_static", "quantized")
UNIFORM = "uniform"
NONE = "none"
INF = "inf"
PROMPT_LOOKUP = "prompt_lookup"
NOT_MODELS = (NONE, PROMPT_LOOKUP)  # values of `assistant`
# Strings that stand in file names, in DVC's paths and in shell commands; a dot in a name would mean a level in DVC's
# paths of parameters.
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"
HUB_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_A_NAME = "a name of letters, digits, - and _"


Kind = Literal["round", "model", "work", "load", "way", "precision"]


@dataclass(frozen=True)
class Axis:
    """What is known of an axis beside its name and type.

    `kind` says what it decides: which `round` or `model`, the `work` that is done, the `load` under which, which
    changes no output, the `way` in which, or the `precision`, which is a way too, but one that the reference shares.
    `label` heads its column. `usual` is the value that names leave out, None where they always tell; `plain` the value
    of the reference, the usual one unless given. `token` is its part in keys, `words` its part in sentences; two tokens
    are those of false and true. Strings are one of `values` or match `pattern`, which `expected` describes; numbers are
    at least `minimum`. Captions tell what is usual too where it is `always_told`.
    """

    kind: Kind
    label: str
    usual: Any = None
    plain: Any = None
    token: str | tuple[str, str] = "{}"
    words: str = "{}"
    values: tuple[str, ...] = ()
    pattern: str = ""
    expected: str = ""
    minimum: int = 1
    always_told: bool = False


def _axis(kind: Kind, label: str, **known: Any) -> Any:
    axis = Axis(kind, label, **known)
    return field(metadata={"axis": axis}) if axis.usual is None else field(default=axis.usual, metadata={"axis": axis})


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One point: a value of each axis, named as transformers names them.

    `quantization` is `none`, which takes a checkpoint as it is, or an entry of `quantization:`. `cache_implementation`
    is a name of transformers', or `auto`: what the rest asks for. `prefill_chunk_size` is in tokens, 0 for a prompt
    that is taken in at once. `assistant` is what drafts tokens for assisted decoding: `none`, `prompt_lookup`, or an
    entry of `models:`. Over `tp_size` processes each layer is split (tensor parallelism), each with a device of its own
    where there are accelerators. With a `device_map` of `auto` each layer is whole, and the layers are dealt out to the
    devices that there are. `context_depth` is the number of tokens in the cache before the clock starts.
    `request_lengths` is `uniform`, where each of `batch_size` rows has `sequence_length` prompt tokens and gets
    `max_new_tokens`, or an entry of `request_lengths:`, where those are the longest request's. `request_rate` is in
    requests a second, as params.yaml spells it, or `inf`, where all arrive at once.
    """

    round: int = _axis("round", "round")
    model: str = _axis("model", "model", pattern=NAME, expected=_A_NAME)
    attn_implementation: str = _axis(
        "way",
        "attention",
        plain="eager",
        values=ATTN_IMPLEMENTATIONS,
        # As transformers spells one (`integrations.hub_kernels.is_kernel`), but without @revision: DVC splits a stage's
        # name at its last @, and then finds no stage at all. The revision stands under `kernels:`.
        pattern=rf"{HUB_NAME}(:\w+)?",
        expected="a hub kernel such as kernels-community/flash-attn3 (its commit goes under kernels)",
    )
    compile_mode: str = _axis(
        "way",
        "compile",
        usual="off",
        token="compile-{}",
        values=("off", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
        always_told=True,
    )
    cache_implementation: str = _axis("way", "cache", usual="auto", token="cache-{}", values=CACHE_IMPLEMENTATIONS)
    use_kernels: bool = _axis("way", "kernels", usual=False, token=("no-kernels", "kernels"), always_told=True)
    experts_implementation: str = _axis(
        "way", "experts", usual="auto", token="experts-{}", values=("auto", "eager", "batched_mm", "grouped_mm")
    )
    quantization: str = _axis(
        "way", "quantization", usual=NONE, pattern=NAME, expected=f"{NONE}, or the name of an entry under quantization"
    )
    continuous_batching: bool = _axis(
        "way", "continuous batching", usual=False, token=("static", "continuous"), always_told=True
    )
    prefill_chunk_size: int = _axis("way", "prefill chunk", usual=0, token="chunk{}", minimum=0)
    assistant: str = _axis(
        "way",
        "assistant",
        usual=NONE,
        token="assistant-{}",
        pattern=NAME,
        expected=f"{NONE}, {PROMPT_LOOKUP}, or the name of an entry under models",
    )
    tp_size: int = _axis("way", "tensor parallel", usual=1, token="tp{}")
    device_map: str = _axis("way", "device map", usual=NONE, token="device-map-{}", values=(NONE, "auto"))
    dtype: str = _axis("precision", "dtype", usual="bfloat16", values=("bfloat16", "float16", "float32"))
    request_lengths: str = _axis("work", "requests", usual=UNIFORM, words="{} requests", pattern=NAME, expected=_A_NAME)
    request_rate: str = _axis(
        "load",
        "request rate",
        usual=INF,
        token="rate{}",
        words="{} requests/s",
        # Without needless zeros: 2 and 2.0 would be two points.
        pattern=rf"{INF}|(?=.*[1-9])(0|[1-9]\d*)(\.\d*[1-9])?",
        expected=f"{INF}, or a number of requests a second above 0, in its shortest form as 2 or 2.5",
    )
    batch_size: int = _axis("work", "batch", token="b{}", words="batch {}")
    sequence_length: int = _axis("work", "prompt tokens", token="s{}", words="{} prompt tokens")
    max_new_tokens: int = _axis("work", "new tokens", token="n{}", words="{} new tokens")
    context_depth: int = _axis("work", "context depth", usual=0, token="d{}", words="{} tokens of context", minimum=0)

    @property
    def file_name(self) -> str:
        """The name of the point's files, as dvc.yaml composes it (`/` in a value makes a folder)."""
        return joined(vars(self).values())

    @property
    def is_static(self) -> bool:
        """Whether `generate` is to use a static cache: where asked for, and else where it compiles."""
        if self.cache_implementation == "auto":
            return self.compile_mode != "off" and not self.continuous_batching
        return self.cache_implementation in ("static", "offloaded_static")

    @property
    def is_offloaded(self) -> bool:
        """Whether the cache is to go to the host."""
        return self.cache_implementation in ("offloaded", "offloaded_static")

    @property
    def devices(self) -> int | None:
        """Over how many devices it runs, where there are accelerators; None: over all there are."""
        return self.tp_size if self.device_map == NONE else None

    @property
    def has_draft_model(self) -> bool:
        """Whether a second model drafts tokens."""
        return self.assistant not in NOT_MODELS

    @property
    def cache_kind(self) -> str:
        """The cache by transformers' name: what is asked for, or static where that follows, or else auto."""
        return "static" if self.cache_implementation == "auto" and self.is_static else self.cache_implementation


AXIS_TABLE: dict[str, Axis] = {each.name: each.metadata["axis"] for each in dataclasses.fields(Configuration)}
AXIS_TYPES: dict[str, Any] = {each.name: each.type for each in dataclasses.fields(Configuration)}
AXES = tuple(AXIS_TABLE)
# What is compared: a round repeats a configuration in a fresh process.
CONFIGURATION_AXES = AXES[1:]
# What a configuration does, beside the model, and what of that decides what it computes; the other axes are how.
WORKLOAD_AXES = tuple(name for name, axis in AXIS_TABLE.items() if axis.kind in {"work", "load"})
LOAD_AXES = frozenset(name for name, axis in AXIS_TABLE.items() if axis.kind == "load")  # numbers, kept as text
INPUT_AXES = tuple(name for name, axis in AXIS_TABLE.items() if axis.kind == "work")
WAY_AXES = tuple(name for name, axis in AXIS_TABLE.items() if axis.kind in {"way", "precision"})
# What a name of a point need not say.
USUAL: dict[str, Any] = {name: axis.usual for name, axis in AXIS_TABLE.items() if axis.usual is not None}
# The plainest way to run a model, with which the others' outputs are compared.
REFERENCE: dict[str, Any] = {
    name: axis.usual if axis.plain is None else axis.plain for name, axis in AXIS_TABLE.items() if axis.kind == "way"
}


def joined(values: Iterable[Any]) -> str:
    """Return the values with hyphens between them, as dvc.yaml writes them into names: booleans as YAML has them."""
    return "-".join(value_text(value) for value in values)


def value_text(value: Any) -> str:
    """Return a value of an axis as params.yaml spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def token_of(axis: str, value: Any) -> str:
    """Return the short token of a value in keys: `b4` for batch size 4, `s128` and `n32` for prompt and new tokens."""
    token = AXIS_TABLE[axis].token
    return token.format(value) if isinstance(token, str) else token[bool(value)]


def words_of(axis: str, value: Any) -> str:
    """Return a value in words for a sentence: `batch 4`, `1 new token`."""
    words = AXIS_TABLE[axis].words
    return (words.replace("tokens", "token") if value == 1 else words).format(value)


def telling_axes(configuration: Mapping[str, Any]) -> list[str]:
    """Return the axes whose values a name must say: all but round, and those that are as usual."""
    return [axis for axis in CONFIGURATION_AXES if axis not in USUAL or configuration[axis] != USUAL[axis]]
