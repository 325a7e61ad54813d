"""The prompt: a text file, read exactly, with its content address."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hfbench.foundation.errors import UserError


@dataclass(frozen=True)
class Prompt:
    """A text; `file_name` has no folder in it, because equal inputs must be equal bytes on every machine."""

    text: str
    file_name: str
    sha256: str


def read_prompt(path: Path) -> Prompt:
    """Read a prompt, line ends as they are. Raises `UserError` where it is missing, empty or not UTF-8."""
    remedy = "Set prompt in params.yaml to a UTF-8 text file"
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"the prompt {path} does not exist. {remedy}.") from None
    except IsADirectoryError:
        raise UserError(f"the prompt {path} is a folder. {remedy}.") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt {path} is not UTF-8: {error.reason} at byte {error.start}. {remedy}.") from None
    if not text.strip():
        raise UserError(f"the prompt {path} is empty. {remedy} with some words in it.")
    return Prompt(text=text, file_name=path.name, sha256=hashlib.sha256(content).hexdigest())
