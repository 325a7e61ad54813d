"""Workers that are forked from one process, which has imported the libraries: asking for one, where that is safe."""

import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from hfbench.core.errors import UserError
from hfbench.core.system import FILESYSTEM, code_sha256, installed_packages, read_text

CHOSEN = "HFBENCH_WORKERS"  # auto: forked where DVC runs the stage; forked: by whomever it is run; fresh
AUTO, FORKED, FRESH = "auto", "forked", "fresh"
_BY_DVC = "DVC_STAGE"  # which DVC sets for the commands that it runs
MESSAGE_BYTES = 2**20  # at most; that is mostly environment variables
SERVER: tuple[str, ...] = ("hfbench.measure.forkserver",)  # module, and arguments before the server's own
# Each worker has its own, and the libraries read them when they need them, and not when they are imported.
_OF_WORKER = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TMPDIR", _BY_DVC)
ROOMS = ("core", "measure", "model", "monitoring")  # whose code a worker runs
# By these a debugger or profiler of CUDA rides along in each process.
_INJECTED = ("CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH")


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
    request: Mapping[str, Any], owner: int, pipe: int, log: int, wait: Callable[[int], None]
) -> ForkedWorker:
    """Return a worker that the server forked; the server is started where there is none.

    `request` has the task, the clock, the worker's arguments and variables, and its folder; the worker writes its
    reports to the descriptor `pipe` and all that it prints to `log`. The server ends with the process of the pidfd
    `owner`. `wait` is called to wait until a descriptor is readable; what it raises gives the worker up. Raises
    `RefusedError`.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _ask(connection, request, owner, [pipe, log])
        wait(connection.fileno())
        answer = _receive(connection) or {"refused": "the server ended"}
        if "refused" in answer:
            raise RefusedError(answer["refused"])
        return ForkedWorker(connection, answer["pid"], answer.get("returncode"))
    except BaseException:
        connection.close()  # by which the server kills the worker
        raise


def _ask(connection: socket.socket, request: Mapping[str, Any], owner: int, descriptors: list[int]) -> None:
    try:
        address = _address(request["variables"], owner)
        try:
            connection.connect(address)
        except OSError:
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
        "code": [str(Path(__file__)), code_sha256(*ROOMS)],
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
