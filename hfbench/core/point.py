"""One configuration: the axes, and what of params.yaml it depends on beside them."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfbench.core.files import read_json, write_json


@dataclass(frozen=True)
class Configuration:
    """One point: a value of each axis, named as transformers names them.

    `cache_implementation` is `dynamic`, `static`, or `auto`: what the rest asks for. `prefill_chunk_size` is in tokens,
    0 for a prompt that is taken in at once. `context_depth` is the number of tokens in the cache before the clock
    starts. `request_lengths` is `uniform`, where each of `batch_size` rows has `sequence_length` prompt tokens and gets
    `max_new_tokens`, or an entry of `request_lengths:`, where those are the longest request's.
    """

    round: int
    model: str
    attn_implementation: str
    compile_mode: str
    cache_implementation: str
    use_kernels: bool
    continuous_batching: bool
    prefill_chunk_size: int
    dtype: str
    request_lengths: str
    batch_size: int
    sequence_length: int
    max_new_tokens: int
    context_depth: int

    @property
    def file_name(self) -> str:
        """The name of the point's files, as dvc.yaml composes it (`/` in a value makes a folder)."""
        return joined(vars(self).values())

    @property
    def is_static(self) -> bool:
        """Whether `generate` is to use a static cache: where asked for, and else where it compiles."""
        if self.cache_implementation == "auto":
            return self.compile_mode != "off" and not self.continuous_batching
        return self.cache_implementation == "static"


def joined(values: Iterable[Any]) -> str:
    """Return the values with hyphens between them, as dvc.yaml writes them into names: booleans as YAML has them."""
    return "-".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)


AXES = tuple(axis.name for axis in dataclasses.fields(Configuration))
UNIFORM = "uniform"
# What a configuration does, beside the model; the other axes are how.
WORKLOAD_AXES = ("request_lengths", "batch_size", "sequence_length", "max_new_tokens", "context_depth")
# What a name of a point need not say.
USUAL: dict[str, Any] = {
    "compile_mode": "off",
    "cache_implementation": "auto",
    "use_kernels": False,
    "continuous_batching": False,
    "prefill_chunk_size": 0,
    "dtype": "bfloat16",
    "request_lengths": UNIFORM,
    "context_depth": 0,
}
# The plainest way to run a model, with which the others' outputs are compared.
REFERENCE: dict[str, Any] = {
    "attn_implementation": "eager",
    "compile_mode": "off",
    "cache_implementation": "auto",
    "use_kernels": False,
    "continuous_batching": False,
    "prefill_chunk_size": 0,
}


@dataclass(frozen=True)
class Settings:
    """What of params.yaml a point depends on beside its axes; None or empty where it does not use it.

    `compile` and `continuous_batching` hold the section of that name, `kernels` the entries of `kernels:`, a local one
    with the `sha256` of its folder.
    """

    compile: dict[str, Any] | None = None
    kernels: tuple[dict[str, Any], ...] = ()
    continuous_batching: dict[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Write the settings as JSON."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Settings":
        """Read what `save` wrote."""
        content = read_json(path)
        return cls(**{**content, "kernels": tuple(content["kernels"])})
