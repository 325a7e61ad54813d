"""What can be known to be impossible before a model is loaded, from the environment's description alone."""

from typing import Any

from hfbench.foundation.configuration import UNIFORM, Configuration, Settings
from hfbench.measurement.compile_support import compile_reason

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


def unsupported_reason(
    configuration: Configuration, device: str, environment: dict[str, Any], settings: Settings
) -> str | None:
    """Return why this machine cannot run the configuration, or None where that can only be known by trying.

    `device` is as in params.yaml; `environment` is the content of results/environment.json.
    """
    kind, missing = _device_kind(device, environment)
    return (
        missing
        or _lengths_reason(configuration)
        or _attention_reason(configuration, kind, environment)
        or _cache_reason(configuration)
        or compile_reason(configuration, settings, kind, environment)
    )


def _device_kind(device: str, environment: dict[str, Any]) -> tuple[str, str | None]:
    present = _usable_devices(environment)
    if device == "auto":
        return (present[0] if present else "cpu"), None
    kind, _, index = device.partition(":")
    count = present.count(kind)
    if kind != "cpu" and int(index or 0) >= count:
        return (
            kind,
            f"device {device} was asked for, and this machine has {count or 'no'} {kind} device",
        )
    return kind, None


def _usable_devices(environment: dict[str, Any]) -> list[str]:
    """Return the kinds of the accelerators that torch can see, one entry a device."""
    if environment.get("packages", {}).get("torch", {}).get("version", "").endswith("+cpu"):
        return []
    devices = [accelerator["torch_device"] for accelerator in environment.get("accelerators", [])]
    hidden = environment.get("variables", {}).get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return [device for device in devices if not (hidden and device == "cuda")]


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


def _cache_reason(configuration: Configuration) -> str | None:
    asked = configuration.cache_implementation
    if asked != "auto" and configuration.continuous_batching:
        return (
            f"cache_implementation is {asked}, and continuous batching has a paged cache of its own; "
            "it runs with cache_implementation auto"
        )
    if asked == "dynamic" and configuration.compile_mode != "off":
        # GenerationMixin._valid_auto_compile_criteria in transformers 5.22
        return "generate compiles with a static cache only, and with a dynamic one it would run uncompiled"
    return None
