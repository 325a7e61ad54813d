"""Which layers really run a kernel from the kernels library, and where it came from."""

import inspect
import re
import sys
from collections import Counter
from typing import Any

from torch import nn

# .../models--OWNER--NAME/snapshots/COMMIT/build/... in the Hugging Face cache; kernels-- and models-- are both used.
_HUB_FILE = re.compile(r"(?:models|kernels)--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<revision>[0-9a-f]{40})/")


def kernelized_layers(model: nn.Module) -> list[dict[str, Any]]:
    """Return one entry for each kind of layer that a kernel could replace: how many there are, how many it did.

    A layer is replaced where its bound `forward` is not its class's own; `model.use_kernels` proves nothing.
    """
    totals: Counter[str] = Counter()
    replaced: Counter[tuple[str, Any]] = Counter()
    for module in model.modules():
        candidates = [module, *getattr(module, "_kernel_funcs", {}).values()]
        for layer in candidates:
            name = getattr(type(layer), "kernel_layer_name", None)
            if name is None:
                continue
            totals[str(name)] += 1
            forward = getattr(layer.forward, "__func__", None)
            if forward is not None and forward is not type(layer).forward:
                replaced[str(name), forward] += 1
    entries = [
        {"layer": name, "modules": totals[name], "replaced": count, **_origin(forward)}
        for (name, forward), count in replaced.items()
    ]
    bare = sorted(set(totals) - {name for name, _ in replaced})
    return entries + [{"layer": name, "modules": totals[name], "replaced": 0} for name in bare]


def _origin(forward: Any) -> dict[str, str]:
    """Return the kernel's function, and its repository and revision where it came from the hub."""
    module = sys.modules.get(forward.__module__)
    file = getattr(module, "__file__", None) or inspect.getfile(forward)
    found = _HUB_FILE.search(file)
    origin = {"repository": f"{found['owner']}/{found['name']}", "revision": found["revision"]} if found else {}
    return {"kernel": forward.__qualname__, **origin}
