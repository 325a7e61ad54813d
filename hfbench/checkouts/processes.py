"""Commands that end, with all that they started, before whatever interrupted this one goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

from hfbench.git import ENDS_BY

HERE = Path(sys.executable)
_GRACE_SECONDS = 10.0  # for DVC and a measurement to end in order after an interrupt


def run_to_end(command: Sequence[str], output: IO[bytes] | None = None, python: Path = HERE) -> int:
    """Run a command with the variables of a stage and return its exit status; `output` takes all that it prints.

    `python` is the interpreter that stages run with.

    Where this process is interrupted meanwhile, the command and its process group are interrupted, and gone when the
    interruption is raised: what is put back after it is not changed again.
    """
    process = subprocess.Popen(
        command,
        env=stage_variables(os.environ, python),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        process_group=0,
    )
    try:
        return process.wait()
    except BaseException:
        _end_group(process)
        raise


def stage_variables(variables: Mapping[str, str], python: Path = HERE) -> dict[str, str]:
    """Return the variables for DVC and for stages: `python` is that one, and no variable of git points elsewhere.

    A git hook sets variables that would stand before the folder that git is asked about.
    """
    kept = {name: value for name, value in variables.items() if not name.startswith("GIT_")}
    path = os.pathsep.join([str(python.parent), *filter(None, [variables.get("PATH")])])
    return {**kept, "PATH": path, "HFBENCH_TABLE": "off"}


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Turn the signals that end a process (a closed terminal, a cancelled job) into `SystemExit` while this lasts."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in ENDS_BY}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline:
            process.poll()  # or the group would live on in a process that nobody waits for
            try:
                os.killpg(process.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(0.02)
