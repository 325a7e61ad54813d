"""sha256 of files; those of big files are remembered until the file changes."""

import contextlib
import hashlib
from pathlib import Path

from hfbench.foundation.errors import UserError
from hfbench.foundation.files import read_json, write_json
from hfbench.models.cache import cache_folder
from hfbench.models.progress import say, size_text

REMEMBERED_FROM_BYTES = 4_000_000  # reading less takes no longer than looking the hash up
_ANNOUNCED_FROM_BYTES = 2_000_000_000  # some seconds of work


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """Return the sha256 over the paths and contents of a folder's files, compiled Python left out.

    Raises `UserError` where there is none.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not files:
        raise UserError(f"kernels names the folder {folder}, in which there is no file. Build the kernel there.")
    lines = "".join(f"{path.relative_to(folder).as_posix()}\0{remembered_sha256(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def remembered_sha256(path: Path) -> str:
    """Return the sha256 of a file, without reading it where its path, size and mtime are those of the last time."""
    real = path.resolve()
    status = real.stat()  # before the reading: a change meanwhile then shows as another mtime next time
    if status.st_size < REMEMBERED_FROM_BYTES:
        return sha256_of(real)
    identity = {"path": str(real), "size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
    note = cache_folder() / "hashes" / f"{hashlib.sha256(str(real).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(UserError, AttributeError, OSError):
        remembered = read_json(note)
        if {key: remembered.get(key) for key in identity} == identity:
            return str(remembered["sha256"])
    if status.st_size >= _ANNOUNCED_FROM_BYTES:
        say(f"hashing {path.name} ({size_text(status.st_size)})")
    sha256 = sha256_of(real)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the result
        write_json(note, {**identity, "sha256": sha256})
    return sha256
