"""One measurement at a time on a device: a lock that all processes of the machine share.

Two at a time would halve what each finds, and neither would know. Whoever ends, however, lets its lock go.
"""

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hfbench.core.errors import UserError, say

_FOLDERS = (Path("/run/lock"), Path("/tmp"))  # whatever TMPDIR says; the first is on some systems for root alone
_CHOSEN = "HFBENCH_LOCKS"  # names another folder
_POLL_SECONDS = 0.2
_MOST_BYTES = 1000  # of what the holder says of itself


def lock_folder() -> Path:
    """Return the folder of the locks, which is the same for every user of the machine.

    Raises `UserError` where the one that was chosen cannot be written to.
    """
    if chosen := os.environ.get(_CHOSEN):
        if not os.access(chosen, os.W_OK | os.X_OK):
            raise UserError(f"{_CHOSEN} is {chosen}, where no file can be made. Name a folder that may be written to.")
        return Path(chosen)
    shared = (folder for folder in _FOLDERS if folder.is_dir() and folder.stat().st_mode & stat.S_IWOTH)
    return next((folder for folder in shared if os.access(folder, os.W_OK)), Path(tempfile.gettempdir()))


@dataclass(frozen=True)
class Turn:
    """The devices that a process has alone, of those that would do, and the seconds that it waited for them."""

    devices: tuple[str, ...]
    waited_seconds: float


@contextmanager
def turn(
    devices: Sequence[str],
    who: str,
    say: Callable[[str], None] = say,
    check: Callable[[], None] = lambda: None,
    wanted: int = 1,
) -> Iterator[Turn]:
    """Hold as many of the devices as are wanted alone inside, as soon as no other process has them.

    Of several that are free it is the one that was used from this folder before, so that what is compared was measured
    on one, or else the one that was left alone for longest. The names are the same for all processes; `who` says what
    this one is for, to those that wait. `say` is told once for whom this one waits, and `check` is called while it
    does; what it raises ends the wait.
    """
    locks = {_open(lock_folder() / f"hfbench-{device}.lock"): device for device in devices}
    whose = f" in {Path.cwd()}"
    try:
        order = sorted(locks, key=lambda lock: (not _holder(lock).endswith(whose), os.fstat(lock).st_mtime))
        held, waited = _wait(order, wanted, say, check)
        for lock in held:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()}, {who}{whose}".encode()[-_MOST_BYTES:], 0)
        yield Turn(tuple(locks[lock] for lock in held), waited)
    finally:
        for descriptor in locks:
            os.close(descriptor)  # and with it the lock


def _holder(lock: int) -> str:
    """Return what the process that has the lock, or had it last, says of itself."""
    return os.pread(lock, _MOST_BYTES, 0).decode(errors="replace")


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


def _wait(
    locks: Sequence[int], wanted: int, say: Callable[[str], None], check: Callable[[], None]
) -> tuple[list[int], float]:
    start, has_told = time.perf_counter(), False
    while True:
        held = list[int]()
        for lock in locks:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(lock)
            if len(held) == wanted:
                return held, time.perf_counter() - start if has_told else 0.0
        for lock in held:  # two that wait for each other's would wait for ever
            fcntl.flock(lock, fcntl.LOCK_UN)
        if not has_told:
            holders = [_holder(lock) or "another process" for lock in locks]
            one_of = "the device" if len(locks) == 1 else f"{wanted if wanted > 1 else 'one'} of {len(locks)} devices"
            say(f"waiting for {one_of}, which {'; '.join(holders)} ha{'s' if len(locks) == 1 else 've'}")
            has_told = True
        check()
        time.sleep(_POLL_SECONDS)
