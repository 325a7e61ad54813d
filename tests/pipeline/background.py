"""A `dvc repro` that runs while the test does something to it."""

import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from tests.measure.stage_process import is_worker
from tests.pipeline.checkout import Checkout

T = TypeVar("T")


@dataclass(frozen=True)
class Running:
    """A command in a clone, in a process group of its own, as a shell starts it."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    stderr: Path

    def worker(self, seconds: float = 60) -> psutil.Process:
        """Wait for a worker of the clone."""
        found = wait_until(lambda: [item for item in processes_in(self.folder) if is_worker(item)], seconds, self)
        return found[0]

    def wait_for_phase(self, phase: str, seconds: float = 60) -> None:
        """Wait until a worker says that it begins this phase."""
        self.wait_for(rf"  {phase}\n", seconds)

    def wait_for(self, pattern: str, seconds: float = 90) -> None:
        """Wait until a pattern is found in what the command says."""
        wait_until(lambda: re.search(pattern, self.stderr.read_text()), seconds, self)


def start(checkout: Checkout, log: Path, *command: str, **environment: str) -> Running:
    """Start a command in the clone with the variables of `Checkout.run`; `log` takes its standard error."""
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            cwd=checkout.folder,
            env={**checkout.variables(), **environment},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    return Running(process, checkout.folder, log)


def processes_in(folder: Path) -> list[psutil.Process]:
    """Return the processes whose working directory is `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder.resolve()):
                found.append(process)
        except psutil.Error:
            continue  # it has ended, or is another user's
    return found


def wait_until(condition: Callable[[], T], seconds: float, running: Running) -> T:
    """Return what `condition` gives as soon as that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if running.process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"it never came to that:\n{running.stderr.read_text()}")
