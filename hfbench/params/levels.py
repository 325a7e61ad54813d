"""Coverage presets: which ways of running a model each level measures; and params.yaml edited in place.

Source of the levels: `get_config_by_level` in huggingface/transformers, benchmark_v2/framework/benchmark_config.py;
docs/levels.md says what differs.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from hfbench.core.errors import UserError
from hfbench.core.files import write_text
from hfbench.core.point import AXIS_TABLE, CONFIGURATION_AXES
from hfbench.git import try_git
from hfbench.params.schema import checked_params, load_params, read_yaml

# Strings that need no quotes, here and in the older YAML of other readers, to which `off` is false.
_PLAIN = re.compile(r"(?!(?:off|on|yes|no|y|n|true|false|null)$)[A-Za-z][\w./-]*", re.ASCII | re.IGNORECASE)


def rewrite(path: Path, values: Mapping[str, Any]) -> bool:
    """Replace values in params.yaml, by dotted keys (`sweep.round`); return whether anything changed.

    Not a byte changes besides: a round trip through ruamel, as DVC's own `-S` makes it, would write all other lines in
    one style, and drop comments (in 0.19 a line above an entry that has a comment behind it too).

    A list of mappings gets a line an item, and anything else stands on one line. Raises `UserError`, and writes
    nothing, where a key is not there or the result is not what `hfbench check` accepts.
    """
    content = read_yaml(path)
    text = path.read_text(encoding="utf-8")
    changed = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        section = reduce(lambda section, name: section.get(name) or {}, parents, content)
        if last not in section:
            raise UserError(f"{path} has no key {key}, which is to be {_flow(value)}. Add it.")
        if section[last] != value:
            section[last] = changed[key] = value
    checked_params(path, content)
    new = text
    try:
        for key, value in changed.items():
            new = _replaced(new, key.split("."), value)
        is_right = YAML(typ="safe").load(new) == content  # not where an alias stands for one of them
    except (YAMLError, KeyError):
        is_right = False
    if not is_right:
        raise UserError(f"{path}: cannot replace {', '.join(changed)} as written there. Write the values out plainly.")
    if new != text:
        write_text(path, new)
    return new != text


def _replaced(text: str, keys: list[str], value: Any) -> str:
    """Return YAML with one value replaced; a comment behind it keeps its column where there is room."""
    key, node = _find(YAML(typ="safe", pure=True).compose(text), keys)
    start: int = node.start_mark.index
    end = _end(node)
    if start == end:  # a null that is not written out, which YAML takes to stand farther down
        start = end = int(key.end_mark.index) + 1
    new = _written(value, key.start_mark.column)
    between = text[key.end_mark.index : start]  # a colon, space, perhaps a comment
    if new.startswith("\n"):
        start -= len(between) - len(between.rstrip())
    elif re.fullmatch(r":\s*", between):
        start, new = key.end_mark.index + 1, f" {new}"
    else:
        # On a line of its own YAML wants it farther in than its key; the dashes of a list may stand below the key.
        new = " " * max(0, key.start_mark.column + 2 - node.start_mark.column) + new
    gap = re.match(r" +(?=#)", text[end:])
    if gap and "\n" not in new + text[start:end]:
        after = end + len(gap[0])
        return text[:start] + new + " " * max(1, after - start - len(new)) + text[after:]
    return text[:start] + new + text[end:]


def _find(node: Node, keys: list[str]) -> tuple[Node, Node]:
    """Return the nodes of the key and of its value."""
    found = {key.value: (key, value) for key, value in node.value}[keys[0]]
    return found if len(keys) == 1 else _find(found[1], keys[1:])


def _end(node: Node) -> int:
    """Return where the text of a value ends; YAML counts the comments below a block as its own."""
    if isinstance(node, SequenceNode | MappingNode) and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, MappingNode) else last)
    return int(node.end_mark.index)


def _written(value: Any, key_column: int) -> str:
    """Return the value as YAML behind a key that begins in this column."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return "".join(f"\n{' ' * (key_column + 2)}- {_flow(item)}" for item in value)
    return _flow(value)


def _flow(value: Any) -> str:
    """Return YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value)


def way_back(path: Path) -> str | None:
    """Return the command that brings the file back as it is now; None where git does not keep it.

    What is not committed becomes an object of git, as `git add` would make it, without being added.
    """
    folder, name = path.resolve().parent, path.name
    kept = try_git(folder, "hash-object", "-w", "--", name)
    if kept is None:
        return None
    in_index = try_git(folder, "rev-parse", "--quiet", "--verify", f":./{name}")
    return f"git checkout {path}" if kept == in_index else f"git cat-file blob {kept} > {path}"


@dataclass(frozen=True)
class Way:
    """A way of running a model: a value of each axis that a level sets."""

    attn_implementation: str
    compile_mode: str = "off"
    use_kernels: bool = False
    continuous_batching: bool = False


_FLEX, _FLASH = "flex_attention", "flash_attention_2"
_ADDED = (
    (Way(_FLEX, "default"),),
    (Way(_FLASH), Way("eager", "default"), Way(_FLASH, continuous_batching=True)),
    (
        Way("sdpa", "default"),
        Way(_FLEX, "default", use_kernels=True),
        Way(_FLASH, use_kernels=True),
        Way("sdpa", continuous_batching=True),
    ),
)
_CROSSED: dict[str, list[Any]] = {
    "attn_implementation": [_FLASH, "eager", "sdpa", _FLEX],
    "compile_mode": ["off", "default"],
    "use_kernels": [False, True],
    "continuous_batching": [False, True],
}
LEVELS = range(5)


def crossed_axes(level: int) -> dict[str, list[Any]] | None:
    """Return the axes of which a level is the cross product, None where it is none."""
    if level < len(_ADDED):
        return None
    return _CROSSED if level == len(_ADDED) else {**_CROSSED, "compile_mode": list(AXIS_TABLE["compile_mode"].values)}


def ways(level: int) -> list[Way]:
    """Return the ways of running a model that a level measures."""
    axes = crossed_axes(level)
    if axes is None:
        return [way for added in _ADDED[: level + 1] for way in added]
    return [Way(*values) for values in product(*axes.values())]


def write_level(level: int, path: Path) -> int:
    """Write a level into params.yaml, and return how many configurations it is.

    The other axes keep their values, of which each way has all combinations; so does all else but `configurations:`.
    Raises `UserError` where an axis of those is empty, or the file is not as it should be.
    """
    sweep = load_params(path).sweep.model_dump()
    empty = next((axis for axis, values in sweep.items() if not values and axis not in _CROSSED), None)
    if empty is not None:
        raise UserError(f"{path}: sweep.{empty} is empty, and a level is measured for each of its values. Add one.")
    others = {axis: sweep[axis] for axis in CONFIGURATION_AXES if axis not in _CROSSED}
    entries = [
        dict(zip(others, values, strict=True)) | asdict(way)
        for values in product(*others.values())
        for way in ways(level)
    ]
    if axes := crossed_axes(level):
        rewrite(path, {**{f"sweep.{axis}": values for axis, values in axes.items()}, "configurations": []})
    else:
        in_order = [{axis: entry[axis] for axis in CONFIGURATION_AXES} for entry in entries]
        rewrite(path, {"sweep.attn_implementation": [], "configurations": in_order})
    return len(entries)
