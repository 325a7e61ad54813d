"""What pydantic finds wrong in params.yaml, said in sentences."""

import difflib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from hfbench.foundation.settings import KERNEL_TAGS, LENGTHS_TAGS
from hfbench.foundation.sources import Source

_SOURCE_NAMES = tuple(get_args(source.model_fields["source"].annotation)[0] for source in get_args(Source))
_TAGS = {*_SOURCE_NAMES, *KERNEL_TAGS, *LENGTHS_TAGS}  # pydantic names the alternative that it tried


def sentence(path: Path, detail: ErrorDetails, root: type[BaseModel]) -> str:
    """Turn one error of pydantic into a sentence: the key, the value, what is allowed. `root` is the whole schema."""
    location = [part for part in detail["loc"] if not (isinstance(part, str) and part in _TAGS)]
    key = ".".join(str(part) for part in location)
    given, kind, message = detail["input"], detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        return f"{path}: {key} is not a key that hfbench knows. {_did_you_mean(location, root)}"
    if kind == "missing":
        return f"{path}: {key} is missing. {_allowed(location)}".strip()
    if kind == "value_error":
        message = f"expected {detail['ctx']['error']}"
    elif kind.startswith("union_tag"):
        key, given = f"{key}.source", given.get("source") if isinstance(given, dict) else given
        message = f"expected one of {', '.join(_SOURCE_NAMES)}"
    else:
        message = message.replace("Input should be", "expected").replace("Input", "expected something that")
    return f"{path}: {key} is {given!r}; {message}."


def _did_you_mean(location: list[Any], root: type[BaseModel]) -> str:
    section: Any = root
    for part in location[:-1]:
        if isinstance(part, int):
            section = get_args(section)[0]
        elif not _is_section(section):
            break
        else:
            section = section.model_fields[part].annotation
    if not _is_section(section):
        return "Remove it."
    known = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Expected one of: {', '.join(known)}."


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _allowed(location: list[Any]) -> str:
    return "Add it as a list of at least one value." if location[0] == "sweep" else "Add it."
