"""The server that workers are forked from: it has imported the libraries, and touched no device.

What torch and transformers are after their import is the same for each point. The first stage of a `dvc repro` that
needs them starts the server; it, and those after it, ask it for a worker on a socket. A forked worker has loaded no
model, opened no device and compiled nothing, as a fresh one, and has a session, an environment, a folder for its
compile caches and a log of its own. hfbench's own code it imports itself. It has as much memory as a fresh one, and
shares none of it that either writes to.

Forked processes would share one thing that fresh ones draw by lot, where their memory lies, which changes how fast code
runs (T. Mytkowicz et al., Producing wrong data without doing anything obviously wrong, ASPLOS 2009). Rounds are to
differ in it, so that each worker first reserves a random amount of addresses (which C. Curtsinger and E. D. Berger,
Stabilizer, ASPLOS 2013, do more thoroughly).

The server lives as long as the process that ran the stage, or until a minute has passed without a worker. Its name is a
digest of all that a fresh worker would find, so that nobody else's worker comes from it.
"""

import array
import ctypes
import json
import mmap
import os
import random
import select
import signal
import socket
import sys
import tempfile
import traceback
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from hfbench.core.system import FILESYSTEM
from hfbench.workers.forked import MESSAGE_BYTES, die_with_parent, user_of

_IDLE_SECONDS = 60.0
_LIBRARIES = (
    "safetensors.torch",
    "torch._dynamo",
    "torch._inductor",
    "torch.profiler",
    "torch.utils.flop_counter",
    "transformers.generation.continuous_batching",
    "transformers.generation.streamers",
    "transformers.generation.utils",
    "transformers.integrations.moe",
    "transformers.modeling_utils",
    "transformers.tokenization_utils_tokenizers",
)
# What a process has open in /dev without having touched a device that computes.
_HARMLESS = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "console", "shm", "mqueue")
_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23  # linux/mman.h; Linux 5.14
_PRESENT, _OF_FILE = 1 << 63, 1 << 61  # of an entry in /proc/self/pagemap
_KERNEL = 1 << 63  # from here on addresses are the kernel's
_MOST_SHIFTED_PAGES = 4096
_MOST_SHIFTED_BYTES = 2**16


def main() -> None:
    """Import what a worker needs, then fork workers as they are asked for: `… LISTENER OWNER`, both descriptors."""
    listener, owner = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    try:
        unfit = _import_all()
    except Exception as error:  # a fresh worker meets it as well, and says it in the point's record
        unfit = f"{type(error).__name__}: {error}"
    _Server(listener, owner, unfit).serve()


def _import_all() -> str | None:
    """Import what a worker needs; return why this process may not be forked then, or None.

    The threads of OpenBLAS, which numpy and scipy start, are ended by itself before a fork, and started when needed.
    """
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401

    threads = _threads()
    for name in _LIBRARIES:
        import_module(name)
    from pydantic import TypeAdapter  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    if opened := open_device():
        return f"importing the libraries opened {opened}"
    return "importing the libraries started threads" if _threads() > threads else None


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def open_device(root: Path = FILESYSTEM) -> str | None:
    """Return a device that this process has open and that may compute, or None."""
    for link in sorted((root / "proc/self/fd").iterdir()):
        with suppress(OSError):
            target = str(link.readlink())
            if target.startswith("/dev/") and not target.removeprefix("/dev/").startswith(_HARMLESS):
                return target
    return None


class _Server:
    """Forks workers, tells who asked how they ended, and kills the workers of who is gone.

    One that is forked already waits to be asked for: getting its memory takes a while, which has passed by then.
    """

    def __init__(self, listener: socket.socket, owner: int, unfit: str | None) -> None:
        self._listener = listener
        self._owner = owner
        self._unfit = unfit
        self._pages = _resident_pages()
        self._workers: dict[socket.socket, tuple[int, int]] = {}  # process id, and descriptor of the process
        self._spare: tuple[int, socket.socket] | None = None

    def serve(self) -> None:
        """Go on until the owner is gone, or nobody has wanted anything for a minute."""
        while True:
            if not (self._workers or self._spare or self._unfit):
                self._fork()
            watched: dict[int, socket.socket] = {connection.fileno(): connection for connection in self._workers}
            ending = {pidfd: connection for connection, (_, pidfd) in self._workers.items()}
            idle = None if self._workers or self._unfit else _IDLE_SECONDS
            waits = [self._listener.fileno(), self._owner, *watched, *ending]
            ready = select.select(waits, (), (), idle)[0]
            if not ready or self._owner in ready:
                break
            for descriptor in ready:
                if descriptor == self._listener.fileno():
                    self._answer(self._listener.accept()[0])
                elif descriptor in ending:
                    self._ended(ending[descriptor])
                elif watched[descriptor] in self._workers:  # closed by who asked, who says nothing more
                    _kill(self._workers[watched[descriptor]][0])
        for pid, _ in self._workers.values():
            _kill(pid)

    def _answer(self, connection: socket.socket) -> None:
        message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 2)
        refused = self._unfit
        try:
            if user_of(connection) == os.getuid() and len(descriptors) == 2 and refused is None:
                self._give(message, descriptors, connection)
        except OSError as error:  # the worker that waited was killed
            refused = str(error)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            if connection not in self._workers:
                _send(connection, refused=refused)
                connection.close()

    def _give(self, message: bytes, descriptors: list[int], connection: socket.socket) -> None:
        """Give the work to the worker that waits for it."""
        if self._spare is None:
            self._fork()
        assert self._spare is not None
        (pid, theirs), self._spare = self._spare, None
        with theirs:
            socket.send_fds(theirs, [message], [*descriptors, connection.fileno()])
        self._workers[connection] = (pid, os.pidfd_open(pid))

    def _fork(self) -> None:
        server = os.getpid()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                die_with_parent(server)
                self._close(ours)
                _populate(self._pages)
                _shift_layout()
                _work(theirs)
            except SystemExit as end:
                with suppress(OSError):
                    _exit_as(end)
            except BaseException:
                with suppress(OSError):
                    traceback.print_exc()
            else:
                os._exit(0)  # as a fresh worker ends
            os._exit(1)
        theirs.close()
        self._spare = (pid, ours)

    def _close(self, ours: socket.socket) -> None:
        """Close, in a worker, what is the server's."""
        for each in (self._listener, ours, *self._workers):
            each.close()
        for descriptor in (self._owner, *(pidfd for _, pidfd in self._workers.values())):
            os.close(descriptor)

    def _ended(self, connection: socket.socket) -> None:
        pid, pidfd = self._workers.pop(connection)
        os.close(pidfd)
        _kill(pid)  # and what it started; it is not waited for yet, so that its number is still its own
        _, status = os.waitpid(pid, 0)
        _send(connection, pid=pid, returncode=os.waitstatus_to_exitcode(status))
        connection.close()


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it may have no group of its own yet
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _send(connection: socket.socket, **message: Any) -> None:
    with suppress(OSError):  # who asked is gone
        connection.send(json.dumps(message).encode())


def _work(given: socket.socket) -> None:
    """Wait for what is to be done, and do it with its variables and in its folder."""
    message, descriptors, _, _ = socket.recv_fds(given, MESSAGE_BYTES, 3)
    if not message:
        return
    given.close()
    reports, log, asker = descriptors
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    with socket.socket(fileno=asker) as connection:
        _send(connection, pid=os.getpid())
    request = json.loads(message)
    os.environ.clear()
    os.environ.update(request["variables"])
    tempfile.tempdir = None  # it is asked for anew
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    module, _, function = request["target"].partition(":")
    getattr(import_module(module), function)(reports, **request["given"])
    sys.stdout.flush()
    sys.stderr.flush()


def _exit_as(end: SystemExit) -> None:
    """End as Python itself does on this exception: with its exit status, or with 1 and its sentence."""
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr, flush=True)
    elif not end.code:
        os._exit(0)
    os._exit(end.code if isinstance(end.code, int) else 1)


@dataclass(frozen=True)
class _Pages:
    """A stretch of memory that the server has, and whether a worker gets it by reading or by writing."""

    address: int
    length: int
    advice: int


def _resident_pages() -> list[_Pages]:
    """Return what of this process's files and of its own data is in memory."""
    found = []
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, access, *_ = line.split(maxsplit=2)
            first, end = (int(address, 16) for address in span.split("-"))
            if access[3] == "s" or first >= _KERNEL:
                continue
            pagemap.seek(first // mmap.PAGESIZE * 8)
            entries = array.array("Q", pagemap.read((end - first) // mmap.PAGESIZE * 8))
            kinds = [_advice(entry, can_write="w" in access) for entry in entries]
            for advice, numbers in groupby(range(len(kinds)), key=kinds.__getitem__):
                if advice is not None:
                    stretch = list(numbers)
                    address = first + stretch[0] * mmap.PAGESIZE
                    found.append(_Pages(address, len(stretch) * mmap.PAGESIZE, advice))
    return found


def _advice(entry: int, *, can_write: bool) -> int | None:
    """Return how a worker gets a page of its own, by its entry in /proc/self/pagemap; None for one that it need not."""
    if not entry & _PRESENT:
        return None
    if entry & _OF_FILE:
        return _MADV_POPULATE_READ
    return _MADV_POPULATE_WRITE if can_write else None


def _populate(pages: list[_Pages]) -> None:
    """Have these pages as a fresh process has them by now.

    Linux maps no page of a file that was only read when it forks, and copies the others at the first write, which would
    else be while the model loads and is called first.
    """
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for each in pages:
        madvise(each.address, each.length, each.advice)


def _shift_layout() -> None:
    """Reserve a random amount of addresses, which take no memory: what follows lies elsewhere in each worker."""
    libc, lot = ctypes.CDLL(None), random.SystemRandom()
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    libc.mmap(None, lot.randint(1, _MOST_SHIFTED_PAGES) * mmap.PAGESIZE, 0, flags, -1, 0)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.malloc(lot.randint(1, _MOST_SHIFTED_BYTES))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
