"""What keeps one measurement from reaching the next: a process, an environment and compile caches of its own."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfbench.core.record import Manifest
from hfbench.core.results import manifest_path
from hfbench.measure.task import Task
from hfbench.workers.forked import FORKED, FRESH, ForkedWorker, RefusedError, fork_worker, worker_variables

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


USER_ERROR = "user_error"  # in the place of a status: who runs this must act before anything can be measured


class Reporter:
    """The worker's end. Times are seconds since the measure stage began, on the clock that both processes share.

    Nothing is written between two reads of the clock: reports come before and after an iteration, never in it.
    """

    def __init__(self, descriptor: int, clock_zero: float) -> None:
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
        self._clock_zero = clock_zero
        self._lock = threading.Lock()

    def silence(self) -> None:
        """Report nothing from now on, and let the pipe go: in another process that began as this one."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._pipe.fileno())
        os.close(nowhere)

    def since_start(self, clock: float) -> float:
        """Turn a reading of `time.perf_counter` into seconds since the stage began."""
        return round(clock - self._clock_zero, 9)

    def phase(self, name: str) -> None:
        """Say that a phase begins now."""
        self._send({"event": "phase", "name": name, "at": self.since_start(time.perf_counter())})

    def update(self, **fields: Any) -> None:
        """Give values to fields of the record."""
        self._send({"event": "update", "fields": fields})

    def iteration(self, content: dict[str, Any]) -> None:
        """Report one iteration, in the JSON form of `hfbench.core.record.Iteration`."""
        self._send({"event": "iteration", "iteration": content})

    def end(self, status: str, reason: str | None = None) -> None:
        """Say how the measurement ended; nothing follows."""
        self._send({"event": "end", "status": status, "reason": reason})

    def user_error(self, message: str) -> None:
        """Say that the user must act before anything can be measured; the stage ends without a record."""
        self._send({"event": "user_error", "message": message})

    def _send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._pipe.write(json.dumps(message) + "\n")


# The variables that change what is measured, set by `worker_variables` or kept as they are; the record holds them.
SETTINGS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTHONHASHSEED",
    "TOKENIZERS_PARALLELISM",
    "HF_HUB_OFFLINE",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",  # which torch prefers to the name that all devices share
    "PYTORCH_HIP_ALLOC_CONF",
)
_WORKER: tuple[str, ...] = ("hfbench.measure.worker",)  # module, and arguments before the worker's own
_FORKED = "hfbench.measure.worker:measure_forked"


@dataclass(frozen=True)
class Worker:
    """A worker that was started: its process, the end of the pipe that its reports arrive on, and how it began."""

    process: "subprocess.Popen[bytes] | ForkedWorker"
    reports: int
    start: str


def start_worker(
    task: Task, scratch: Path, clock_zero: float, owner: int | None, wait: Callable[[int], None], *arguments: str
) -> Worker:
    """Start the worker in a session of its own, forked where it may be.

    Its standard output and error go to `task.log`. `scratch` is a folder that the caller removes afterwards; the
    worker's compile caches are in it. `arguments` are those of the worker beside the pipe and the clock. For `owner`
    and `wait` see `fork_worker`; without an owner it is not forked.
    """
    variables = worker_environment(task, scratch)
    read_end, write_end = os.pipe()
    try:
        with task.log.open("wb") as log:
            try:
                given = {"task": task.to_json(), "clock_zero": clock_zero, "arguments": arguments}
                forked = fork_worker(_FORKED, given, variables, (write_end, log.fileno()), owner, wait)
                return Worker(forked, read_end, FORKED)
            except RefusedError as error:
                process = subprocess.Popen(
                    [sys.executable, "-m", *_WORKER, str(write_end), repr(clock_zero), *arguments],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=[write_end],
                    start_new_session=True,
                    env=variables,
                )
                start = f"{FRESH}: {error}"
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(json.dumps(task.to_json()).encode())
    return Worker(process, read_end, start)


def worker_environment(task: Task, scratch: Path) -> dict[str, str]:
    """Return the worker's environment variables: those of any, and caches of its own."""
    return {
        # Weights come from a folder; only hub kernels may be fetched, and only where the point needs some.
        **worker_variables(is_offline=not _needs_hub(task)),
        # Ranks are forked, and a package that asks for CUDA when it is imported, as torchao does, would open it.
        **({"PYTORCH_NVML_BASED_CUDA_CHECK": "1"} if task.configuration.tp_size > 1 else {}),
        # Compile caches of its own: nothing of an earlier configuration is reused.
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
        # Inductor keeps precompiled C++ headers there, whatever its cache folder is.
        "TMPDIR": str(scratch),
    }


def end_process_group(process: "subprocess.Popen[bytes] | ForkedWorker", grace_seconds: float) -> None:
    """Wait up to `grace_seconds` for the worker to end, then kill it and whatever it started."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.01)


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory since it started; 0 where it does not tell."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


# Ways of quantising whose products are kernels of the hub (transformers 5.22, `integrations/`).
_HUB_METHODS = {"eetq", "fbgemm_fp8", "fp8", "metal", "mxfp4", "mxfp8", "nvfp4"}


def _needs_hub(task: Task) -> bool:
    point, manifest = task.configuration, manifest_path(task.configuration.model)
    methods = {(task.settings.quantization or {}).get("quant_method")}
    if manifest.exists():
        methods.add(Manifest.load(manifest).quant_method)
    return point.use_kernels or "/" in point.attn_implementation or bool(methods & _HUB_METHODS)
