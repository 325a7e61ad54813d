"""The folder of one measurement's temporary files: fresh, and gone afterwards, also after a kill."""

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "hfbench-measure-"
_LOCK = "lock"
_SETTLED_SECONDS = 60  # a folder younger than this may not have its lock yet


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder under the temporary folder; first remove those whose measurements were killed.

    Who uses a folder holds a lock in it, which the kernel lets go when that process ends, however it ends.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "files").mkdir()
            yield folder / "files"


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < _SETTLED_SECONDS:
                continue
            with (folder / _LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # in use, another user's, or removed by another measurement just now
            continue
