"""What changed between two sides, in words: the causes that a difference may have, and whether they are one machine."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hfbench.compare.pairs import Pairing
from hfbench.compare.side import WORKSPACE, Side
from hfbench.git import changed_lines, try_git
from hfbench.report.words import counted

KINDS = ("params", "code", "package", "library", "kernel", "hardware", "model", "prompt")
_ABSENT = "none"
_UNKNOWN = "unknown"
_HERE = Path()  # in the git repository of the code
_CODE = ("hfbench", "stages", "dvc.yaml")
_MACHINE = ("system", "cpu", "memory", "accelerators", "variables")
_SOFTWARE = ("python", "compiler", "chosen_files", "torch_build")
_MANIFEST = ("source", "provenance", "architecture", "model_type", "vocab_size", "max_position_embeddings")
_WHOLE_LIST = 12  # of a longer list only what was added and removed is told
_SHOWN_DIGEST = 10
_SHOWN_FILES = 3


@dataclass(frozen=True)
class Change:
    """One thing that changed: one of `KINDS`, its dotted name, and what it was on each side.

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


def find_changes(baseline: Side, candidate: Side, pairing: Pairing) -> tuple[Change, ...]:
    """Return what changed, in the order of `KINDS`."""
    machines = (baseline.environment, candidate.environment)
    return (
        *differences(baseline.params, candidate.params, kind="params"),
        *(Change("code", "", "", sentence) for sentence in _code_changes(baseline, candidate)),
        *_software(*machines),
        *_kernels_and_libraries(pairing),
        *environment_differences(*machines),
        *_clocks(pairing),
        *sorted(_models(baseline.manifests, candidate.manifests), key=lambda change: change.name),
        *_prompt(pairing),
    )


def environment_differences(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[Change]:
    """Return what differs between two machines (contents of environment.json); nothing where they are equal.

    Where a side does not say what machine it is from, that is the difference, unless both are parts of one side.
    """
    if baseline is candidate:
        return []
    if not baseline or not candidate:
        known = ("known" if content else _UNKNOWN for content in (baseline, candidate))
        return [Change("hardware", "machine", *known)]
    return _parts(_MACHINE, baseline, candidate, "hardware")


def differences(before: Any, after: Any, name: str = "", kind: str = "") -> list[Change]:
    """Return each leaf that two nested contents do not share, in their order.

    Lists of mappings are compared place by place, other lists as a whole.
    """
    if before == after:
        return []
    old, new = _children(before), _children(after)
    if old is not None and new is not None and (old or new):
        below = {key: f"{name}.{key}" if name else str(key) for key in [*old, *new]}
        return [each for key in below for each in differences(old.get(key), new.get(key), below[key], kind)]
    if isinstance(before, list) and isinstance(after, list) and max(len(before), len(after)) > _WHOLE_LIST:
        removed = [value for value in before if value not in after]
        added = [value for value in after if value not in before]
        if removed or added:  # else only the order differs
            return [Change(kind, name, *(", ".join(map(_text, values)) or _ABSENT for values in (removed, added)))]
    return [Change(kind, name, _text(before), _text(after))]


def _children(value: Any) -> dict[Any, Any] | None:
    """Return what is below a mapping or a list of mappings (nothing below what is empty), or None for a leaf."""
    if value is None or value == []:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return dict(enumerate(value))
    return None


def _text(value: Any) -> str:
    """Return a value as a person would write it."""
    if value is None:
        return _ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_text(item)}' for key, item in value.items())}}}"
    return str(value)


def _parts(
    parts: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any], kind: str, name: str = ""
) -> list[Change]:
    """Return the differences of these parts of two contents."""
    old, new = ({part: content.get(part) for part in parts} for content in (before, after))
    return differences(old, new, name, kind)


def _code_changes(baseline: Side, candidate: Side) -> list[str]:
    """Return sentences: how many commits lie between the sides, and which parts of the code differ.

    Where git cannot tell, because a side is a folder of results or no git is there, that is said.
    """
    unknown = [side.label for side in (baseline, candidate) if side.revision is None and side.label != WORKSPACE]
    if unknown:
        return [f"not known, since {' and '.join(unknown)} is no revision"]
    files = changed_lines(_HERE, baseline.revision, candidate.revision, _CODE)
    if files is None:
        return ["not known, since git cannot compare the two"]
    span = f"{baseline.revision or 'HEAD'}...{candidate.revision or 'HEAD'}"
    behind, ahead = map(int, (try_git(_HERE, "rev-list", "--left-right", "--count", span) or "0 0").split())
    told = []
    if behind and ahead:
        side = "since their common ancestor on the candidate's side"
        told.append(f"{counted(ahead, 'commit')} {side}, {behind} on the other")
    elif behind or ahead:
        told.append(f"the candidate is {counted(behind, 'commit')} older" if behind else counted(ahead, "commit"))
    if files:
        added, removed = (sum(counts) for counts in zip(*files.values(), strict=True))
        rooms = Counter(map(_room, files)).most_common()
        parts = ", ".join(f"{room} {count}" if count > 1 else room for room, count in rooms)
        told.append(f"{counted(len(files), 'file')} of hfbench, +{added} −{removed} lines: {parts}")
    return told


def _room(name: str) -> str:
    """Return the part of the house that a file is in: hfbench/measure, stages, dvc.yaml."""
    parts = Path(name).parts
    if "hfbench" in parts[:-1]:
        start = parts.index("hfbench")
        return "/".join(parts[start : start + 2])
    return parts[-2] if len(parts) > 1 else name


def _software(baseline: Mapping[str, Any], candidate: Mapping[str, Any]) -> list[Change]:
    if not baseline or not candidate:
        return []
    old, new = (
        {name: _package(state) for name, state in (content.get("packages") or {}).items()}
        for content in (baseline, candidate)
    )
    return [*differences(old, new, kind="package"), *_parts(_SOFTWARE, baseline, candidate, "package")]


def _package(state: Mapping[str, Any]) -> str:
    """Return the version of a package and, for one that is no release, its commit and what is not committed."""
    text = str(state.get("version"))
    if state.get("commit"):
        text += f" at {str(state['commit'])[:_SHOWN_DIGEST]}"
    if state.get("uncommitted"):
        text += f" with uncommitted changes ({str(state['uncommitted'])[:_SHOWN_DIGEST]})"
    return text


def _kernels_and_libraries(pairing: Pairing) -> Iterator[Change]:
    """Yield the libraries, and the kernels by the layer that they replace, that only one side ran, over all pairs.

    A side that was measured before libraries were recorded has none, which is no difference.
    """
    libraries = ((pair.baseline.libraries, pair.candidate.libraries) for pair in pairing.pairs)
    yield from _only_on_one_side("library", [both for both in libraries if all(both)])
    yield from _only_on_one_side("kernel", [(pair.baseline.kernels, pair.candidate.kernels) for pair in pairing.pairs])


def _only_on_one_side(kind: str, pairs: Sequence[tuple[Iterable[str], Iterable[str]]]) -> Iterator[Change]:
    """Yield each name of which the sides have other values; both are texts such as `NAME: VALUE`."""
    old, new = ({tuple(each.split(": ", 1)) for pair in pairs for each in pair[side]} for side in (0, 1))
    for name in dict.fromkeys(name for name, *_ in sorted(old ^ new)):
        sides = (", ".join(sorted(each[-1] for each in side if each[0] == name)) or _ABSENT for side in (old, new))
        yield Change(kind, name, *sides)


# Between two rounds of one configuration on one machine with free clocks, medians differ by less.
_LEAST_CLOCK_CHANGE = 0.02


def _clocks(pairing: Pairing) -> Iterator[Change]:
    """Yield a sentence where the clock that the device ran at, in the middle of all samples, differs between the sides.

    A clock can be locked without a trace in how the machine is described: the readings tell.
    """
    clocks = [(pair.baseline.clock_mhz, pair.candidate.clock_mhz) for pair in pairing.pairs]
    known = [(old, new) for old, new in clocks if old and new]
    other = [(old, new) for old, new in known if abs(new / old - 1) > _LEAST_CLOCK_CHANGE]
    if other:
        before, after = (median(values) for values in zip(*other, strict=True))
        where = f"at {len(other)} of {len(known)} points"
        yield Change(
            "hardware", "", "", f"the device's clock while it was measured {before:.0f} → {after:.0f} MHz {where}"
        )


def _models(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> Iterator[Change]:
    """Yield what differs between the manifests of a model that both sides have, its files in one sentence."""
    for name in old.keys() & new.keys():
        yield from _parts(_MANIFEST, old[name], new[name], "model", name)
        before, after = ({str(file["path"]): file for file in each[name].get("files") or []} for each in (old, new))
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        if changed:
            more = f" and {len(changed) - _SHOWN_FILES} more" if len(changed) > _SHOWN_FILES else ""
            sizes = (f"{sum(file['size_bytes'] for file in each.values()) / 1e6:.1f} MB" for each in (before, after))
            yield Change("model", f"{name} files ({', '.join(changed[:_SHOWN_FILES])}{more})", *sizes)


def _prompt(pairing: Pairing) -> Iterator[Change]:
    """Yield a sentence where pairs were given other token ids."""
    inputs = [(pair.baseline.inputs, pair.candidate.inputs) for pair in pairing.pairs]
    if different := sum(bool(old and new and old != new) for old, new in inputs):
        yield Change("prompt", "", "", f"the prompt's token ids differ at {different} of {len(inputs)} points")


_MOST_TOLD = 3  # differences in a label


def environment_labels(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a label for each environment (the content of environment.json); those that are comparable share one.

    Two are comparable where they do not differ, as for a comparison of two commits.
    """
    known: dict[str, Mapping[str, Any]] = {}
    labels = []
    for environment in environments:
        alike = (label for label, each in known.items() if not environment_differences(each, environment))
        if (label := next(alike, None)) is None:
            machine = label = _machine_text(environment)
            kin = [each for name, each in known.items() if name == machine or name.startswith(f"{machine} #")]
            if kin:  # equal at first sight: what tells them apart is in the details
                told = [each.sentence for each in environment_differences(kin[0], environment)]
                told[_MOST_TOLD:] = ["and more"] if len(told) > _MOST_TOLD else []
                label = f"{machine} #{len(kin) + 1} ({', '.join(told)})"
            known[label] = environment
        labels.append(label)
    return labels


def _machine_text(environment: Mapping[str, Any]) -> str:
    """Return processor, cores, memory and accelerators from the content of environment.json."""
    cpu, memory, system = (environment.get(part) or {} for part in ("cpu", "memory", "system"))
    cores = system.get("cpu_limit_cores") or cpu.get("available_logical_cores") or cpu.get("logical_cores")
    accelerators = [str(each.get("name")) for each in environment.get("accelerators") or ()]
    parts = [
        cpu.get("brand"),
        f"{cores} cores" if cores else None,
        f"{memory['total_gib']} GiB" if memory.get("total_gib") else None,
        *(f"{accelerators.count(name)} × {name}" for name in dict.fromkeys(accelerators)),
    ]
    return ", ".join(part for part in parts if part) or "an unknown machine"
