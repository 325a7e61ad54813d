"""The Python packages that can change a measurement: versions and, for source checkouts, what is in them."""

from collections.abc import Iterable
from importlib import metadata
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hfbench.environment.origins import source_state

# What loads and runs a model, and what torch or transformers pick up by themselves where it is installed.
# One string, because a module that holds the bare name of a library is taken for one that imports it
# (tests/test_stage_dependencies.py).
ROOTS = tuple(
    """
    torch transformers kernels accelerate safetensors tokenizers numpy triton
    flash-attn flash-attn-3 flash-attn-4 xformers torchao bitsandbytes liger-kernel optimum optimum-quanto deepspeed
    mamba-ssm causal-conv1d flash-linear-attention einops intel-extension-for-pytorch
    autoawq compressed-tensors gptqmodel hqq
    """.split()  # noqa: SIM905
)


def describe_packages(roots: Iterable[str] = ROOTS) -> dict[str, dict[str, Any]]:
    """Return each installed package of the roots and of all that they require, by its normalised name, sorted.

    A package has its `version`. One that does not come from an index, or that a folder on PYTHONPATH hides, also has
    `commit` and `uncommitted`; see `hfbench.environment.origins.source_state`.
    """
    found = _required(roots)
    return {name: {"version": found[name].version, **source_state(name, found[name])} for name in sorted(found)}


def _required(roots: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions that the roots reach through their requirements, the roots included."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset()) for root in roots]
    while waiting:
        name, extras = waiting.pop()
        name = canonicalize_name(name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name not in found:
            try:
                found[name] = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue
        waiting += _requirements(found[name], extras)
    return found


def _requirements(distribution: metadata.Distribution, extras: frozenset[str]) -> list[tuple[str, frozenset[str]]]:
    """Return the names that apply here, each with the extras asked of it (torch asks so for its CUDA libraries)."""
    wanted: list[tuple[str, frozenset[str]]] = []
    for line in distribution.requires or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # metadata older than the rules; pip ignores it too
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *sorted(extras))):
            wanted.append((requirement.name, frozenset(requirement.extras)))
    return wanted
