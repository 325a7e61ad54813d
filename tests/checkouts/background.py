"""A command of hfbench that runs while the test does something to it."""

import os
import re
import subprocess
import time
from pathlib import Path

from tests.checkouts.conftest import Bench
from tests.pipeline.checkout import BIN


def start(bench: Bench, folder: Path, *command: str) -> tuple["subprocess.Popen[bytes]", Path]:
    log = folder / "stderr"
    variables = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        **bench.stand_in.variables(bench.pipeline),
    }
    with log.open("wb") as stream:
        process = subprocess.Popen(
            ["python", "-m", "hfbench.cli", *command],
            cwd=bench.pipeline.folder,
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=stream,
        )
    return process, log


def wait_for(process: "subprocess.Popen[bytes]", log: Path, pattern: str) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if re.search(pattern, log.read_text()):
            return
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"it never came to that:\n{log.read_text()}")
