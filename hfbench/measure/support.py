"""What can be known to be impossible before a model is loaded, from the environment's description alone."""

import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hfbench.core.files import safetensors_metadata
from hfbench.core.point import INF, NONE, UNIFORM, Configuration
from hfbench.core.record import UNAVAILABLE, UNSUPPORTED, Manifest, Settings
from hfbench.core.results import assistant_path, inputs_path, manifest_path
from hfbench.measure.task import Task

_REFUSAL = "No available kernel"
# Headings, and what follows from hfbench's allowing one backend only.
_NO_REASONS = re.compile(r"(kernel not used because:|has been runtime disabled\.)$")
_ORIGIN = re.compile(r"\s*\(Triggered internally at .*\)$")


@contextmanager
def refusals_explained() -> Iterator[None]:
    """Add to torch's refusal what it warned of inside; warnings go on to where they were going."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except RuntimeError as error:
            reasons = _reasons([str(each.message) for each in caught])
            if _REFUSAL not in str(error) or not reasons:
                raise
            raise RuntimeError(f"{_REFUSAL}: {reasons}") from error
        finally:
            told = list(caught)
    for each in told:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _reasons(messages: Sequence[str]) -> str:
    """Return what torch's warnings say of why a backend cannot run, each once and in their order."""
    plain = dict.fromkeys(_ORIGIN.sub("", message).strip() for message in messages)
    return " ".join(message for message in plain if not _NO_REASONS.search(message))


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
    if kind == "cpu" and needs_compiler and (reason := _space_reason()):
        return reason
    if mode != "off" and kind != "cuda" and options.get(_CUDA_GRAPHS, mode in _WITHOUT_CUDA_GRAPHS):
        plain = _WITHOUT_CUDA_GRAPHS.get(mode, mode)
        what = f"compile mode {mode} is {plain} with" if mode != plain else f"compile.options asks for {_CUDA_GRAPHS},"
        return f"{what} CUDA graphs, which {kind} does not have: torch would run {plain}; measure that"
    return None


def _space_reason() -> str | None:
    """Return which path has a space, at which torch (2.13) takes the commands of the C++ compiler apart."""
    folders = {"the environment of Python": sys.prefix, "the folder for temporary files": tempfile.gettempdir()}
    remedies = {sys.prefix: "make one in another folder (make bench VENV=PATH)", tempfile.gettempdir(): "set TMPDIR"}
    for what, folder in folders.items():
        if " " in folder:
            return f"compiling for the CPU fails where a path has a space, and {what} is {folder}; {remedies[folder]}"
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


_FLASH_PACKAGES = {
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
}
# Devices for which the repositories hold builds; source: FLASH_ATTN_KERNEL_DEVICES in transformers 5.22.
_KERNEL_DEVICES = {
    "kernels-community/flash-attn2": ("cuda", "xpu"),
    "kernels-community/flash-attn3": ("cuda",),
    "kernels-community/vllm-flash-attn3": ("cuda",),
    "kernels-community/aiter-flash-attn": ("cuda",),
    "kernels-community/flash-attn4": ("cuda",),
    "kernels-community/metal-flash-sdpa": ("mps",),
}
# SDPA backends that each device has (torch 2.13, torch.nn.attention.SDPBackend).
_SDPA_BACKENDS = {
    "cpu": ("math", "flash_attention"),
    "cuda": ("math", "flash_attention", "efficient_attention", "cudnn_attention"),
    "mps": ("math",),
    "xpu": ("math", "flash_attention", "efficient_attention"),
}
_HALF_PRECISION = ("bfloat16", "float16")


def obstacle(task: Task, environment: dict[str, Any]) -> tuple[str, str] | None:
    """Return what keeps a task from this machine: `unavailable` or `unsupported`, and why; None where nothing is known.

    What this machine lacks of the files of its models is fetched, where nothing else stands against it.
    """
    point = task.configuration
    model = Manifest.load(manifest_path(point.model))
    assistant = Manifest.load(assistant_path(point.assistant)) if point.has_draft_model else None
    no_inputs = safetensors_metadata(inputs_path(point)).get(UNAVAILABLE)  # why their stage could make none
    if missing := no_inputs or (assistant.unavailable if assistant else None):
        return UNAVAILABLE, missing
    if reason := unsupported_reason(point, task.device, environment, task.settings, model.quant_method, assistant):
        return UNSUPPORTED, reason
    from hfbench.model.manifest import why_not_here  # not for a point that does not run

    lacking = next(filter(None, map(why_not_here, filter(None, (model, assistant)))), None)
    return (UNAVAILABLE, lacking) if lacking else None


def unsupported_reason(
    configuration: Configuration,
    device: str,
    environment: dict[str, Any],
    settings: Settings,
    checkpoint: str | None = None,
    assistant: Manifest | None = None,
) -> str | None:
    """Return why this machine cannot run the configuration, or None where that can only be known by trying.

    `device` is as in params.yaml; `environment` is the content of results/environment.json; `checkpoint` is how the
    model's weights are quantised already; `assistant` is the model that drafts.
    """
    kind = meant_device(device, environment).partition(":")[0]
    return (
        _device_reason(device, kind, environment)
        or _lengths_reason(configuration)
        or _rate_reason(configuration)
        or _attention_reason(configuration, kind, environment)
        or _cache_reason(configuration, kind)
        or _assistant_reason(configuration, assistant)
        or _ranks_reason(configuration, device, kind, environment)
        or _device_map_reason(configuration, device, kind)
        or _quantization_reason(settings, environment, checkpoint)
        or compile_reason(configuration, settings, kind, environment)
    )


def meant_device(device: str, environment: dict[str, Any]) -> str:
    """Return what `device` of params.yaml means on the machine of this environment, as torch calls it: never `auto`."""
    present = _present(environment)
    return device if device != "auto" else present[0] if present else "cpu"


def _present(environment: dict[str, Any]) -> list[str]:
    return [each["torch_device"] for each in environment.get("accelerators", [])]


def _device_reason(device: str, kind: str, environment: dict[str, Any]) -> str | None:
    if kind == "cpu" or kind in _present(environment):
        return None
    version = environment.get("packages", {}).get("torch", {}).get("version")
    notes = "".join(f"; {note}" for note in environment.get("accelerator_notes", []))
    return f"device {device} was asked for, and torch {version} has no such device on this machine{notes}"


def _lengths_reason(configuration: Configuration) -> str | None:
    if configuration.continuous_batching and configuration.context_depth:
        return (
            "context_depth needs a cache that is filled before the call, and generate_batch takes none "
            "(past_key_values is an argument of generate)"
        )
    if configuration.continuous_batching and configuration.prefill_chunk_size:
        return (
            "generate_batch does not read prefill_chunk_size: it takes prompts in by max_batch_tokens, which is under "
            "continuous_batching in params.yaml"
        )
    for axis in ("context_depth", "prefill_chunk_size"):
        if configuration.request_lengths != UNIFORM and getattr(configuration, axis):
            return (
                f"{axis} is for rows of one length, and the requests of {configuration.request_lengths} are of several"
            )
    is_compiled = configuration.compile_mode != "off" and not configuration.continuous_batching
    if is_compiled and configuration.max_new_tokens == 1 and not configuration.prefill_chunk_size:
        return (
            "generate compiles decoding steps, and the prefill only where prefill_chunk_size is set; max_new_tokens 1 "
            "has no decoding step"
        )
    return None


def _rate_reason(configuration: Configuration) -> str | None:
    if configuration.request_rate == INF or configuration.continuous_batching:
        return None
    return (
        f"request_rate is {configuration.request_rate}, and generate takes its rows at once; requests that arrive one "
        "by one need continuous_batching"
    )


def _attention_reason(configuration: Configuration, kind: str, environment: dict[str, Any]) -> str | None:
    name = configuration.attn_implementation
    implementation, _, backend = name.partition(":")
    if implementation == "sdpa" and backend and backend not in _SDPA_BACKENDS.get(kind, (backend,)):
        return f"{kind} has no SDPA backend {backend}; it has {', '.join(_SDPA_BACKENDS[kind])}"
    if implementation in _FLASH_PACKAGES:
        if kind == "cpu":
            return f"{implementation} does not run on the CPU"
        if _FLASH_PACKAGES[implementation] not in environment.get("packages", {}):
            return (
                f"{implementation} needs the package {_FLASH_PACKAGES[implementation]}, which is not installed; "
                "install it, or name a hub kernel such as kernels-community/flash-attn2"
            )
    if kind not in _KERNEL_DEVICES.get(implementation, (kind,)):
        builds = ", ".join(_KERNEL_DEVICES[implementation])
        return f"{implementation} has builds for {builds} only; this point runs on {kind}"
    is_flash = implementation in _FLASH_PACKAGES or ("flash" in implementation and "/" in implementation)
    if is_flash and configuration.dtype not in _HALF_PRECISION:
        return f"{name} runs in {' or '.join(_HALF_PRECISION)} only, not in {configuration.dtype}"
    if implementation == "flex_attention" and configuration.continuous_batching:
        return "continuous batching in transformers takes eager, sdpa and flash attention, not flex_attention"
    return None


# Packages without which transformers (5.22) does not quantise, by its name of the method.
_QUANTIZATION_PACKAGES = {
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "gptq": "gptqmodel",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "torchao": "torchao",
}


def _quantization_reason(settings: Settings, environment: dict[str, Any], checkpoint: str | None) -> str | None:
    """Return which package is missing of those that weights or cache are quantised by, or that they are already.

    An entry of the checkpoint's own method says how it is loaded, and one of another would quantise it anew.
    """
    method = (settings.quantization or {}).get("quant_method")
    if method and checkpoint and method != checkpoint:
        return f"the checkpoint is quantised already ({checkpoint}), and not quantised anew; quantization none takes it"
    asked = {
        "the checkpoint's quant_method": checkpoint,
        "quant_method": method,
        "quantized_cache.backend": (settings.quantized_cache or {}).get("backend"),
    }
    for key, name in asked.items():
        package = _QUANTIZATION_PACKAGES.get(str(name))
        if package is not None and package not in environment.get("packages", {}):
            return f"{key} {name} needs the package {package}, which is not installed; pip install {package}"
    return None


def _assistant_reason(configuration: Configuration, assistant: Manifest | None) -> str | None:
    """Return what assisted decoding in transformers (5.22, `GenerationMixin._assisted_decoding`) does not do."""
    if configuration.assistant == NONE:
        return None
    asked = f"the assistant is {configuration.assistant}, and assisted decoding in transformers"
    if configuration.continuous_batching:
        return f"{asked} is of generate: continuous batching drafts no tokens"
    if configuration.batch_size > 1:
        return f"{asked} takes one row at a time; batch_size is {configuration.batch_size}"
    if configuration.compile_mode != "off":
        return f"{asked} runs the model uncompiled, whatever compile_mode says"
    if configuration.is_static or configuration.cache_implementation == "quantized":
        kind = configuration.cache_kind
        return f"{asked} removes rejected tokens from the cache, which a {kind} one cannot do"
    if configuration.prefill_chunk_size:
        return f"{asked} does not read prefill_chunk_size: the prompt goes in with the first draft"
    if configuration.context_depth:
        return f"{asked} cuts the attention mask to the tokens that it is handed, without those of a context"
    if configuration.max_new_tokens == 1:
        return (
            f"the assistant is {configuration.assistant}, and max_new_tokens is 1: after that token nothing is drafted"
        )
    limit = assistant.max_position_embeddings if assistant else None
    most = configuration.sequence_length + configuration.max_new_tokens
    if limit is not None and most > limit:
        return f"the assistant {configuration.assistant} has {limit} positions, and prompt and new tokens are {most}"
    return None


def _ranks_reason(configuration: Configuration, device: str, kind: str, environment: dict[str, Any]) -> str | None:
    size = configuration.tp_size
    if size == 1:
        return None
    if sys.platform != "linux":
        return f"tp_size is {size}, and hfbench watches over several processes on Linux alone"
    if configuration.continuous_batching or configuration.assistant != NONE:
        what = "continuous batching" if configuration.continuous_batching else "assisted decoding"
        return f"tp_size is {size}, and hfbench runs {what} in one process alone"
    count = _count(kind, environment)
    if kind != "cpu" and ":" in device:
        return f"tp_size is {size}, and device {device} names a single one; write {kind}"
    if kind != "cpu" and count < size:
        return f"tp_size is {size}, which takes as many devices, and this machine has {count} {kind} of one kind"
    return None


def _device_map_reason(configuration: Configuration, device: str, kind: str) -> str | None:
    if configuration.device_map == NONE:
        return None
    asked = f"device_map is {configuration.device_map}"
    if kind == "cpu":
        return f"{asked}, which deals layers out to accelerators, and this point runs on the CPU"
    if configuration.tp_size > 1:
        return f"{asked} and tp_size {configuration.tp_size}: transformers takes one of them"
    if configuration.continuous_batching:
        return f"{asked}, and the paged cache of continuous batching is on one device"
    if ":" in device:
        return f"{asked}, and device {device} names a single one; write {kind}"
    return None


def devices_used(configuration: Configuration, device: str, environment: dict[str, Any]) -> int:
    """Return over how many devices the point runs: the ranks', or with a device map all of the kind."""
    return configuration.devices or max(1, _count(meant_device(device, environment).partition(":")[0], environment))


def _count(kind: str, environment: dict[str, Any]) -> int:
    present = [each for each in environment.get("accelerators", []) if each["torch_device"] == kind]
    return max((each.get("count", 1) for each in present), default=0)


def _cache_reason(configuration: Configuration, kind: str) -> str | None:
    asked = configuration.cache_implementation
    if kind == "cpu" and configuration.is_offloaded:
        return f"cache_implementation is {asked}, and a point on the CPU has its cache in the host's memory already"
    if asked != "auto" and configuration.continuous_batching:
        return (
            f"cache_implementation is {asked}, and continuous batching has a paged cache of its own; "
            "it runs with cache_implementation auto"
        )
    if asked != "auto" and not configuration.is_static and configuration.compile_mode != "off":
        # GenerationMixin._valid_auto_compile_criteria in transformers 5.22
        what = "dynamic" if asked == "dynamic" else f"dynamic ({asked})"
        return f"generate compiles with a static cache only, and with a {what} one it would run uncompiled"
    return None
