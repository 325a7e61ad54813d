"""What torch.compile is asked for, and what it really did: graphs, breaks, recompiles, whether compiled code ran."""

import difflib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch._inductor
from torch._dynamo.utils import CompilationMetrics, counters, get_compilation_metrics, set_compilation_metrics_limit
from transformers import CompileConfig, PreTrainedModel

from hfbench.core.errors import UserError
from hfbench.core.point import Configuration
from hfbench.core.record import Settings
from hfbench.measure.evidence import FLEX_ATTENTION_FILE, Operators, watch_functions, watch_operators
from hfbench.measure.experts import find_experts

_OURS = ("measure_warm_start",)  # what hfbench asks beside torch.compile's own arguments
INDUCTOR = "inductor"


def compile_config(configuration: Configuration, settings: Settings) -> CompileConfig | None:
    """Return the `CompileConfig` asked for. Without `_compile_all_devices`, transformers skips the CPU in silence.

    torch.compile takes a mode or options. A mode is a set of options of inductor, so where there are both, those of the
    mode come first and the others are added to them.
    """
    if configuration.compile_mode == "off":
        return None
    asked = {name: value for name, value in (settings.compile or {}).items() if name not in _OURS}
    mode, options = configuration.compile_mode, asked.pop("options", {})
    if options and asked.get("backend", INDUCTOR) == INDUCTOR:
        added = {name.replace("-", "_"): value for name, value in options.items()}  # as torch.compile reads them
        options = {**torch._inductor.list_mode_options(mode, asked.get("dynamic")), **added}
    config = CompileConfig(**asked, mode=None if options else mode, options=options or None)  # type: ignore[arg-type]
    config._compile_all_devices = True  # type: ignore[assignment]
    return config


def options_of(config: CompileConfig) -> dict[str, Any]:
    """Return the options of inductor that the config stands for; none for another backend."""
    if config.backend != INDUCTOR:
        return {}
    return config.options or torch._inductor.list_mode_options(config.mode, config.dynamic)


def check_compile_config(config: CompileConfig) -> None:
    """Raise `UserError` for a backend, an option or a value of one that this torch does not know. Compiles nothing."""
    backends = torch.compiler.list_backends(exclude_tags=())
    if config.backend not in backends:
        raise UserError(
            f"compile.backend is {config.backend!r}, which torch {torch.__version__} does not know. "
            f"{_hint(str(config.backend), backends)}Expected one of: {', '.join(torch.compiler.list_backends())}, or "
            "eager and aot_eager, which find what a failure comes from."
        )
    known = torch._inductor.list_options()
    for name in options_of(config):
        if name not in known:
            raise UserError(
                f"compile.options has {name!r}, which is no option of inductor in torch {torch.__version__}. "
                f"{_hint(name, known)}`torch._inductor.list_options()` lists all {len(known)}."
            )
    try:
        torch.compile(_nothing, **config.to_dict())
    except RuntimeError as error:
        raise UserError(f"compile: {' '.join(str(error).split())}. Change it in params.yaml.") from None


def _nothing() -> None:
    """Do nothing: what torch.compile is given to look at its other arguments."""


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}? " if close else ""


_RECOMPILE_LIMIT = "recompile limit exceeded"  # how torch says that it runs a frame uncompiled from now on
_RECORDED = "cudagraph_recorded_non_static_inputs"  # a counter that torch adds to, 0 included, for each graph recorded
_MOST_FRAMES = 100_000  # far beyond the recompile limit of every layer of a large model


def describe_compilation() -> dict[str, Any]:
    """Return what torch compiled in this process so far, flex attention's own graph left out.

    `graphs` counts compiled frames with operations in them; `seconds` is the time the outer frames took;
    `fell_back` holds the reasons for which a frame was given up and runs uncompiled; `cache_hits` counts graphs that
    inductor found in its cache folder; `fused_attention` counts where it put SDPA in place of what the model computes;
    `cuda_graphs_recorded` is whether there is any, and `cuda_graphs_skipped` counts the graphs for which torch gave up
    on it.
    """
    metrics = [metric for metric in get_compilation_metrics() if not _is_foreign(metric)]
    done = [metric for metric in metrics if metric.fail_type is None and metric.graph_op_count]
    inductor = counters["inductor"]
    return {
        "graphs": len(done),
        "seconds": round(sum(metric.entire_frame_compile_time_s or 0.0 for metric in metrics), 6),
        "graph_breaks": sum(counters["graph_break"].values()),
        "graph_break_reasons": [_one_line(reason) for reason in counters["graph_break"]][:10],
        "recompiles": [_one_line(metric.recompile_reason) for metric in metrics if metric.recompile_reason][:20],
        "fell_back": [_one_line(metric.fail_reason or metric.fail_type) for metric in metrics if metric.fail_type][:10],
        "cache_hits": inductor.get("fxgraph_cache_hit", 0),
        "fused_attention": inductor.get("fuse_attention", 0),
        "cuda_graphs_recorded": _RECORDED in inductor,
        "cuda_graphs_skipped": inductor.get("cudagraph_skips", 0),
    }


def watch_compiled_call(model: PreTrainedModel, call: Callable[[], Any]) -> dict[str, Any]:
    """Run a call of `generate`; return what it entered, and the config with which transformers compiled.

    `compiled_calls` counts entries into code that Dynamo made, whatever the backend; `inductor_calls` calls of graphs
    that inductor compiled; `cuda_graph_replays` CUDA graphs that were replayed, not run. `experts_operators` are there
    for a model with experts: compiled in another dtype than bfloat16, grouped_mm is a loop over them (transformers
    5.22, `integrations.moe._can_use_grouped_mm`).
    """
    has_experts = bool(find_experts(model).modules)
    with watch_operators() if has_experts else nullcontext(Operators()) as operators, watch_functions() as evidence:
        call()
    config = getattr(model, "_last_compile_config", None)
    return {
        "compiled_calls": evidence.compiled_calls,
        "inductor_calls": evidence.inductor_calls,
        "cuda_graph_replays": evidence.cuda_graph_replays,
        **({"experts_operators": dict(operators.experts)} if has_experts else {}),
        "config": None if config is None else config.to_dict(),
    }


def compilation_differences(
    steps: int, asked: CompileConfig | None, compilation: dict[str, Any], attn_implementation: str = ""
) -> list[str]:
    """Return where compilation is not what was asked for; the watched call has so many compiled `steps`.

    `attn_implementation` is what attention was to be. `compilation` is what `describe_compilation` returns and, where a
    call could be watched, `watch_compiled_call`.
    """
    if asked is None:
        return [f"{compilation['graphs']} graphs were compiled"] if compilation["graphs"] else []
    found = []
    if not compilation["graphs"]:
        found.append("nothing was compiled")
    if attn_implementation == "eager" and compilation.get("fused_attention"):
        places = compilation["fused_attention"]
        found.append(f"inductor put scaled_dot_product_attention in place of eager attention, {places} times")
    given_up = [reason for reason in compilation["fell_back"] if _RECOMPILE_LIMIT in reason.lower()]
    if given_up:
        found.append(f"torch gave up recompiling and ran uncompiled: {given_up[0]}")
    if asked.fullgraph and compilation["graph_breaks"]:
        found.append(f"compile.fullgraph is true, and the graph broke {compilation['graph_breaks']} times")
    if "compiled_calls" in compilation:
        found += _call_differences(steps, asked, compilation)
    return found


def _call_differences(steps: int, asked: CompileConfig, compilation: dict[str, Any]) -> list[str]:
    kinds = {"compiled_calls": "compiled code"}
    if asked.backend == INDUCTOR:
        kinds["inductor_calls"] = "code that inductor compiled"
    found = [
        f"{what} ran {compilation[name]} times in {steps} decoding steps"
        for name, what in kinds.items()
        if compilation[name] < steps
    ][:1]
    used = compilation["config"] or {}
    found += [
        f"transformers compiled with {name} {used[name]}, not {value}"
        for name, value in asked.to_dict().items()
        if used and used[name] != value
    ]
    return [*found, *_cuda_graph_differences(steps, asked, compilation)]


def _cuda_graph_differences(steps: int, asked: CompileConfig, compilation: dict[str, Any]) -> list[str]:
    if not _wants_cuda_graphs(asked):
        return []
    skipped, replays = compilation["cuda_graphs_skipped"], compilation["cuda_graph_replays"]
    if not compilation["cuda_graphs_recorded"]:
        return [f"no CUDA graph was recorded; torch skipped {skipped}: see the log"]
    found = [f"torch made no CUDA graph of {skipped} compiled graphs: see the log"] if skipped else []
    if replays < steps:
        found.append(f"CUDA graphs were replayed {replays} times in {steps} decoding steps")
    return found


def _wants_cuda_graphs(asked: CompileConfig) -> bool:
    options = options_of(asked)
    # Without trees, torch records CUDA graphs and counts nothing.
    wanted: bool = options.get("triton.cudagraphs", False) and options.get("triton.cudagraph_trees", True)
    return wanted or asked.backend == "cudagraphs"


def remember_all() -> None:
    """Have torch keep what it tells of every frame that it compiles; it forgets all but the last 64 otherwise."""
    set_compilation_metrics_limit(_MOST_FRAMES)


def compilations() -> int:
    """Return how often torch compiled in this process so far; its ids begin anew after a reset."""
    return len(get_compilation_metrics())


def compiled_since(known: int) -> list[str]:
    """Return, for each frame that was compiled after so many `compilations`, why; flex attention's own too."""
    return [
        _one_line(metric.recompile_reason or f"first call of {metric.co_name} in {metric.co_filename}")
        for metric in get_compilation_metrics()[known:]
        if metric.compile_id
    ]


def _is_foreign(metric: CompilationMetrics) -> bool:
    # flex_attention compiles a graph of its own in every model, compiled or not.
    return (metric.co_filename or "").endswith(FLEX_ATTENTION_FILE)


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())[:300]
