"""Where two nested contents differ, leaf by leaf."""

from collections.abc import Mapping
from typing import Any, NamedTuple

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
