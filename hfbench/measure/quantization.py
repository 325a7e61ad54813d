"""Quantised weights: asking transformers for them, which modules hold them, and what their storage really takes.

A tensor of quantised weights tells of itself what it stands for: torchao's has the dtype and the size of what it is
multiplied as, bitsandbytes' those of its packed bytes. So storage is counted from the tensors within, and products from
the logical shapes.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.quantizers.auto import AutoQuantizationConfig

from hfbench.core.point import Configuration

_TORCHAO = "torchao"
_SAVED_AS = "default"  # the one key of `quant_type` in the form that transformers writes
_UNPACKS = "dequantize"  # of an entry, that a checkpoint's weights are to be as they were before
_ALIASES = {"mxfp8": "fp8"}  # methods that are one class of config, which names itself so
# Dtypes of packed weights; longer integers are shapes and the like.
_PACKED_DTYPES = (torch.int8, torch.uint8, torch.int16, torch.int32)
_SIZES = (("out_features", "in_features"), ("outfeatures", "infeatures"))
_ROWS_TOGETHER = 32  # that bitsandbytes takes together
# What quantised weights have beside their tensor: bitsandbytes' scales, hqq's.
_STATES = ("quant_state", "SCB", "meta")
_CONVERSION = "issues during automatic conversion"
_CAUSE = re.compile(r"^(\w*Error): (.+)$", re.MULTILINE)


class QuantizationError(Exception):
    """The weights cannot be quantised as asked, here or at all."""


@dataclass(frozen=True)
class QuantizedWeight:
    """The quantised weights of a module: which tensor stands for them, of which kind it is, and its real size.

    `logical_parameters` is the number of weights that it is multiplied as.
    """

    tensor: torch.Tensor
    kind: str
    logical_parameters: int
    stored_bytes: int


def quantization_argument(entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the argument of `from_pretrained` for an entry of `quantization:`; none for None.

    Raises `QuantizationError` where transformers or torchao has nothing of that name, or refuses its arguments.
    """
    if entry is None:
        return {}
    content = dict(entry)
    try:
        if content["quant_method"] == _TORCHAO:
            content["quant_type"] = _torchao_type(content.get("quant_type"))
            from transformers import TorchAoConfig

            content.pop("quant_method")
            return {"quantization_config": TorchAoConfig(**content)}
        return {"quantization_config": AutoQuantizationConfig.from_dict(content)}
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        raise QuantizationError(f"transformers refuses the quantization config {dict(entry)}: {error}") from error


def _torchao_type(asked: Any) -> Any:
    """Return torchao's config of this name, or of this name with arguments, or of the form that checkpoints have."""
    from torchao import quantization
    from torchao.core.config import config_from_dict

    if isinstance(asked, Mapping) and _SAVED_AS in asked:
        return config_from_dict(dict(asked[_SAVED_AS]))
    name, arguments = next(iter(asked.items())) if isinstance(asked, Mapping) and len(asked) == 1 else (asked, {})
    if not isinstance(name, str) or not hasattr(quantization, name):
        known = ", ".join(each for each in dir(quantization) if each.endswith("Config"))
        raise ValueError(f"quant_type is {asked!r}; expected a config of torchao.quantization, one of {known}")
    return getattr(quantization, name)(**(arguments or {}))


@contextmanager
def causes_told() -> Iterator[None]:
    """Raise `QuantizationError` with what transformers only logs of a conversion of weights that failed.

    It logs the exception of each weight in a report, and then raises one that says to look there. An `ImportError`
    among them is raised as such.
    """
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield
    except RuntimeError as error:
        found = _CAUSE.search("\n".join(told))
        if _CONVERSION not in str(error) or found is None:
            raise
        kind = ImportError if found[1] in ("ImportError", "ModuleNotFoundError") else QuantizationError
        raise kind(f"the weights could not be quantised: {found[0]}") from error
    finally:
        logger.removeHandler(handler)


def require_compilable(configuration: Configuration, model: PreTrainedModel) -> None:
    """Raise `NotImplementedError` where `generate` would leave a quantised model uncompiled, whatever is asked for."""
    quantizer = getattr(model, "hf_quantizer", None)
    if configuration.compile_mode != "off" and quantizer is not None and not quantizer.is_compileable:
        raise NotImplementedError(
            f"transformers does not compile a model that {checkpoint_method(model.config)} quantised; measure it with "
            "compile_mode off"
        )


def require_packable(model: PreTrainedModel) -> None:
    """Raise `NotImplementedError` where bitsandbytes (0.50) would fail in the first pass on this processor.

    With instructions for bfloat16 products it packs 4-bit weights anew (`_convert_weight_packed_for_cpu`).
    """
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is None or not getattr(module, "support_avx512bf16_for_cpu", False):
            continue
        rows, columns = state.shape
        if module.weight.device.type == "cpu" and (rows % _ROWS_TOGETHER or columns % state.blocksize):
            raise NotImplementedError(
                f"on this processor bitsandbytes takes matrices of whole blocks of {_ROWS_TOGETHER} rows and "
                f"{state.blocksize} columns, and {name} is {rows} by {columns}; another method may do"
            )


def checkpoint_method(config: Any) -> str | None:
    """Return how a checkpoint of this config is quantised; None where it is not."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    method = found.get("quant_method") if isinstance(found, Mapping) else found.quant_method
    return str(getattr(method, "value", method))


def quantized_weights(model: PreTrainedModel) -> dict[str, QuantizedWeight]:
    """Return the quantised weights of each module that has some, by the module's name."""
    found = {}
    for name, module in model.named_modules():
        swizzled = _swizzled(module)
        packed = [weight for weight, _ in swizzled] or _packed(module)
        if packed:
            tensor = max(packed, key=stored_bytes)
            dtype = compute_dtype(module)
            computing = "" if dtype is None else f", computing in {dtype}"
            kind = f"{type(module).__name__} of {_kind_of(tensor)}{computing}"
            size = sum(count for _, count in swizzled) or _logical_size(module, packed)
            beside = sum(map(stored_bytes, swizzled_tensors(module)))
            found[name] = QuantizedWeight(tensor, kind, size, _module_bytes(module) + beside)
    return found


_PRECISION_CONFIG = "_precision_config"


def _swizzled(module: nn.Module) -> list[tuple[torch.Tensor, int]]:
    """Return the weights that are tensors of Triton's and no parameters, with how many weights each stands for.

    transformers (`integrations/mxfp4.py`) puts them in the place of the parameters, with their scales beside them.
    """
    names = [name.removesuffix(_PRECISION_CONFIG) for name in vars(module) if name.endswith(_PRECISION_CONFIG)]
    weights: list[Any] = [getattr(module, name, None) for name in names]
    return [(each.storage.data, math.prod(each.shape)) for each in weights if hasattr(each, "storage")]


def swizzled_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the tensors of weights that are Triton's, and of their scales."""
    for name, value in vars(module).items():
        scale = getattr(value, "weight_scale", None) if name.endswith(_PRECISION_CONFIG) else None
        if scale is not None:
            yield scale.storage.data
    for weight, _ in _swizzled(module):
        yield weight


def compute_dtype(module: nn.Module) -> str | None:
    """Return the dtype into which a module takes its quantised weights to multiply; None where it does not say."""
    dtype = getattr(module, "compute_dtype", None)
    return _name_of(dtype) if isinstance(dtype, torch.dtype) else None


# Operators that multiply quantised activations as well, in their own dtype.
_OTHER_PRODUCT = re.compile(r"_int_mm|_scaled_mm|int8_linear_matmul|scaled_int8|w8a8|fp8", re.IGNORECASE)


def other_products(model: PreTrainedModel, described: Mapping[str, Any]) -> str | None:
    """Return, in words, where quantised weights multiply in another dtype than the model's, whose rate is measured.

    `described` is what `describe_quantization` returns.
    """
    dtypes = {dtype for module in model.modules() if (dtype := compute_dtype(module)) is not None}
    others = sorted(dtypes - {_name_of(model.dtype)})
    others += [each for each in (*described["operators"], *described["modules"]) if _OTHER_PRODUCT.search(each)]
    return f"quantised weights multiply in another dtype than the model's ({', '.join(others)})" if others else None


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _packed(module: nn.Module) -> list[torch.Tensor]:
    """Return the tensors of a module's own that hold quantised weights: one, or one of each kind of expert matrix.

    What such a tensor has beside it may stay where the weights themselves were unpacked, as compressed-tensors does.
    """
    own = dict(module.named_parameters(recurse=False))
    if "weight" in own and not _is_packed(own["weight"]):
        return []
    says_size = any(all(hasattr(module, name) for name in names) for names in _SIZES)
    found: list[torch.Tensor] = [each for name, each in own.items() if _is_packed(each) and "scale" not in name]
    if says_size:  # what it multiplies
        found += [each for _, each in module.named_buffers(recurse=False) if _is_packed(each)]
    return found


def _is_packed(tensor: torch.Tensor) -> bool:
    """Tell by the dtype, by being several tensors in one, or by bitsandbytes' state, whose bytes have any dtype."""
    is_small_float = tensor.is_floating_point() and tensor.element_size() == 1
    has_state = getattr(tensor, "quant_state", None) is not None
    return tensor.dtype in _PACKED_DTYPES or is_small_float or has_state or _is_subclass(tensor)


def _is_subclass(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "__tensor_flatten__") and not type(tensor).__module__.startswith("torch.distributed")


def _kind_of(tensor: torch.Tensor) -> str:
    """Return what a tensor is: its class and the dtype of what it holds most of."""
    inner = max(_inner(tensor), key=lambda each: each.nbytes)
    kind = type(tensor).__name__
    own = f"{kind} " if kind not in ("Parameter", "Tensor") else ""
    code = getattr(getattr(tensor, "quant_state", None), "quant_type", None)
    detail = f" {code}" if code else ""
    return f"{own}{_name_of(inner.dtype)}{detail}"


def _inner(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the plain tensors that a tensor consists of."""
    if not _is_subclass(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    parts = (getattr(tensor, name) for name in names)
    return [plain for part in parts if isinstance(part, torch.Tensor) for plain in _inner(part)]


def stored_bytes(tensor: torch.Tensor) -> int:
    """Return the bytes of the plain tensors that a tensor consists of: scales and zero points among them."""
    return sum(each.nbytes for each in _inner(tensor))


def logical_parameters(model: PreTrainedModel) -> int:
    """Return how many weights the model has: as many as it would have unquantised, without scales and zero points."""
    quantized = quantized_weights(model)
    names = {f"{module}.bias" for module in quantized}
    plain = {
        id(parameter): parameter.numel()
        for name, parameter in model.named_parameters()
        if name in names or name.rpartition(".")[0] not in quantized
    }
    packed = {id(each.tensor): each.logical_parameters for each in quantized.values()}
    return sum(packed.values()) + sum(plain.values())


def _logical_size(module: nn.Module, packed: Sequence[torch.Tensor]) -> int:
    for names in _SIZES:
        if all(hasattr(module, name) for name in names):
            return int(getattr(module, names[0])) * int(getattr(module, names[1]))
    shapes = (getattr(getattr(tensor, "quant_state", None), "shape", None) or tensor.shape for tensor in packed)
    return sum(map(math.prod, shapes))


def _module_bytes(module: nn.Module) -> int:
    """Return the bytes of all of a module's own tensors, with those that quantised weights keep beside."""
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    states = [getattr(holder, name, None) for holder in (module, *own) for name in _STATES]
    beside = {id(each): each for state in states for each in tensors_in(state)}
    return sum(map(stored_bytes, own)) + sum(
        each.nbytes for key, each in beside.items() if key not in {id(tensor) for tensor in own}
    )


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in what quantising keeps: in dictionaries, lists and pairs, and in bitsandbytes' state."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(each)
    elif type(value).__name__ == "QuantState":  # bitsandbytes', with another one of the scales where these are packed
        yield from tensors_in(vars(value))


def describe_quantization(model: PreTrainedModel, operators: Mapping[str, int]) -> dict[str, Any] | None:
    """Return, for `effective`, how the weights are quantised; None where they are not, and none was asked for.

    `method` is transformers' name, `modules` counts those with quantised weights by their class and the kind of tensor,
    `logical_parameters` and `stored_bytes` are theirs, and `operators` what multiplied in a short call.
    """
    method, weights = checkpoint_method(model.config), quantized_weights(model)
    if method is None and not weights:
        return None
    return {
        "method": method,
        "was_in_checkpoint": bool(getattr(getattr(model, "hf_quantizer", None), "pre_quantized", False)),
        "modules": dict(Counter(each.kind for each in weights.values())),
        "logical_parameters": sum(each.logical_parameters for each in weights.values()),
        "stored_bytes": sum(each.stored_bytes for each in weights.values()),
        "operators": dict(operators),
    }


def quantization_differences(
    configuration: Configuration,
    asked: Mapping[str, Any] | None,
    found: Mapping[str, Any] | None,
    checkpoint: str | None = None,
) -> list[str]:
    """Return, in words, where the weights are not quantised as was asked for, or as the checkpoint (its method) says.

    transformers unpacks some checkpoints when they are loaded, or when they first run, and says so in its log alone.
    """
    modules = found["modules"] if found else {}
    if asked is not None and asked.get(_UNPACKS):
        return [f"{_UNPACKS} is true, and quantised weights are left: {modules}"] if modules else []
    if asked is None:
        if modules or not checkpoint:
            return []
        remedy = f"An entry {{quant_method: {checkpoint}, {_UNPACKS}: true}} of quantization measures that"
        return [
            f"the checkpoint is quantised ({checkpoint}), and transformers unpacked it: no module that ran holds "
            f"quantised weights. {remedy}"
        ]
    if found is None or not modules:
        return [f"quantization {configuration.quantization} left all weights as they were"]
    method = _ALIASES.get(asked["quant_method"], asked["quant_method"])
    if found["method"] != method:
        return [f"the weights are quantised by {found['method']}, not {method}"]
    return []
