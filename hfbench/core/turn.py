"""One measurement at a time on a device: a lock that all processes of the machine share.

Two at a time would halve what each finds, and neither would know. Whoever ends, however, lets its lock go.
"""

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from hfbench.core.errors import say

_FOLDERS = (Path("/run/lock"), Path("/tmp"))  # whatever TMPDIR says; the first is on some systems for root alone
_CHOSEN = "HFBENCH_LOCKS"  # names another folder
_POLL_SECONDS = 0.2
_MOST_BYTES = 1000  # of what the holder says of itself


def lock_folder() -> Path:
    """Return the folder of the locks, which is the same for every user of the machine."""
    if chosen := os.environ.get(_CHOSEN):
        return Path(chosen)
    shared = (folder for folder in _FOLDERS if folder.is_dir() and folder.stat().st_mode & stat.S_IWOTH)
    return next(shared, Path(tempfile.gettempdir()))


def shared_name(kind: str, index: int, variables: Mapping[str, str] = os.environ) -> str:
    """Return what all processes call a device: its kind, and the number or UUID that the driver has for it."""
    if kind == "cpu":
        return kind
    visible = [item.strip() for item in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if item.strip()]
    return f"{kind}-{visible[index] if kind == 'cuda' and index < len(visible) else index}"


@contextmanager
def turn(
    device: str,
    who: str,
    say: Callable[[str], None] = say,
    check: Callable[[], None] = lambda: None,
) -> Iterator[float]:
    """Hold the device alone inside, as soon as no other process does; yield the seconds that this took.

    `device` is its `shared_name`; `who` says what this process is for, to those that wait. `say` is told once for
    whom this one waits, and `check` is called while it does; what it raises ends the wait.
    """
    descriptor = _open(lock_folder() / f"hfbench-{device}.lock")
    try:
        waited = _wait(descriptor, say, check)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}, {who}".encode()[:_MOST_BYTES], 0)
        yield waited
    finally:
        os.close(descriptor)  # and with it the lock


def _open(path: Path) -> int:
    # In a folder that is sticky, Linux lets nobody open with O_CREAT what another user made (fs.protected_regular).
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDWR):
        try:
            descriptor = os.open(path, flags, 0o666)
        except (FileNotFoundError, FileExistsError):
            continue
        if flags & os.O_CREAT:
            os.fchmod(descriptor, 0o666)  # whatever the umask is: others have to say that they hold it
        return descriptor
    raise FileNotFoundError(path)


def _wait(descriptor: int, say: Callable[[str], None], check: Callable[[], None]) -> float:
    start, has_told = time.perf_counter(), False
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return time.perf_counter() - start if has_told else 0.0
        if not has_told:
            whom = os.pread(descriptor, _MOST_BYTES, 0).decode(errors="replace") or "another process"
            say(f"waiting for the device, which {whom} has")
            has_told = True
        check()
        time.sleep(_POLL_SECONDS)
