"""What changed between two sides, in words: the causes that a difference may have."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hfbench.compare.pairs import Pairing
from hfbench.compare.revisions import git
from hfbench.compare.side import WORKSPACE, Side

_CODE = ("hfbench", "stages", "dvc.yaml")


def code_changes(baseline: Side, candidate: Side, folder: Path) -> list[str]:
    """Return sentences: how many commits lie between the sides, and which parts of the code differ.

    Where git cannot tell, because a side is a folder of results or no git is there, that is said.
    """
    unknown = [side.label for side in (baseline, candidate) if side.revision is None and side.label != WORKSPACE]
    if unknown:
        return [f"not known, since {' and '.join(unknown)} is no revision"]
    files = _changed_files(baseline.revision, candidate.revision, folder)
    if files is None:
        return ["not known, since git cannot compare the two"]
    return [*_commits(baseline.revision, candidate.revision, folder), *_code_files(files)]


def _commits(baseline: str | None, candidate: str | None, folder: Path) -> list[str]:
    counts = git(folder, "rev-list", "--left-right", "--count", f"{baseline or 'HEAD'}...{candidate or 'HEAD'}")
    behind, ahead = map(int, (counts or "0 0").split())
    if behind and ahead:
        return [
            f"{_counted(ahead, 'commit')} since their common ancestor on the candidate's side, {behind} on the other"
        ]
    if behind:
        return [f"the candidate is {_counted(behind, 'commit')} older"]
    return [_counted(ahead, "commit")] if ahead else []


def _changed_files(baseline: str | None, candidate: str | None, folder: Path) -> dict[str, tuple[int, int]] | None:
    """Return lines added and removed in each file that differs; the workspace's files where a revision is None."""
    if baseline is None and candidate is None:
        return {}
    revisions = [revision for revision in (baseline, candidate) if revision is not None]
    reverse = ["-R"] if baseline is None else []
    listed = git(folder, "diff", "--numstat", "--no-renames", *reverse, *revisions, "--", *_CODE)
    if listed is None:
        return None
    files = {}
    for line in listed.splitlines():
        added, removed, name = line.split("\t")
        files[name] = (0, 0) if added == "-" else (int(added), int(removed))
    if len(revisions) == 1:
        untracked = git(folder, "ls-files", "--others", "--exclude-standard", "--", *_CODE) or ""
        files |= dict.fromkeys(untracked.splitlines(), (0, 0))
    return files


def _code_files(files: dict[str, tuple[int, int]]) -> list[str]:
    if not files:
        return []
    added, removed = (sum(counts) for counts in zip(*files.values(), strict=True))
    rooms = Counter(_room(name) for name in files)
    parts = ", ".join(f"{room} {count}" if count > 1 else room for room, count in rooms.most_common())
    return [f"{_counted(len(files), 'file')} of hfbench, +{added} −{removed} lines: {parts}"]


def _room(name: str) -> str:
    """Return the part of the house that a file is in: hfbench/measure, stages, dvc.yaml."""
    parts = Path(name).parts
    start = parts.index("hfbench") if "hfbench" in parts[:-1] else None
    if start is None:
        return parts[-2] if len(parts) > 1 else name
    return "/".join(parts[start : start + 2])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


ABSENT = "none"
# Of a longer list only what was added and removed is told.
_WHOLE_LIST = 12


class Difference(NamedTuple):
    """A leaf by its dotted name, and what it is on each side."""

    name: str
    before: str
    after: str

    @property
    def sentence(self) -> str:
        """The difference in one line."""
        return f"{self.name} {self.before} → {self.after}"


def differences(before: Any, after: Any, name: str = "") -> list[Difference]:
    """Return each leaf that two nested contents do not share, in their order.

    Lists of mappings are compared place by place, other lists as a whole.
    """
    if before == after:
        return []
    old, new = _children(before), _children(after)
    if old is not None and new is not None and (old or new):
        names = dict.fromkeys([*old, *new])
        return [each for key in names for each in differences(old.get(key), new.get(key), _joined(name, key))]
    if isinstance(before, list) and isinstance(after, list) and max(len(before), len(after)) > _WHOLE_LIST:
        removed = [value for value in before if value not in after]
        added = [value for value in after if value not in before]
        if removed or added:  # else only the order differs
            return [Difference(name, _some(removed), _some(added))]
    return [Difference(name, text(before), text(after))]


def text(value: Any) -> str:
    """Return a value as a person would write it."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {text(item)}' for key, item in value.items())}}}"
    return str(value)


def _children(value: Any) -> dict[Any, Any] | None:
    """Return what is below a mapping or a list of mappings (nothing below what is empty), or None for a leaf."""
    if value is None or value == []:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return dict(enumerate(value))
    return None


def _some(values: list[Any]) -> str:
    return ", ".join(map(text, values)) or ABSENT


def _joined(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


_MACHINE = ("system", "cpu", "memory", "accelerators", "variables")
UNKNOWN = "unknown"


def environment_differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between two machines (contents of environment.json); nothing where they are equal.

    Where a side does not say what machine it is from, that is the difference.
    """
    if not baseline or not candidate:
        return [Difference("machine", *("known" if content else UNKNOWN for content in (baseline, candidate)))]
    old, new = ({part: content.get(part) for part in _MACHINE} for content in (baseline, candidate))
    return differences(old, new)


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
