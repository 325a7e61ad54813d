"""Loading a model exactly as asked, and which tensors it then has; flex attention with a static cache among it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.masking_utils import flex_attention_mask

from hfbench.core.point import NONE, Configuration
from hfbench.measure.experts import check_experts, experts_argument, find_experts
from hfbench.measure.kernels import Kernels
from hfbench.measure.quantization import (
    causes_told,
    checkpoint_method,
    logical_parameters,
    quantization_argument,
    quantized_weights,
    require_compilable,
    require_packable,
    stored_bytes,
    swizzled_tensors,
)
from hfbench.model.architecture import load_config

FLEX = "flex_attention"
# A name with `flex_attention` in it: for one, transformers checks that the model supports flex attention
# (`PreTrainedModel.get_correct_attn_implementation`).
FLEX_FOR_STATIC_CACHE = "hfbench_flex_attention"


class ContiguousBlockMask(BlockMask):
    """A block mask that says it is contiguous, as the one that `create_block_mask` has just built is."""

    def contiguous(self) -> "ContiguousBlockMask":
        """Return the mask itself."""
        return self


def static_cache_mask(*, q_offset: int | torch.Tensor = 0, **arguments: Any) -> BlockMask:
    """Return the block mask that transformers makes for flex attention, of an offset that the cache cannot change.

    `q_offset` is the position of the first query, a tensor where the cache counts in one; `arguments` are the others of
    transformers' mask interface.
    """
    offset = q_offset.clone() if isinstance(q_offset, torch.Tensor) else q_offset
    mask = flex_attention_mask(q_offset=offset, **arguments)  # type: ignore[arg-type]
    mask.__class__ = ContiguousBlockMask  # the mask is this function's own, and the subclass adds no state
    return mask


def uses_static_flex_attention(configuration: Configuration) -> bool:
    """Tell whether the point needs the mask of this module."""
    return configuration.attn_implementation == FLEX and configuration.is_static


def register_flex_attention() -> str:
    """Register the attention with transformers, and return its name there."""
    AttentionInterface.register(FLEX_FOR_STATIC_CACHE, flex_attention_forward)
    AttentionMaskInterface.register(FLEX_FOR_STATIC_CACHE, static_cache_mask)
    return FLEX_FOR_STATIC_CACHE


def asked_attention(registered: str) -> str:
    """Return the name by which params.yaml asks for the attention that transformers knows as `registered`."""
    return FLEX if registered == FLEX_FOR_STATIC_CACHE else registered


_SDPA_BACKENDS = {
    "math": SDPBackend.MATH,
    "flash_attention": SDPBackend.FLASH_ATTENTION,
    "efficient_attention": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn_attention": SDPBackend.CUDNN_ATTENTION,
}


def split_attention(name: str) -> tuple[str, str | None]:
    """Split `sdpa:math` into transformers' name and torch's SDPA backend; other names have no backend."""
    implementation, _, backend = name.partition(":")
    return (implementation, backend) if implementation == "sdpa" and backend else (name, None)


def unpinned(name: str) -> str:
    """Return OWNER/NAME:FUNCTION of an attention in transformers' terms, OWNER/NAME@REVISION:FUNCTION."""
    return re.sub("@[^:]*", "", name)


def sdpa_backend(name: str) -> AbstractContextManager[Any]:
    """Return the context in which only the named SDPA backend is allowed: torch raises instead of taking another.

    torch keeps this setting for the whole process, threads included.
    """
    backend = split_attention(name)[1]
    return sdpa_kernel([_SDPA_BACKENDS[backend]]) if backend else nullcontext()


def load_model(
    folder: Path,
    configuration: Configuration,
    device: torch.device,
    trust_remote_code: bool,
    kernels: Kernels | None = None,
    quantization: Mapping[str, Any] | None = None,
) -> tuple[PreTrainedModel, dict[str, list[str]]]:
    """Load the model in `.eval()` mode; return it with the weights that were missing, unexpected or of another shape.

    Keys of the config that add outputs or leave out the cache are as `load_config` sets them. The generation config of
    the checkpoint is replaced by an empty one: its penalties and temperatures would add work that the configuration
    does not name. `quantization` is an entry of `quantization:`; with a `tp_size` above 1 all ranks load together.
    `device` is the first one where the layers are dealt out to several (`device_map`).
    Raises `NoExpertsError` where the model has no experts that compute as asked, and `QuantizationError` where its
    weights cannot be quantised so.
    """
    kernels = kernels or Kernels(configuration.attn_implementation)
    implementation = split_attention(kernels.attn_implementation)[0]
    if uses_static_flex_attention(configuration):
        implementation = register_flex_attention()
    config = load_config(folder, trust_remote_code)
    is_quantized = quantization is not None or checkpoint_method(config) is not None
    with causes_told():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, configuration.dtype),
            attn_implementation=implementation,
            **experts_argument(configuration.experts_implementation),
            **quantization_argument(quantization),
            use_kernels=configuration.use_kernels,
            kernel_config=kernels.config,
            allow_all_kernels=kernels.trust_remote_code,
            **_placement(configuration, device, is_quantized=is_quantized),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    model, info = loaded
    require_compilable(configuration, model)
    require_packable(model)
    check_experts(configuration.experts_implementation, model, find_experts(model))
    model.generation_config = GenerationConfig()
    return model.eval(), {
        name: sorted(map(str, info[name])) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }


def _placement(configuration: Configuration, device: torch.device, *, is_quantized: bool) -> dict[str, Any]:
    """Return where the weights are to go: transformers splits them over the ranks, each with its own device."""
    is_beside_accelerator = device.type == "cpu" and torch.accelerator.is_available()
    if configuration.tp_size > 1:
        if is_beside_accelerator:
            raise NotImplementedError(
                "transformers splits a model over the accelerators of a machine that has some, and the device is the "
                "CPU; hide them (CUDA_VISIBLE_DEVICES= and the like)"
            )
        from transformers.distributed.configuration_utils import DistributedConfig  # not in every version

        return {"distributed_config": DistributedConfig(tp_size=configuration.tp_size)}
    if configuration.device_map != NONE:
        return {"device_map": configuration.device_map}
    # Quantised weights would go to an accelerator that is there, whatever the device.
    goes_there = device.type == "cpu" and not (is_quantized and is_beside_accelerator)
    return {"device_map": None if goes_there else {"": device}}


_FLOATING = ("float", "bfloat")  # how torch's floating-point dtypes begin
_SAFE = "float32"
_OF_SHAPES = "int64"  # which compressed-tensors keeps as parameters; no weights are of it


def describe_loaded(model: PreTrainedModel) -> dict[str, Any]:
    """Return, ready for JSON, what can be read off a loaded model: class, attention, weights, dtypes and devices."""
    held = weight_bytes_by_device(model)
    return {
        "architecture": type(model).__name__,
        "attn_implementation": asked_attention(model.config._attn_implementation),
        "parameters": logical_parameters(model),
        "weight_bytes": sum(held.values()),
        "weight_bytes_by_device": held,
        **describe_tensors(model),
        "training": any(module.training for module in model.modules()),
    }


def weight_bytes_by_device(model: PreTrainedModel) -> dict[str, int]:
    """Return the bytes of the weights that each device keeps, `cpu` and `disk` where a device fetches them for a pass.

    Those are on no device as the model sees them (torch's `meta`); the map that transformers made of `device_map` has
    where they are.
    """
    dealt: Mapping[str, Any] = getattr(model, "hf_device_map", {})
    found = Counter[str]()
    for name, parameter in model.named_parameters():
        where = str(parameter.device)
        if parameter.is_meta:
            parts = name.split(".")
            paths = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
            where = next((str(dealt[path]) for path in paths if path in dealt), where)
        found[where] += stored_bytes(parameter)
    for tensor in (each for module in model.modules() for each in swizzled_tensors(module)):
        found[str(tensor.device)] += tensor.nbytes
    return dict(found)


def describe_tensors(model: PreTrainedModel) -> dict[str, Any]:
    """Return, ready for JSON, how many parameters and buffers there are of each dtype and on each device.

    `stored_buffer_dtypes` are the floating-point buffers that come with the weights; the other ones the model computes.
    `kept_in_float32` counts what the model's class has transformers keep in float32 whatever dtype is asked for, such
    as the router of some mixtures of experts. Modules with quantised weights are described apart.
    """
    quantized = quantized_weights(model)
    parameters, buffers = (
        {name: tensor for name, tensor in named if name.rpartition(".")[0] not in quantized}
        for named in (model.named_parameters(), model.named_buffers())
    )
    stored = {name: buffer for name, buffer in buffers.items() if name in _stored(model) and buffer.is_floating_point()}
    return {
        "parameter_dtypes": _dtypes(parameters.values()),
        "buffer_dtypes": _dtypes(buffers.values()),
        "stored_buffer_dtypes": _dtypes(stored.values()),
        "kept_in_float32": {"parameters": _kept(model, parameters), "stored_buffers": _kept(model, stored)},
        "tensor_devices": dict(Counter(str(tensor.device) for tensor in [*parameters.values(), *buffers.values()])),
    }


def tensor_differences(dtype: str, device_map: str, effective: dict[str, Any]) -> list[str]:
    """Return, in words, where dtypes and devices are not as asked.

    What the model computes for itself, such as the frequencies of rotary embeddings, may also be in float32.
    """
    parameters, stored = Counter(effective["parameter_dtypes"]), Counter(effective["stored_buffer_dtypes"])
    computed = Counter(effective["buffer_dtypes"]) - stored
    kept = effective["kept_in_float32"]
    found = []
    for what, counts, allowed in (
        ("parameters", parameters - Counter({_SAFE: kept["parameters"]}), (dtype,)),
        ("buffers of the weights", stored - Counter({_SAFE: kept["stored_buffers"]}), (dtype,)),
        ("computed buffers", computed, (dtype, _SAFE)),
    ):
        others = {name: count for name, count in counts.items() if name.startswith(_FLOATING) or what == "parameters"}
        others = {name: count for name, count in others.items() if name not in (*allowed, _OF_SHAPES)}
        if others:
            found.append(f"{what} are not all {' or '.join(dict.fromkeys(allowed))}: {others}")
    elsewhere = {where: count for where, count in effective["tensor_devices"].items() if where != effective["device"]}
    if elsewhere and device_map == NONE:
        found.append(f"tensors are not all on {effective['device']}: {elsewhere}")
    holding = effective["weight_bytes_by_device"]
    if device_map != NONE and len(holding) < 2:
        found.append(
            f"device_map {device_map} put all weights on {', '.join(holding)}; device_map {NONE} measures that"
        )
    return found


def _stored(model: PreTrainedModel) -> set[str]:
    """Return the names of what is saved with the weights."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def _kept(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> int:
    """Return how many of the tensors are in float32 because the model's class asks for it."""
    declared = set(model._keep_in_fp32_modules_strict or ())
    if model.config.dtype == torch.float16:  # transformers keeps these from float16 only
        declared |= set(model._keep_in_fp32_modules or ())
    in_float32 = [name for name, tensor in tensors.items() if tensor.dtype == torch.float32]
    return sum(any(part in name for part in declared) for name in in_float32)


def _dtypes(tensors: Iterable[torch.Tensor]) -> dict[str, int]:
    return dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors))
