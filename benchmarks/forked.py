"""Do workers that are forked measure the same as those that start by themselves? On this machine, call by call in turn.

`python -m benchmarks.forked [--pairs 20] [--calls 16] [--servers 4]`

Each pair is a fresh worker and a forked one, which both hold the model and make one call after another in turn: what
the machine does meanwhile, it does to both. Each pair is started anew, and every few pairs get a server of their own.
Printed are the ratios of forked over fresh, their geometric mean over the pairs and its 95% interval.
"""

import argparse
import json
import os
import re
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from math import exp, log
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from benchmarks.arms import prepare, task_of
from hfbench.measure import process
from hfbench.measure.task import Task
from hfbench.workers import forked

_WORKER, _SERVER = "worker", "server"
_SOCKET, _GROUP = "HFBENCH_LOCKSTEP", "HFBENCH_LOCKSTEP_GROUP"  # of the pairs that share a server
_READING = struct.Struct("d")
_MIB = 2**20


def _lockstep(task: Task, reporter: process.Reporter, **_: Any) -> None:
    """Be a worker that makes a call whenever it is told to, and says how long it took."""
    from hfbench.measure.phases import Measurement

    point = Measurement(task, reporter)
    for phase in (point.prepare, point.load, point.first_call):
        phase()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as driver:
        driver.connect(os.environ[_SOCKET])
        driver.send(str(os.getpid()).encode())
        while driver.recv(1):
            call = point.run_once()
            driver.send(_READING.pack(call.end - call.start))


def _measure_pair(folder: Path, task: Task, calls: int, *, fresh_first: bool) -> dict[str, dict[str, Any]]:
    """Return what was measured of a fresh and a forked worker."""
    owner = os.pidfd_open(os.getpid())
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(os.environ[_SOCKET])
        listener.listen()
        stack.callback(Path(os.environ[_SOCKET]).unlink)
        connections = {}
        for start in (forked.FRESH, forked.FORKED)[:: 1 if fresh_first else -1]:
            os.environ[forked.CHOSEN] = start
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
            worker = process.start_worker(task, scratch, time.perf_counter(), owner, lambda _: None)
            assert worker.start.partition(":")[0] == start, worker.start
            stack.callback(process.end_process_group, worker.process, 0)
            connections[start] = stack.enter_context(listener.accept()[0])
            pid = int(connections[start].recv(100))
            assert pid == worker.process.pid
            found[start] = {**_reported(worker.reports), "pid": pid, "calls": []}
        for number in range(calls):
            for start in (forked.FRESH, forked.FORKED)[:: 1 if number % 2 else -1]:
                connections[start].send(b"1")
                found[start]["calls"].append(_READING.unpack(connections[start].recv(100))[0])
        for each in found.values():
            status = Path(f"/proc/{each['pid']}/status").read_text()
            each["peak"] = int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) * 1024
    os.close(owner)
    return found


def _reported(pipe: int) -> dict[str, Any]:
    """Return what the worker has reported so far of its record."""
    fields: dict[str, Any] = {}
    for line in os.read(pipe, 2**20).splitlines():
        fields |= json.loads(line).get("fields", {})
    os.close(pipe)
    return {name: fields[name] for name in ("load_seconds", "first_call_seconds")}


def _ratio(ratios: list[float]) -> tuple[float, float, float]:
    """Return the geometric mean of the pairs' ratios with its 95% interval, by Student's t."""
    logs = [log(each) for each in ratios]
    middle, error = statistics.mean(logs), statistics.stdev(logs) / len(logs) ** 0.5
    reach = float(stdtrit(len(logs) - 1, 0.975)) * error
    return exp(middle), exp(middle - reach), exp(middle + reach)


def _spread(values: list[float], size: int) -> str:
    """Return how much the values of pairs differ within a group of that size, and between groups, as shares."""
    logs = [log(each) for each in values]
    groups = [logs[start : start + size] for start in range(0, len(logs), size)]
    within = statistics.mean(statistics.variance(group) for group in groups) ** 0.5
    between = statistics.stdev(map(statistics.mean, groups))
    return f"{within:.2%} within a server, {between:.2%} between servers (by chance {within / size**0.5:.2%})"


_FIGURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "a call (s)": lambda each: statistics.median(each["calls"]),
    "load (s)": lambda each: each["load_seconds"],
    "first call (s)": lambda each: each["first_call_seconds"],
    "peak memory (MiB)": lambda each: each["peak"] / _MIB,
}


def _print_results(pairs: list[dict[str, dict[str, Any]]], size: int) -> None:
    console = Console()
    table = Table("forked over fresh", "fresh", "forked", "ratio", "95% interval", title=f"{len(pairs)} pairs")
    for name, value in _FIGURES.items():
        fresh, after = ([value(pair[start]) for pair in pairs] for start in (forked.FRESH, forked.FORKED))
        ratios = [b / a for a, b in zip(fresh, after, strict=True)]
        ratio, low, high = _ratio(ratios)
        middles = (f"{statistics.median(each):.4g}" for each in (fresh, after))
        table.add_row(name, *middles, f"{ratio:.4f}", f"{low:.4f} … {high:.4f}")
        if name == "a call (s)":
            spread = _spread(ratios, size)
    console.print(table)
    console.print(f"the ratios of calls differ by {spread}")


def main() -> None:
    """Run what the command line asks for, or be a worker or the server that forks one."""
    if sys.argv[1:2] in ([_WORKER], [_SERVER]):
        from hfbench.measure import worker
        from hfbench.workers import forkserver

        worker.run = _lockstep
        role = sys.argv.pop(1)
        (worker.main if role == _WORKER else forkserver.main)()
        os._exit(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--calls", type=int, default=16, help="of each worker")
    parser.add_argument("--servers", type=int, default=4)
    arguments = parser.parse_args()
    name = "benchmarks.forked"
    process._WORKER, forked.SERVER = (name, _WORKER), (name, _SERVER)
    with tempfile.TemporaryDirectory(prefix="hfbench-forked-") as temporary:
        folder = Path(temporary)
        os.chdir(prepare(folder))
        os.environ |= {"PYTHONPATH": str(Path.cwd()), _SOCKET: str(folder / "socket")}
        task, size, pairs = task_of(folder / "record.json"), arguments.pairs // arguments.servers, []
        for number in range(arguments.pairs):
            os.environ[_GROUP] = str(number // size)
            pairs.append(_measure_pair(folder, task, arguments.calls, fresh_first=number % 2 == 0))
        _print_results(pairs, size)


if __name__ == "__main__":
    main()
