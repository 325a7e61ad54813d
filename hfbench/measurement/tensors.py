"""The dtype and device of every parameter and buffer of a loaded model, and where they are not what was asked for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

_FLOATING = ("float", "bfloat")  # how torch's floating-point dtypes begin
_SAFE = "float32"


def describe_tensors(model: PreTrainedModel) -> dict[str, Any]:
    """Return, ready for JSON, how many parameters and buffers there are of each dtype and on each device.

    `stored_buffer_dtypes` are the floating-point buffers that come with the weights; the other ones the model computes.
    `kept_in_float32` counts what the model's class has transformers keep in float32 whatever dtype is asked for, such
    as the router of some mixtures of experts.
    """
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    stored = {name: buffer for name, buffer in buffers.items() if name in _stored(model) and buffer.is_floating_point()}
    return {
        "parameter_dtypes": _dtypes(parameters.values()),
        "buffer_dtypes": _dtypes(buffers.values()),
        "stored_buffer_dtypes": _dtypes(stored.values()),
        "kept_in_float32": {"parameters": _kept(model, parameters), "stored_buffers": _kept(model, stored)},
        "tensor_devices": dict(Counter(str(tensor.device) for tensor in [*parameters.values(), *buffers.values()])),
    }


def tensor_differences(dtype: str, effective: dict[str, Any]) -> list[str]:
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
        others = {name: count for name, count in others.items() if name not in allowed}
        if others:
            found.append(f"{what} are not all {' or '.join(dict.fromkeys(allowed))}: {others}")
    elsewhere = {where: count for where, count in effective["tensor_devices"].items() if where != effective["device"]}
    if elsewhere:
        found.append(f"tensors are not all on {effective['device']}: {elsewhere}")
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
