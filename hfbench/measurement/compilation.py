"""What torch.compile really did: graphs, breaks, recompiles, seconds, and whether the compiled code ran."""

from typing import Any

from torch._dynamo.utils import CompilationMetrics, counters, get_compilation_metrics, set_compilation_metrics_limit

# flex_attention compiles a graph of its own in every model, compiled or not.
NOT_THE_MODEL = ("torch/nn/attention/flex_attention.py",)
_MOST_FRAMES = 100_000  # far beyond the recompile limit of every layer of a large model


def describe_compilation() -> dict[str, Any]:
    """Return what torch compiled in this process so far, flex attention's own graph left out.

    `graphs` counts compiled frames with operations in them; `seconds` is the time the outer frames took;
    `fell_back` holds the reasons for which a frame was given up and runs uncompiled.
    """
    metrics = [metric for metric in get_compilation_metrics() if not _is_foreign(metric)]
    done = [metric for metric in metrics if metric.fail_type is None and metric.graph_op_count]
    return {
        "graphs": len(done),
        "seconds": round(sum(metric.entire_frame_compile_time_s or 0.0 for metric in metrics), 6),
        "graph_breaks": sum(counters["graph_break"].values()),
        "graph_break_reasons": [_one_line(reason) for reason in counters["graph_break"]][:10],
        "recompiles": [_one_line(metric.recompile_reason) for metric in metrics if metric.recompile_reason][:20],
        "fell_back": [_one_line(metric.fail_reason or metric.fail_type) for metric in metrics if metric.fail_type][:10],
        "cache_hits": counters["inductor"].get("fxgraph_cache_hit", 0),
    }


def remember_all() -> None:
    """Have torch keep what it tells of every frame that it compiles; it forgets all but the last 64 otherwise."""
    set_compilation_metrics_limit(_MOST_FRAMES)


def compile_ids() -> frozenset[str]:
    """Return torch's ids of what it compiled in this process so far."""
    return frozenset(metric.compile_id for metric in get_compilation_metrics() if metric.compile_id)


def compiled_since(known: frozenset[str]) -> list[str]:
    """Return, for each frame that was compiled and not `known` to `compile_ids`, why; flex attention's own too."""
    return [
        _one_line(metric.recompile_reason or f"first call of {metric.co_name} in {metric.co_filename}")
        for metric in get_compilation_metrics()
        if metric.compile_id and metric.compile_id not in known
    ]


def _is_foreign(metric: CompilationMetrics) -> bool:
    return (metric.co_filename or "").endswith(NOT_THE_MODEL)


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())[:300]
