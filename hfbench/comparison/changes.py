"""What changed between two sides, in words: the causes that a difference may have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfbench.comparison.code import code_changes
from hfbench.comparison.differences import ABSENT, Difference, differences
from hfbench.comparison.environments import environment_differences
from hfbench.comparison.pairs import Pairing
from hfbench.comparison.side import Side

KINDS = ("params", "code", "package", "kernel", "hardware", "model", "prompt")
_SHOWN_DIGEST = 10
_SOFTWARE = ("python", "compiler")
_MANIFEST = ("source", "provenance", "architecture", "model_type", "vocab_size", "max_position_embeddings")


@dataclass(frozen=True)
class Change:
    """One thing that changed: one of `KINDS`, its name, and what it was on each side.

    What is told in one sentence has it in `after`, and an empty `name` and `before`.
    """

    kind: str
    name: str
    before: str
    after: str

    @property
    def sentence(self) -> str:
        """The change in one line."""
        return f"{self.name} {self.before} → {self.after}" if self.name else self.after


def find_changes(baseline: Side, candidate: Side, pairing: Pairing, folder: Path = Path()) -> tuple[Change, ...]:
    """Return what changed, in the order of `KINDS`; code is compared in the git repository that holds `folder`."""
    machines = (baseline.environment, candidate.environment)
    return (
        *_changes("params", differences(baseline.params, candidate.params)),
        *(Change("code", "", "", sentence) for sentence in code_changes(baseline, candidate, folder)),
        *_changes("package", _software(*machines)),
        *_kernels(pairing),
        *_changes("hardware", environment_differences(*machines)),
        *_models(baseline.manifests, candidate.manifests),
        *_prompt(pairing),
    )


def _changes(kind: str, found: Iterable[Difference]) -> list[Change]:
    return [Change(kind, *each) for each in found]


def _software(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[Difference]:
    if not baseline or not candidate:
        return []
    old, new = (
        {name: _package(state) for name, state in (content.get("packages") or {}).items()}
        for content in (baseline, candidate)
    )
    older, newer = ({part: content.get(part) for part in _SOFTWARE} for content in (baseline, candidate))
    return [*differences(old, new), *differences(older, newer)]


def _package(state: Mapping[str, Any]) -> str:
    """Return the version of a package and, for one that is no release, its commit and what is not committed."""
    text = str(state.get("version"))
    if state.get("commit"):
        text += f" at {str(state['commit'])[:_SHOWN_DIGEST]}"
    if state.get("uncommitted"):
        text += f" with uncommitted changes ({str(state['uncommitted'])[:_SHOWN_DIGEST]})"
    return text


def _kernels(pairing: Pairing) -> list[Change]:
    """Return the kernels that only one side ran, over the points of both."""
    old, new = (
        {kernel for pair in pairing.pairs for kernel in getattr(pair, side).kernels}
        for side in ("baseline", "candidate")
    )
    layers = dict.fromkeys(kernel.partition(": ")[0] for kernel in sorted(old ^ new))
    changes = []
    for layer in layers:
        before, after = (
            ", ".join(sorted(kernel.partition(": ")[2] for kernel in side if kernel.partition(": ")[0] == layer))
            or ABSENT
            for side in (old, new)
        )
        changes.append(Change("kernel", layer, before, after))
    return changes


def _models(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    changes = []
    for name in old.keys() & new.keys():
        before, after = ({part: content.get(part) for part in _MANIFEST} for content in (old[name], new[name]))
        changes += _changes("model", differences(before, after, name))
        changes += _files(name, old[name].get("files") or [], new[name].get("files") or [])
    return sorted(changes, key=lambda change: change.name)


def _files(name: str, old: list[Mapping[str, Any]], new: list[Mapping[str, Any]]) -> list[Change]:
    before, after = ({str(file["path"]): file for file in files} for files in (old, new))
    changed = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    if not changed:
        return []
    sizes = (sum(file["size_bytes"] for file in files.values()) for files in (before, after))
    shown = ", ".join(sorted(changed)[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return [Change("model", f"{name} files ({shown})", *(f"{size / 1e6:.1f} MB" for size in sizes))]


def _prompt(pairing: Pairing) -> list[Change]:
    """Return a sentence where pairs were given other token ids."""
    different = [
        pair
        for pair in pairing.pairs
        if pair.baseline.inputs and pair.candidate.inputs and pair.baseline.inputs != pair.candidate.inputs
    ]
    if not different:
        return []
    return [
        Change("prompt", "", "", f"the prompt's token ids differ at {len(different)} of {len(pairing.pairs)} points")
    ]
