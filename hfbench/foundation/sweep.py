"""What is measured: the axes of the sweep, and single configurations beside it."""

from itertools import product

from hfbench.foundation.configuration import AXES, USUAL, WORKLOAD_AXES, Configuration
from hfbench.foundation.values import (
    Attention,
    Axis,
    CacheImplementation,
    CompileMode,
    Count,
    CountOrNone,
    Dtype,
    FirstAxis,
    Name,
    Strict,
)


class Sweep(Strict):
    """The axes, each a list; every combination of their values is measured, and none where one is empty."""

    round: FirstAxis[Count]
    model: FirstAxis[Name]
    attn_implementation: Axis[Attention]
    compile_mode: Axis[CompileMode]
    cache_implementation: Axis[CacheImplementation]
    use_kernels: Axis[bool]
    continuous_batching: Axis[bool]
    prefill_chunk_size: Axis[CountOrNone]
    dtype: Axis[Dtype]
    request_lengths: Axis[Name]
    batch_size: Axis[Count]
    sequence_length: Axis[Count]
    max_new_tokens: Axis[Count]
    context_depth: Axis[CountOrNone]

    def workloads(self, model: str) -> list[Configuration]:
        """Return a configuration for each combination of lengths and batch size, the other axes as usual."""
        lengths = {axis: getattr(self, axis) for axis in WORKLOAD_AXES}
        plain = {**USUAL, "round": 1, "model": model, "attn_implementation": "eager"}
        return [
            Configuration(**{**plain, **dict(zip(lengths, values, strict=True))})
            for values in product(*lengths.values())
        ]

    def points(self) -> list[Configuration]:
        """Return every combination, the first axis slowest, as DVC's matrix orders them."""
        return [Configuration(*values) for values in product(*(getattr(self, axis) for axis in AXES))]


class Listed(Strict):
    """A single configuration: a value of each axis but `round`. It is measured in every round of the sweep."""

    model: Name
    attn_implementation: Attention
    compile_mode: CompileMode
    cache_implementation: CacheImplementation
    use_kernels: bool
    continuous_batching: bool
    prefill_chunk_size: CountOrNone
    dtype: Dtype
    request_lengths: Name
    batch_size: Count
    sequence_length: Count
    max_new_tokens: Count
    context_depth: CountOrNone

    def in_round(self, number: int) -> Configuration:
        """Return the point of this round."""
        return Configuration(round=number, **self.model_dump())
