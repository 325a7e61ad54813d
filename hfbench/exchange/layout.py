"""The JSON layout of transformers' benchmark_v2: what its keys mean in terms of hfbench's axes.

Source: huggingface/transformers, benchmark_v2/framework/ (benchmark_config.py, data_classes.py, benchmark_runner.py). A
file holds an object with an entry for each configuration under `BenchmarkConfig.hash`; an entry has `config`
(`BenchmarkConfig.to_dict`), `measurements` (`BenchmarkResult.to_dict`) and `metadata` (`BenchmarkMetadata.to_dict`). On
the hub, the same entries are lines of JSON, each with its hash under `benchmark_config_hash`.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from hfbench.core.point import USUAL

# Keys beyond the layout, which benchmark_v2 ignores: it has no word for these values.
EXTENSION = "hfbench"
# Packages in environment.json. In one string, because a module that holds the bare name of a library is taken for one
# that imports it (tests/test_stage_dependencies.py).
TORCH, TRANSFORMERS = "torch transformers".split()  # noqa: SIM905
DTYPE = "bfloat16"  # the only one that benchmark_v2 loads
# The axes that the layout has no key for.
OWN_AXES = ("cache_implementation", "prefill_chunk_size", "request_lengths", "context_depth")
PAGED = "paged|"  # what continuous batching calls an attention implementation
_SDPA = "sdpa"
_DEFAULT_COMPILE_MODE = "reduce-overhead"  # transformers.CompileConfig's, where only other arguments are given


def benchmark_config(
    axes: Mapping[str, Any],
    warmup_iterations: int,
    measurement_iterations: int,
    *,
    gpu_monitoring: bool,
    compile_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return `BenchmarkConfig.to_dict()` of a configuration, its keys in their order.

    `compile_kwargs` are those that were used, where a record tells; else those of the mode alone.

    An SDPA backend and a dtype other than bfloat16 are keys of their own, as the first was in earlier versions; so are
    the unusual values of axes that the layout does not know.
    """
    attention, _, backend = axes["attn_implementation"].partition(":")
    if attention != _SDPA:
        attention, backend = axes["attn_implementation"], ""
    config = {
        "name": "",
        "warmup_iterations": warmup_iterations,
        "measurement_iterations": measurement_iterations,
        "gpu_monitoring": gpu_monitoring,
        "continuous_batching": axes["continuous_batching"],
        "batch_size": axes["batch_size"],
        "sequence_length": axes["sequence_length"],
        "num_tokens_to_generate": axes["max_new_tokens"],
        "attn_implementation": attention,
        "compile_kwargs": compile_kwargs or _compile_kwargs(axes["compile_mode"]),
        "kernelize": axes["use_kernels"],
        **({"sdpa_backend": backend} if backend else {}),
        **({"dtype": axes["dtype"]} if axes["dtype"] != DTYPE else {}),
        **{axis: axes[axis] for axis in OWN_AXES if axes[axis] != USUAL[axis]},
    }
    return {**config, "name": _name(config)}


def config_hash(config: Mapping[str, Any]) -> str:
    """Return `BenchmarkConfig.hash`, under which an entry stands."""
    return hashlib.sha256(json.dumps(config).encode()).hexdigest()


def attention_of(config: Mapping[str, Any]) -> str:
    """Return hfbench's `attn_implementation` of a config, with its SDPA backend where it names one."""
    attention = str(config["attn_implementation"]).removeprefix(PAGED)
    backend = config.get("sdpa_backend")
    return f"{attention}:{backend}" if attention == _SDPA and backend else attention


def compile_mode_of(config: Mapping[str, Any]) -> str:
    """Return hfbench's `compile_mode` of a config: that of `compile_kwargs`, or of the key of earlier versions."""
    kwargs = config.get("compile_kwargs")
    if kwargs is not None:
        return str(kwargs.get("mode", _DEFAULT_COMPILE_MODE) or "default")  # torch takes null for its default mode
    return str(config.get("compile_mode") or "off")


def compile_params_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration that compiles asks of torch beside the mode; `CompileConfig`'s keys, but no callable.

    As in `BenchmarkConfig`, `compile_kwargs` ask for `fullgraph` unless they say otherwise; the earlier versions, with
    a key `compile_mode`, did not.
    """
    kwargs = config.get("compile_kwargs")
    if kwargs is None:
        kwargs = {"fullgraph": False, "options": config.get("compile_options")}
    asked = {
        "backend": "inductor",
        "dynamic": None,
        "fullgraph": True,
        **kwargs,
        "options": kwargs.get("options") or {},
    }
    return {key: value for key, value in asked.items() if key != "mode"}


def _compile_kwargs(compile_mode: str) -> dict[str, Any] | None:
    """Return `CompileConfig.to_dict()` as hfbench makes one."""
    if compile_mode == "off":
        return None
    return {"fullgraph": False, "dynamic": None, "backend": "inductor", "mode": compile_mode, "options": None}


def _name(config: Mapping[str, Any]) -> str:
    """Return `BenchmarkConfig.infer_name()`."""
    backend, kwargs = config.get("sdpa_backend"), config["compile_kwargs"]
    parts = [
        f"w{config['warmup_iterations']}_i{config['measurement_iterations']}",
        "monitored" if config["gpu_monitoring"] else "unmonitored",
        f"b{config['batch_size']}_s{config['sequence_length']}_n{config['num_tokens_to_generate']}",
        config["attn_implementation"] + (f"_{backend}" if backend else ""),
        f"compiled_{kwargs['mode']}" if kwargs else "uncompiled",
        "kernelized" if config["kernelize"] else "unkernelized",
        "cb" if config["continuous_batching"] else "generate",
    ]
    return "-".join(parts)
