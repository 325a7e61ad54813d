"""Which ways of compiling a device has, known before anything loads."""

from typing import Any

from hfbench.foundation.configuration import Configuration, Settings

_INDUCTOR = "inductor"
# What each mode with CUDA graphs is without them (torch 2.13, `torch._inductor.list_mode_options`). On another device
# than CUDA, torch leaves them out with a log line at most, and runs the other mode.
_WITHOUT_CUDA_GRAPHS = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}
_CUDA_GRAPHS = "triton.cudagraphs"
# Backends of torch's own that warn about options, and ignore them (torch 2.13, torch/_dynamo/backends/).
_WITHOUT_OPTIONS = ("eager", "eager_noexcept", "aot_eager", "aot_eager_decomp_partition", "cudagraphs")


def compile_reason(
    configuration: Configuration, settings: Settings, kind: str, environment: dict[str, Any]
) -> str | None:
    """Return why a device of this kind (`cpu`, `cuda`, …) cannot compile as asked; None where nothing is known.

    `environment` is the content of results/environment.json.
    """
    mode, asked = configuration.compile_mode, settings.compile or {}
    backend, options = asked.get("backend", _INDUCTOR), asked.get("options", {})
    if mode != "off" and asked.get("fullgraph") and (reason := _fullgraph_reason(configuration)):
        return reason
    if mode != "off" and backend != _INDUCTOR:
        return _backend_reason(backend, mode, kind, has_options=bool(options))
    # flex_attention compiles itself, whatever the mode.
    needs_compiler = mode != "off" or configuration.attn_implementation == "flex_attention"
    if kind == "cpu" and needs_compiler and environment.get("compiler", "") is None:
        return "compiling for the CPU needs a C++ compiler, and none was found; install g++ or set CXX"
    if mode != "off" and kind != "cuda" and options.get(_CUDA_GRAPHS, mode in _WITHOUT_CUDA_GRAPHS):
        plain = _WITHOUT_CUDA_GRAPHS.get(mode, mode)
        what = f"compile mode {mode} is {plain} with" if mode != plain else f"compile.options asks for {_CUDA_GRAPHS},"
        return f"{what} CUDA graphs, which {kind} does not have: torch would run {plain}; measure that"
    return None


def _fullgraph_reason(configuration: Configuration) -> str | None:
    """Return where transformers (5.22) never makes one graph: it leaves out its paged cache, and drops fullgraph."""
    if configuration.continuous_batching:
        return "compile.fullgraph is true, and transformers' paged cache of continuous batching breaks the graph"
    if "flash" in configuration.attn_implementation.partition(":")[0]:
        return f"compile.fullgraph is true, and transformers turns it off for {configuration.attn_implementation}"
    return None


def _backend_reason(backend: str, mode: str, kind: str, *, has_options: bool) -> str | None:
    if mode != "default":
        return f"{mode} is a mode of the backend inductor, and {backend} has no modes; use compile_mode default"
    if has_options and backend in _WITHOUT_OPTIONS:
        return f"compile.options are of the backend inductor, and {backend} ignores them; remove them"
    if backend == "cudagraphs" and kind != "cuda":
        return f"the backend cudagraphs needs CUDA, and this point runs on {kind}"
    return None
