"""hfbench's own cache folder, whose folders are whole or absent, and what a person sees of slow steps."""

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, say

_SECONDS_BETWEEN_LINES = 10.0


def size_text(size_bytes: float) -> str:
    """Return a size for people, in decimal units as the hub shows them."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} GB" if size_bytes < 1000 else f"{size_bytes:.0f} GB"


def one_line(error: BaseException) -> str:
    """Return an exception's message on one line, short enough for a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} …"


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep what transformers, torch, tqdm and Python's warnings write to standard error away from the person.

    GGUF's dequantisation opens a tqdm bar that no setting of transformers turns off, hence the redirection. torch's log
    has kept the standard error that it was imported with.
    """
    from transformers.utils import logging as transformers_logging

    verbosity, disabled = transformers_logging.get_verbosity(), logging.root.manager.disable
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        transformers_logging.set_verbosity(verbosity)


class DownloadLines:
    """Stands where huggingface_hub expects a tqdm class, and writes a line every ten seconds."""

    def __init__(self, *_: Any, desc: str = "", total: float | None = None, initial: float = 0, **__: Any) -> None:
        self.desc, self.total, self.n = desc, total, initial
        self._last_line = time.monotonic()

    def __enter__(self) -> "DownloadLines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., None]:
        # huggingface_hub also sets postfixes, refreshes and closes, which lines have no use for.
        return lambda *_, **__: None

    def update(self, n: float | None = 1) -> None:
        """Count `n` more bytes."""
        self.n += n or 0
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            say(f"  {self.desc}: {size_text(self.n)}" + (f" of {size_text(self.total)}" if self.total else ""))


_KEY_CHARACTERS = 32  # 128 bits of a sha256


def cache_folder() -> Path:
    """Return $HFBENCH_CACHE, else $XDG_CACHE_HOME/hfbench, else ~/.cache/hfbench; it need not exist yet."""
    if configured := os.environ.get("HFBENCH_CACHE"):
        return Path(configured).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "hfbench"


def key_of(specification: Any) -> str:
    """Return the name of the folder for a specification, which is anything that JSON can hold."""
    text = json.dumps(specification, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_CHARACTERS]


def built_folder(key: str) -> Path:
    """Return where the folder of a key lies, built or not."""
    return cache_folder() / "models" / key


def build_once(key: str, make: Callable[[Path], None], is_whole: Callable[[Path], bool]) -> Path:
    """Return the folder of a key; where it is missing or damaged, `make` fills a temporary one that takes its place.

    Processes that want the same folder wait for the first. One killed half-way leaves only a temporary folder, which
    the next removes. Raises `UserError` where the cache cannot be written or the disk is full.
    """
    folder = built_folder(key)
    if is_whole(folder):
        return folder
    with _errors_of_the_disk(folder), _lock(key):
        if is_whole(folder):  # built by the process that this one waited for
            return folder
        for left_over in folder.parent.glob(f".{key}.*"):
            shutil.rmtree(left_over, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{key}."))
        try:
            make(temporary)
            _open_to_readers(temporary, folder.parent.stat().st_mode)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


@contextmanager
def _lock(key: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = cache_folder() / "locks" / f"{key}.lock"
    for folder in (built_folder(key).parent, path.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(error) from error
    lock = FileLock(path)  # of the operating system: a process that is killed gives it back
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("waiting for another process that is building the same model")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _errors_of_the_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        # safetensors reports a full disk as an exception of its own, with the system's text.
        if number in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            raise UserError(
                f"the disk is full: {folder} could not be written. Free some space, or set HFBENCH_CACHE to a folder "
                "on another disk."
            ) from error
        if isinstance(error, OSError) and number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise _unwritable(error) from error
        raise


def _unwritable(error: OSError) -> UserError:
    return UserError(
        f"hfbench's cache folder {cache_folder()} cannot be written ({error.strerror}). Set HFBENCH_CACHE to one "
        "that can."
    )


def _open_to_readers(temporary: Path, mode: int) -> None:
    """Give a temporary folder, and safetensors' files in it, the readers that the cache has; both are made private."""
    temporary.chmod(mode & 0o777)
    for path in temporary.iterdir():
        path.chmod(mode & 0o666)
