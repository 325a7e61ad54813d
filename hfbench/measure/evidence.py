"""Proof of what runs: which attention functions, which SDPA operators and which compiled code a call went through."""

import re
import sys
import threading
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
import torch._dynamo  # which whatever watches needs: it is part of the libraries' import, and of no phase after it
from torch.profiler import ProfilerActivity, profile
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hfbench.core.system import FILESYSTEM, is_computing_library

_ATTENTION_FUNCTIONS = "attention_forward"  # how transformers ends the names of its own; hub kernels have any
# What calls a graph that inductor compiled, whether its code runs or a CUDA graph of it is replayed.
_INDUCTOR_GRAPH = ("torch._inductor.output_code", "__call__")
# The name of a compiled graph in the code that Dynamo puts in place of a function's own, with whatever backend.
_DYNAMO_GRAPH = "__compiled_fn"
FLEX_ATTENTION_FILE = "torch/nn/attention/flex_attention.py"  # which compiles itself in every model
_PAGED_UPDATE = "PagedAttentionCache.update"  # by which attention writes to the cache of continuous batching
# A graph that is recorded anew, because a cache lies elsewhere, gives the step's result by its first inputs.
_CUDA_GRAPH_TREES = "torch._inductor.cudagraph_trees"
_CUDA_GRAPH_REPLAYS = ("CUDAGraphNode.run", "CUDAGraphNode.run_first_inputs")
_SOFTMAX = "aten::_softmax"
_SDPA = "scaled_dot_product_attention"
# Operator of torch → SDPA backend. The math backend dissolves into matrix products and has none.
_SDPA_OPERATORS = {
    "aten::_scaled_dot_product_flash_attention": "flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "flash_attention",
    "aten::_scaled_dot_product_efficient_attention": "efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention": "cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable": "fused_attention_overrideable",
}
# Operators by which grouped_mm computes: torch's, and the loop over the experts that transformers puts in its place
# where that cannot run. batched_mm dissolves into matrix products.
_EXPERTS_OPERATORS = {
    "aten::_grouped_mm": "grouped_mm",
    "transformers::grouped_mm_fallback": "grouped_mm_fallback",
}
# torch's matrix products, as aten::mm, aten::_int_mm and aten::_weight_int8pack_mm, and other libraries' operators.
_PRODUCT = re.compile(r"aten::\w*mm(_\w+)?$|(?!aten|prim|profiler|inductor|c10|cuda|triton)\w+::\w+$")


@dataclass
class Evidence:
    """Counts of what was seen: attention functions by full name, SDPA, compiled code, CUDA graphs, methods.

    `compiled_calls` are entries into functions that Dynamo rewrote, flex attention's own left out; `inductor_calls` are
    calls of graphs that inductor compiled. `method_calls` has, in the order of the first call, the code of a method and
    the `id` of the object.
    """

    functions: Counter[str] = field(default_factory=Counter)
    sdpa_calls: int = 0
    compiled_calls: int = 0
    inductor_calls: int = 0
    paged_cache_updates: int = 0
    cuda_graph_replays: int = 0
    method_calls: Counter[tuple[CodeType, int]] = field(default_factory=Counter)


@dataclass
class Operators:
    """Counts of operators that the profiler saw: SDPA's backends, those by which experts computed, and softmax.

    `products` are those that multiply matrices, and all of libraries beside torch, as that of quantised weights.
    """

    sdpa: Counter[str] = field(default_factory=Counter)
    products: Counter[str] = field(default_factory=Counter)
    experts: Counter[str] = field(default_factory=Counter)
    softmax: int = 0


@contextmanager
def watch_functions(methods: Container[CodeType] = ()) -> Iterator[Evidence]:
    """Count, through Python's profiling hook, the attention functions and compiled graphs that run inside, threads too.

    So does it count these methods, by object. Nothing is patched. Slow: never around a timed call.
    """
    evidence = Evidence()
    of_kernels = {_code_of(function) for name, function in ALL_ATTENTION_FUNCTIONS.items() if "/" in name}

    def see(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            name, module = frame.f_code.co_name, frame.f_globals.get("__name__", "?")
            if name.endswith(_ATTENTION_FUNCTIONS) or frame.f_code in of_kernels:
                evidence.functions[f"{module}.{name}"] += 1
            elif (module, name) == _INDUCTOR_GRAPH:
                evidence.inductor_calls += 1
            elif _is_compiled(frame.f_code):
                evidence.compiled_calls += 1
            elif frame.f_code.co_qualname == _PAGED_UPDATE:
                evidence.paged_cache_updates += 1
            elif module == _CUDA_GRAPH_TREES and frame.f_code.co_qualname in _CUDA_GRAPH_REPLAYS:
                evidence.cuda_graph_replays += 1
            elif frame.f_code in methods:
                evidence.method_calls[frame.f_code, id(frame.f_locals[frame.f_code.co_varnames[0]])] += 1
        elif event == "c_call" and argument.__name__ == _SDPA:
            evidence.sdpa_calls += 1

    hook = torch.compiler.disable(see)  # else Dynamo compiles it too, and with fullgraph fails over it
    threading.setprofile(hook)
    sys.setprofile(hook)
    try:
        yield evidence
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _is_compiled(code: CodeType) -> bool:
    return any(name.startswith(_DYNAMO_GRAPH) for name in code.co_names) and not code.co_filename.endswith(
        FLEX_ATTENTION_FILE
    )


def _code_of(function: Any) -> CodeType | None:
    """Return the code of a kernel's attention function, which may be a partial one, or compiled and have none."""
    return getattr(getattr(function, "func", function), "__code__", None)


def profiler_of_all_threads(device_activities: Sequence[ProfilerActivity] = ()) -> profile:
    """Return torch's profiler of the host, in all threads, and of these activities of a device."""
    config = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    return profile(activities=[ProfilerActivity.CPU, *device_activities], experimental_config=config)


@contextmanager
def watch_operators() -> Iterator[Operators]:
    """Count the operators that torch ran inside, in all threads: continuous batching computes in one of its own.

    Through torch's profiler, which sees no device here. The counts are there at the end. Slow: never around a timed
    call.
    """
    operators = Operators()
    with profiler_of_all_threads() as profiler:
        yield operators
    # The raw events: torch takes a second to make its own `events()` of a short call, and a hundredth for these.
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    names = [event.name() for event in profiler.profiler.kineto_results.events()]
    operators.sdpa.update(_SDPA_OPERATORS[name] for name in names if name in _SDPA_OPERATORS)
    operators.experts.update(_EXPERTS_OPERATORS[name] for name in names if name in _EXPERTS_OPERATORS)
    operators.products.update(name for name in names if _PRODUCT.match(name))
    operators.softmax = names.count(_SOFTMAX)


# A library's own name, before its version or the hash that a wheel adds to it.
_LIBRARY = re.compile(r"lib\w+")
_PACKAGES = "site-packages"


def computing_libraries(root: Path = FILESYSTEM) -> dict[str, dict[str, Any]]:
    """Return the libraries that this process has mapped and that numbers depend on, by their names.

    Each has the name of its `file` with links followed, which often tells the version, its `size_bytes`, and its
    `owner`: the package that it is in, or the system. Empty where the system keeps no such list.
    """
    maps = root / "proc/self/maps"
    lines = maps.read_text().splitlines() if maps.exists() else []
    files = {Path(line[line.index("/") :]) for line in lines if "/" in line}
    found = {}
    for file in sorted(file for file in files if is_computing_library(file.name) and file.exists()):
        name = _LIBRARY.match(file.name)
        parts = file.parts
        owner = parts[parts.index(_PACKAGES) + 1] if _PACKAGES in parts else "the system"
        assert name is not None
        found[name[0]] = {"file": file.resolve().name, "owner": owner, "size_bytes": file.stat().st_size}
    return found
