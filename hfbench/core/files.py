"""Files that are either whole or absent, and JSON that a person can read."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError

_INLINE_CHARACTERS = 110  # a list or dictionary that fits is written on one line


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is renamed to `path`, on any error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        error.filename = str(path)  # the name that a person knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as readable JSON, atomically."""
    write_text(path, readable_json(value) + "\n")


def read_json(path: Path, parse: Callable[[bytes], Any] = json.loads) -> Any:
    """Read a JSON file. Raises `UserError` where it is missing or no JSON."""
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run `dvc repro` to make it.") from None
    except ValueError as error:  # JSONDecodeError, or UnicodeDecodeError
        raise UserError(f"{path} is not valid JSON ({error}). Delete it and run `dvc repro`.") from None


def readable_json(value: Any, indent: int = 0) -> str:
    """Return JSON with one key a line, where lists of numbers (samples, token times) stay on one line."""
    inline = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list | tuple) or not value or len(inline) + indent <= _INLINE_CHARACTERS:
        return inline
    if not isinstance(value, dict) and not any(isinstance(item, dict | list | tuple | str) for item in value):
        return inline
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        lines = [
            f"{pad}{json.dumps(str(key), ensure_ascii=False)}: {readable_json(item, indent + 1)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + readable_json(item, indent + 1) for item in value) + "\n" + " " * indent + "]"


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return what the header of a safetensors file says beside its tensors, which are not read.

    Source: https://huggingface.co/docs/safetensors, of the format: 8 bytes hold the size of the JSON that follows.
    """
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return dict(header.get("__metadata__", {}))


def require_readable_lock(path: Path = Path(".dvc/tmp/rwlock")) -> None:
    """Raise `UserError` where DVC's list of what its processes use is broken, as a machine that died leaves it."""
    try:
        content = path.read_bytes()
        json.loads(content)
    except FileNotFoundError:
        return
    except ValueError:
        raise UserError(
            f"DVC cannot start: {path} is broken, as when the machine went down while DVC ran. Nothing measured is "
            f"lost. When no other DVC runs here, delete it: rm {path}"
        ) from None
