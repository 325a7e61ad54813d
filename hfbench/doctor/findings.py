"""What a check of the machine finds."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning"]


@dataclass(frozen=True)
class Finding:
    """One result: `what` in a sentence, `remedy` as a command or an instruction, if there is one.

    A warning is likely to change what is measured, or stops it; a note is worth knowing when numbers are read.
    """

    level: Level
    what: str
    remedy: str | None = None
