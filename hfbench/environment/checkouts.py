"""What is in a folder of source code: its commit, and a digest of what is not committed."""

import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

State = dict[str, str | None]
# Of a larger file only the size counts: it is data or weights, and would be read at every `dvc repro`.
_LARGE_BYTES = 64 * 2**20
# All that a user's git configuration could change is set.
_STATUS_OPTIONS = ("--porcelain=v1", "-z", "--untracked-files=all", "--ignore-submodules=none", "--no-renames")


def checkout_state(path: Path) -> State:
    """Return the `commit` and `uncommitted` of a folder or a file.

    `commit` is the last commit that changed it: commits elsewhere in a repository do not count. `uncommitted` is a
    sha256 over the content of each file that differs from the commit or is neither committed nor ignored, or None
    where there is no such file. Outside git, `commit` is None and `uncommitted` is over all Python files.
    """
    folder, name = (path, ".") if path.is_dir() else (path.parent, path.name)
    commit = _git(folder, "rev-list", "-1", "HEAD", "--", name)
    top = _git(folder, "rev-parse", "--show-toplevel")
    changes = _git(folder, "status", *_STATUS_OPTIONS, "--", name)
    if not commit or top is None or changes is None:  # no git, no repository, or one that does not hold this folder
        base = path if path.is_dir() else path.parent
        return {"commit": None, "uncommitted": _digest(base, _python_files(path))}
    root = Path(os.fsdecode(top.rstrip(b"\n")))
    changed = [root / os.fsdecode(entry[3:]) for entry in changes.split(b"\0") if entry]
    return {"commit": commit.decode().strip(), "uncommitted": _digest(root, changed)}


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return git's output, or None where git is missing or fails."""
    # A git hook that runs `dvc repro` sets GIT_DIR, which would stand before the folder.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "--literal-pathspecs", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, env=variables).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def _python_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, folders, files in os.walk(path):
        # Virtual environments and build folders within a project are not its code.
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("build", "site-packages")]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _digest(base: Path, paths: Iterable[Path]) -> str | None:
    """Return a sha256 over names (relative to `base`) and contents, in the order of names; None without any file."""
    lines = sorted(f"{path.relative_to(base).as_posix()} {_content(path)}\n" for path in paths if not _is_cache(path))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest() if lines else None


def _is_cache(path: Path) -> bool:
    """Whether Python makes the file by itself, even in a repository that does not ignore it."""
    return path.suffix == ".pyc" or "__pycache__" in path.parts


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    if path.is_dir():  # a submodule, or a repository within this one
        return str(checkout_state(path))
    if not path.is_file():
        return "deleted"
    if path.stat().st_size > _LARGE_BYTES:
        return f"{path.stat().st_size} bytes"
    return hashlib.sha256(path.read_bytes()).hexdigest()
