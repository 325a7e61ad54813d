"""Workers that are forked from one process, which has imported the libraries: asking for one, where that is safe.

Importing torch and transformers takes seconds, and a run of DVC does it once: each stage that needs them works in a
process that is forked from the one which has. What a worker computes with, and whom it ends with, is here as well.
"""

import ctypes
import hashlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from hfbench.core.errors import UserError, run
from hfbench.core.system import FILESYSTEM, code_sha256, installed_packages, read_text, thread_variables

CHOSEN = "HFBENCH_WORKERS"  # auto: forked where DVC runs the stage; forked: by whomever it is run; fresh
AUTO, FORKED, FRESH = "auto", "forked", "fresh"
_BY_DVC = "DVC_STAGE"  # which DVC sets for the commands that it runs
MESSAGE_BYTES = 2**20  # at most; that is mostly environment variables
SERVER: tuple[str, ...] = ("hfbench.workers.forkserver",)  # module, and arguments before the server's own
# Each worker has its own, and the libraries read them when they need them, and not when they are imported.
_OF_WORKER = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TMPDIR", _BY_DVC)
_ROOMS = ("core", "workers")  # whose code the server runs; what a worker runs beside, it imports itself
# By these a debugger or profiler of CUDA rides along in each process.
_INJECTED = ("CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH")
# With these a library writes a line at each operation, which takes time.
_LOG_OF_OPERATIONS = re.compile(
    r"(MKL|DNNL|ONEDNN|ROCBLAS)_VERBOSE|(CUDNN|CUBLAS)_LOG(INFO|LEVEL|DEST)\w*|(CUDNN_FRONTEND|CUBLASLT|HIPBLASLT|AMD)_LOG_\w+"
    r"|MIOPEN_(ENABLE_LOGGING\w*|LOG_LEVEL)|NCCL_DEBUG\w*"
)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SHELLS = {"sh", "ash", "bash", "csh", "dash", "elvish", "fish", "ksh", "mksh", "nu", "pwsh", "tcsh", "xonsh", "zsh"}


@cache
def parents() -> list[psutil.Process]:
    """Return the processes that this one works for: shells that run one command, and last what started them."""
    found: list[psutil.Process] = []
    with suppress(psutil.Error):
        for parent in psutil.Process().parents():
            found.append(parent)
            if parent.name() not in _SHELLS or "-c" not in parent.cmdline():
                break
    return found


@cache
def watch_parents() -> list[int]:
    """Return descriptors that become readable when a process that this one works for ends; none but on Linux.

    A signal to DVC alone ends DVC and not the stage that it started through `sh -c`: without this, a measurement would
    go on with nobody to take its result.
    """
    descriptors: list[int] = []
    if sys.platform == "linux":
        with suppress(OSError):
            descriptors += (os.pidfd_open(parent.pid) for parent in parents())
    return descriptors


def end_with_parents() -> None:
    """Exit where a process that this one works for has ended."""
    if select.select(watch_parents(), (), (), 0)[0]:
        sys.exit("hfbench: the process that started this stage is gone; nothing was recorded")


def die_with_parent(parent: int | None = None) -> None:
    """Have Linux kill this process when the one that started it is gone, however that ended.

    `parent` is that one's number, where it is known from before this process was there.
    """
    if sys.platform == "linux":
        parent = os.getppid() if parent is None else parent
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def wait_readable(descriptor: int, seconds: float | None = None) -> None:
    """Wait until the descriptor is readable, and exit where a process that this one works for ends before.

    Raises `TimeoutError` after so many seconds.
    """
    ready = select.select([descriptor, *watch_parents()], (), (), seconds)[0]
    end_with_parents()
    if not ready:
        raise TimeoutError


def worker_variables(*, is_offline: bool = True) -> dict[str, str]:
    """Return the environment variables of a process that computes: the ambient ones, and what is not left to chance."""
    return {
        **{name: value for name, value in os.environ.items() if not _LOG_OF_OPERATIONS.fullmatch(name)},
        **thread_variables(),
        "PYTORCH_ALLOC_CONF": os.environ.get("PYTORCH_ALLOC_CONF", ""),
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "KINETO_LOG_LEVEL": "99",  # else torch's profiler notes in the log that it started and stopped
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_OFFLINE": "1" if is_offline else os.environ.get("HF_HUB_OFFLINE", "0"),
    }


class RefusedError(Exception):
    """The worker is to start by itself; the message says why."""


def refuse_unsafe(variables: Mapping[str, str], root: Path = FILESYSTEM) -> None:
    """Raise `RefusedError` where the workers of this stage process may not be forked, `UserError` on a bad choice."""
    chosen = variables.get(CHOSEN) or AUTO
    if chosen not in (AUTO, FORKED, FRESH):
        raise UserError(f"{CHOSEN} is {chosen!r}. Expected {AUTO}, {FORKED} or {FRESH}: set it to one, or unset it.")
    if chosen == FRESH:
        raise RefusedError(f"{CHOSEN} is {FRESH}")
    if sys.platform != "linux":
        raise RefusedError("fork is safe on Linux only")
    if chosen == AUTO and _BY_DVC not in variables:
        raise RefusedError("the stage was not started by DVC")
    status = read_text(root / "proc/self/status") or ""
    is_traced = sys.gettrace() or sys.getprofile() or "TracerPid:\t0" not in status
    if is_traced or any(name in variables for name in _INJECTED):
        raise RefusedError("a debugger or a profiler is attached")


class ForkedWorker:
    """A worker that the server forked, as `subprocess.Popen` presents a process."""

    def __init__(self, connection: socket.socket, pid: int, returncode: int | None = None) -> None:
        self._connection = connection
        self.pid = pid
        self.returncode = returncode

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the worker has ended."""
        return self._connection.fileno()

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status, negative for a signal. Raises `subprocess.TimeoutExpired` where it has none yet."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                answer = _receive(self._connection)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("a forked worker", timeout or 0.0) from None
            # Where the server was killed, the kernel kills the worker.
            self.returncode = answer["returncode"] if answer else -signal.SIGKILL
        return self.returncode


def fork_worker(
    target: str,
    given: Mapping[str, Any],
    variables: Mapping[str, str],
    descriptors: tuple[int, int],
    owner: int | None,
    wait: Callable[[int], None],
    *,
    starts_server: bool = True,
) -> ForkedWorker:
    """Return a worker that the server forked; the server is started where there is none.

    The worker calls `target`, as MODULE:FUNCTION, in this folder and with these variables, with its descriptor of the
    first of `descriptors`, to report on, and with what is `given`; all that it prints goes to the second. The server
    ends with the process of the pidfd `owner`. `wait` is called to wait until a descriptor is readable; what it raises
    gives the worker up. Raises `RefusedError`.
    """
    refuse_unsafe(os.environ)
    if owner is None:
        raise RefusedError("nobody is known whom a server of workers could end with")
    request = {"target": target, "given": given, "variables": variables, "folder": str(Path.cwd())}
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _ask(connection, request, owner, descriptors, starts_server=starts_server)
        wait(connection.fileno())
        answer = _receive(connection) or {"refused": "the server ended"}
        if "refused" in answer:
            raise RefusedError(answer["refused"])
        return ForkedWorker(connection, answer["pid"], answer.get("returncode"))
    except BaseException:
        connection.close()  # by which the server kills the worker
        raise


def _ask(
    connection: socket.socket,
    request: Mapping[str, Any],
    owner: int,
    descriptors: tuple[int, int],
    *,
    starts_server: bool,
) -> None:
    try:
        address = _address(request["variables"], owner)
        try:
            connection.connect(address)
        except OSError:
            if not starts_server:
                raise
            _start_server(address, owner, request["variables"])
            connection.connect(address)
        if user_of(connection) != os.getuid():
            raise RefusedError("another user has the socket")
        socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
    except (OSError, psutil.Error) as error:
        raise RefusedError(str(error)) from error


def _receive(connection: socket.socket) -> Any:
    """Return the next message, or None where the other end is gone."""
    try:
        message = connection.recv(MESSAGE_BYTES)
    except ConnectionError:
        return None
    return json.loads(message) if message else None


def _address(variables: Mapping[str, str], owner: int) -> str:
    """Return the name of the server's socket, which is no file and is gone with the server."""
    process = psutil.Process(_pid_of(owner))
    known = {
        "owner": [process.pid, process.create_time()],
        "user": os.getuid(),
        "interpreter": [sys.executable, sys.version, sys.prefix],
        "limits": [read_text("/proc/self/limits"), read_text("/proc/self/cgroup"), sorted(os.sched_getaffinity(0))],
        "packages": installed_packages(),
        "code": [str(Path(__file__)), code_sha256(*_ROOMS)],
        "variables": _shared(variables),
        "server": SERVER,
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return f"\0hfbench-{digest}"


def _shared(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that workers of one server have in common."""
    return {name: value for name, value in variables.items() if name not in _OF_WORKER}


def _pid_of(pidfd: int) -> int:
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return int(text.partition("Pid:")[2].split()[0])


def user_of(connection: socket.socket) -> int:
    """Return the number of the user whose process is at the other end."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return int(struct.unpack("3i", credentials)[1])


def _start_server(address: str, owner: int, variables: Mapping[str, str]) -> None:
    """Start the server with a socket that listens already: who asks it meanwhile waits."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener:
        listener.bind(address)
        listener.listen()
        subprocess.Popen(
            [sys.executable, "-m", *SERVER, str(listener.fileno()), str(owner)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno(), owner],
            start_new_session=True,
            env=_shared(variables),
        )


def run_stage(main: Callable[[], None], *, starts_server: bool = True) -> None:
    """Run the main function of a stage that needs the libraries, and end as it does.

    Under DVC that is in a worker, else in this process; so too where `starts_server` is false and there is no server.
    """
    run(partial(_run_in_worker, main, starts_server))


def _run_in_worker(main: Callable[[], None], starts_server: bool) -> None:
    module = sys.modules[main.__module__].__spec__  # the module's own name, where it runs as __main__
    assert module is not None
    given = {"module": module.name, "words": sys.argv}
    try:
        worker = fork_worker(
            f"{__name__}:run_main",
            given,
            worker_variables(),
            (sys.stderr.fileno(), sys.stderr.fileno()),
            next(reversed(watch_parents()), None),
            wait_readable,
            starts_server=starts_server,
        )
    except RefusedError:
        main()
        return
    wait_readable(worker.fileno())
    sys.exit(worker.wait())


def run_main(_reports: int, module: str, words: list[str]) -> None:
    """Run, in a worker, the main function of a stage with the words of its command."""
    sys.argv = words
    run(import_module(module).main)
