"""Which layers really run a kernel from the kernels library, where it came from, and whether that was asked for."""

import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernels import get_loaded_kernels
from torch import nn

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.measurement.kernel_mapping import attention_pin, entries_on, kernel_folder

# .../models--OWNER--NAME/snapshots/COMMIT/build/... in the Hugging Face cache; kernels-- and models-- are both used.
_HUB_FILE = re.compile(r"(?:models|kernels)--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]{40})/")


def kernelized_layers(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Return an entry for each class of layer that a kernel could replace: how many there are, how many it did.

    A layer is replaced where its bound `forward` is not its class's own; `model.use_kernels` proves nothing.
    """
    totals: Counter[tuple[str, str]] = Counter()
    replaced: Counter[tuple[tuple[str, str], Any]] = Counter()
    for class_name, layer in _candidates(model):
        kind = (str(type(layer).kernel_layer_name), class_name)
        totals[kind] += 1
        forward = getattr(layer.forward, "__func__", None)
        if forward is not None and forward is not type(layer).forward:
            replaced[kind, forward] += 1
    found = [(kind, count, _of_function(forward, settings)) for (kind, forward), count in replaced.items()]
    found += [(kind, 0, {}) for kind in sorted(set(totals) - {kind for kind, _ in replaced})]
    return [
        {"layer": kind[0], "class": kind[1], "modules": totals[kind], "replaced": count, **origin}
        for kind, count, origin in found
    ]


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
