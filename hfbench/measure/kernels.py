"""Kernels: what takes the place of which layer, which layers really run one, and whether that was asked for."""

import inspect
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import LayerRepository, LocalLayerRepository, Mode, get_kernel, get_loaded_kernels
from torch import nn
from transformers import KernelConfig, PreTrainedModel
from transformers.utils.import_utils import get_device_type

from hfbench.core.errors import UserError
from hfbench.core.point import Configuration
from hfbench.core.record import Settings
from hfbench.measure.device import Device
from hfbench.model.folder import kernel_sha256


class PinnedKernels(KernelConfig):
    """A mapping that stands above transformers' own, for the models that it is given to.

    What is registered with the kernels library beforehand does not: transformers registers its own mapping over it
    whenever it replaces layers. The checks of KernelConfig are left out, as they refuse the CPU.
    """

    def __init__(self, mapping: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pinned = mapping

    def sanitize_kernel_mapping(self, model: PreTrainedModel) -> None:
        """Accept the mapping: the entries were checked with params.yaml, and what they did is verified later."""

    def create_compatible_mapping(self, model: PreTrainedModel, compile: bool = False) -> None:
        """Hand over the mapping, which is in the kernels library's terms already."""
        del model, compile
        self.kernel_mapping = self._pinned


@dataclass(frozen=True)
class Kernels:
    """What `from_pretrained` takes: the name of the attention, the mapping, and whether any publisher is trusted."""

    attn_implementation: str
    config: PinnedKernels | None = None
    trust_remote_code: bool = False


def open_kernels(configuration: Configuration, settings: Settings, device: Device) -> Kernels:
    """Import the kernels of the entries that this point uses on this device.

    They are imported before the model is loaded: a kernel that cannot be had is told as such (transformers keeps the
    model's own layers then), and fetching one is no part of the load seconds. Raises `UserError` where a local one was
    edited, and whatever the kernels library raises.
    """
    check_unedited(settings)
    mapping: dict[str, Any] = {}
    if configuration.use_kernels:
        for entry in entries_on(kernel_device(device), settings):
            repository = _repository(entry)
            _load(repository)
            mapping[entry["layer"]] = {entry["device"]: {Mode.INFERENCE: repository}}
    pin = attention_pin(configuration, settings)
    if pin is not None:
        get_kernel(pin["repository"], revision=pin["revision"], trust_remote_code=pin["trust_remote_code"])
    return Kernels(
        attn_implementation=_pinned_name(configuration.attn_implementation, pin),
        config=PinnedKernels(mapping) if mapping else None,
        trust_remote_code=pin is not None and pin["trust_remote_code"],
    )


def check_unedited(settings: Settings) -> None:
    """Raise `UserError` where a local kernel is not the one that the point is to be measured with."""
    for entry in settings.kernels:
        if "path" in entry and kernel_sha256(kernel_folder(entry)) != entry["sha256"]:
            raise UserError(
                f"the kernel in {entry['path']} was edited since this run began. "
                "Run again: the points that use it are measured with what is there then."
            )


def kernel_device(device: Device) -> str:
    """Return the device as the kernels library names it: an AMD GPU is rocm, and not cuda."""
    return str(get_device_type(device.torch_device))


def kernel_folder(entry: dict[str, Any]) -> Path:
    """Return the folder of a local kernel's entry."""
    return Path(entry["path"]).expanduser()


def entries_on(kind: str, settings: Settings) -> list[dict[str, Any]]:
    """Return the entries that replace a layer on this kind of device."""
    return [entry for entry in settings.kernels if entry.get("device") == kind]


def attention_pin(configuration: Configuration, settings: Settings) -> dict[str, Any] | None:
    """Return an entry of the repository that the attention is from; all of one repository have the same revision."""
    repository = configuration.attn_implementation.partition(":")[0]
    return next((entry for entry in settings.kernels if entry.get("repository") == repository), None)


def _pinned_name(attn_implementation: str, pin: dict[str, Any] | None) -> str:
    """Return OWNER/NAME:FUNCTION as transformers takes it with a revision, OWNER/NAME@REVISION:FUNCTION."""
    repository, colon, function = attn_implementation.partition(":")
    return attn_implementation if pin is None else f"{repository}@{pin['revision']}{colon}{function}"


def _repository(entry: dict[str, Any]) -> Any:
    if "path" in entry:
        return LocalLayerRepository(repo_path=kernel_folder(entry).resolve(), layer_name=entry["layer_name"])
    return LayerRepository(
        repo_id=entry["repository"],
        layer_name=entry["layer_name"],
        revision=entry["revision"],
        trust_remote_code=entry["trust_remote_code"],
    )


def _load(repository: Any) -> None:
    """Import a kernel from its source: byte code beside it may be of another content with the same time and size."""
    before = sys.pycache_prefix
    sys.pycache_prefix = str(Path(tempfile.gettempdir()) / "kernels")  # in the scratch folder of this point
    try:
        repository.load()
    finally:
        sys.pycache_prefix = before


# .../models--OWNER--NAME/snapshots/COMMIT/build/... in the Hugging Face cache; kernels-- and models-- are both used.
_HUB_FILE = re.compile(r"(?:models|kernels)--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]{40})/")


def kernelized_layers(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Return an entry for each class of layer that a kernel could replace: how many there are, how many it did.

    A layer is replaced where its bound `forward` is not its class's own; `model.use_kernels` proves nothing. What
    accelerate or a package of quantised weights put around it, to fetch or unpack them, is looked through, and so is
    what transformers puts around it on each rank.
    """
    totals: Counter[tuple[str, str]] = Counter()
    replaced: Counter[tuple[tuple[str, str], Any]] = Counter()
    for class_name, layer in _candidates(model):
        kind = (str(type(layer).kernel_layer_name), class_name)
        totals[kind] += 1
        forward = _function_of(layer.forward)
        if forward is not _function_of(type(layer).forward):
            replaced[kind, forward] += 1
    found = [(kind, count, _of_function(forward, settings)) for (kind, forward), count in replaced.items()]
    found += [(kind, 0, {}) for kind in sorted(set(totals) - {kind for kind, _ in replaced})]
    return [
        {"layer": kind[0], "class": kind[1], "modules": totals[kind], "replaced": count, **origin}
        for kind, count, origin in found
    ]


# Tensor parallelism's own forward functions, which are no methods, and what they call the one that they stand around.
_AROUND, _WITHIN = "transformers.distributed", "original_forward"


def _function_of(forward: Callable[..., Any]) -> Any:
    inner: Any = inspect.unwrap(forward)
    while str(getattr(inner, "__module__", "")).startswith(_AROUND) and inspect.isfunction(inner):
        around = inspect.getclosurevars(inner).nonlocals
        if _WITHIN not in around:
            break
        inner = inspect.unwrap(around[_WITHIN])
    return getattr(inner, "__func__", inner)


def loaded_kernels(settings: Settings) -> list[dict[str, Any]]:
    """Return name, version and origin of each kernel that this process imported, those of attention among them."""
    return [
        {
            "name": str(kernel.metadata.name),
            "version": kernel.metadata.version,
            **_origin(str(kernel.module.__file__), settings),
        }
        for kernel in get_loaded_kernels()
    ]


def kernel_differences(
    configuration: Configuration, settings: Settings, kind: str, effective: dict[str, Any]
) -> list[str]:
    """Return, in words, where the kernels in force are not what was asked for. `kind` is that of `kernel_device`."""
    layers = effective["kernelized_layers"]
    pin = attention_pin(configuration, settings)
    found = []
    if pin is not None and not any(_is_from(pin, kernel) for kernel in effective["loaded_kernels"]):
        found.append(f"the attention is not from {_named(pin)}")
    replaced = sum(layer["replaced"] for layer in layers)
    if not configuration.use_kernels:
        return found + ([f"use_kernels is off, and {replaced} layers run a kernel"] if replaced else [])
    entries = entries_on(kind, settings)
    if not entries and not replaced:
        found.append(_nothing_replaced(kind, settings, layers))
    return found + [text for entry in entries if (text := _entry_difference(entry, layers))]


def _nothing_replaced(kind: str, settings: Settings, layers: list[dict[str, Any]]) -> str:
    mapped = f"no kernel is mapped on {kind} for {_names(layers)}, or none could be loaded"
    others = sorted({entry["device"] for entry in settings.kernels if "device" in entry})
    return f"use_kernels replaced no layer: {mapped}" + (f"; kernels has {', '.join(others)} only" if others else "")


def _entry_difference(entry: dict[str, Any], layers: list[dict[str, Any]]) -> str | None:
    of_layer = [layer for layer in layers if layer["layer"] == entry["layer"]]
    if not of_layer:
        return f"kernels names the layer {entry['layer']}, and this model has none; it has {_names(layers)}"
    if any(layer["replaced"] and _is_from(entry, layer) for layer in of_layer):
        return None
    return f"no {entry['layer']} layer was replaced by {_named(entry)}"


def _is_from(entry: dict[str, Any], origin: dict[str, Any]) -> bool:
    keys = ("path", "sha256") if "path" in entry else ("repository", "revision")
    return all(origin.get(key) == entry[key] for key in keys)


def _named(entry: dict[str, Any]) -> str:
    return str(entry["path"]) if "path" in entry else f"{entry['repository']}@{entry['revision']}"


def _names(layers: list[dict[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(layer["layer"] for layer in layers)) or "any layer that a kernel could replace"


def _candidates(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the layers and functions that a kernel could replace, each with the name of its class."""
    for module in model.modules():
        if hasattr(type(module), "kernel_layer_name"):
            yield type(module).__name__, module
        for name, function in getattr(module, "_kernel_funcs", {}).items():
            if hasattr(type(function), "kernel_layer_name"):
                yield str(name), function


def _of_function(forward: Any, settings: Settings) -> dict[str, str]:
    """Return the kernel's function and where it came from."""
    module = sys.modules.get(forward.__module__)
    file = getattr(module, "__file__", None) or inspect.getfile(forward)
    return {"kernel": forward.__qualname__, **_origin(file, settings)}


def _origin(file: str, settings: Settings) -> dict[str, str]:
    """Return repository and revision of a file from the hub, path and sha256 of one in a local kernel's folder."""
    found = _HUB_FILE.search(file)
    if found:
        return {"repository": f"{found['owner']}/{found['name']}", "revision": found["revision"]}
    for entry in settings.kernels:
        if "path" in entry and Path(file).is_relative_to(kernel_folder(entry).resolve()):
            return {"path": entry["path"], "sha256": entry["sha256"]}
    return {}
