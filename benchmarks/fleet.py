"""What the driver of a fleet costs: 10,000 stub points over 100 simulated nodes, and how good the schedule is.

`python -m benchmarks.fleet [--nodes 100] [--rounds 200] [--points 50]`

The nodes, their time and Ray are simulated; the driver, its schedule and what it writes are real. Printed are the
driver's own time a point, its memory after a tenth of the points and after all, and how much longer all took, by the
clock of the simulation, than the work divided by the nodes.
"""

import argparse
import hashlib
import heapq
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from hfbench.compare.side import LOCK
from hfbench.core.results import ENVIRONMENT
from hfbench.fleet import driver, node
from hfbench.fleet.kinds import CEILINGS_STAGE, Kind

_RECORD_BYTES = 20_000  # of one with some samples
_DESCRIPTION = b'{"packages": {}, "accelerators": [], "cpu": {"brand": "stub", "available_physical_cores": 1}}'
_NOISE = 0.03  # between rounds of a point


class _RayError(Exception):
    """Never raised: no simulated node fails."""


@dataclass
class _Stream:
    """The results of a block, each at its time."""

    results: list[tuple[float, Any]]

    def __hash__(self) -> int:
        return id(self)

    def __next__(self) -> Any:
        if not self.results:
            raise StopIteration
        return self.results.pop(0)[1]


class _Ray:
    """As much of Ray as the driver calls, with nodes that take no time but by a clock of their own."""

    class exceptions:  # noqa: N801, as Ray's module
        RayError = _RayError

    def __init__(self, nodes: int, seconds_of: Callable[[str], float]) -> None:
        self.now = 0.0
        self.work = 0.0
        self._seconds_of = seconds_of
        self._nodes = [
            {"NodeID": f"{number:056x}", "NodeName": f"node-{number}", "Alive": True, "Resources": {"CPU": 1}}
            | {"NodeManagerAddress": "", "NodeManagerHostname": ""}
            for number in range(nodes)
        ]
        self._events: list[tuple[float, int, Any]] = []

    def nodes(self) -> Any:
        return self._nodes

    def put(self, value: Any) -> Any:
        return value

    def get(self, value: Any) -> Any:
        return value.results.pop(0)[1] if isinstance(value, _Stream) else value

    def remote(self, function: Any) -> Any:
        return _Remote(self, function)

    def begin(self, stages: Sequence[str]) -> _Stream:
        at, results = self.now, []
        for stage in stages:
            seconds = self._seconds_of(stage)
            at, self.work = at + seconds, self.work + seconds
            results.append((at, _result(stage)))
        stream = _Stream(results)
        for moment in [*(moment for moment, _ in results), at]:
            self.add(moment, stream)
        return stream

    def add(self, at: float, stream: _Stream) -> None:
        heapq.heappush(self._events, (at, id(stream), stream))

    def wait(self, waiting: Sequence[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        del waiting, timeout
        self.now, _, stream = heapq.heappop(self._events)
        return [stream], []


@dataclass
class _Remote:
    ray: _Ray
    function: Any

    def options(self, **_: Any) -> "_Remote":
        return self

    def remote(self, _order: Any, stages: Sequence[str] = (), *_: Any) -> _Stream:
        told = {node.survey: _DESCRIPTION, node.make_ready: {"entries": {}, "objects": {}, "files": {}}}
        if self.function in told:
            stream = _Stream([(0.0, told[self.function])])
            self.ray.add(self.ray.now, stream)
            return stream
        return self.ray.begin(stages)


def _result(stage: str) -> dict[str, Any]:
    """Return what a node sends of a point."""
    content = hashlib.sha256(stage.encode()).hexdigest().encode() * (_RECORD_BYTES // 64)
    path = f"results/measurements/{stage}.json"
    md5 = node.md5_of(content)
    run = (f"runs/{md5[:2]}/{md5}/{md5}", f"cmd: {stage}\n".encode() * 60)
    entry = {
        "deps": [{"path": str(ENVIRONMENT), "md5": node.md5_of(_DESCRIPTION)}],
        "outs": [{"path": path, "md5": md5}],
    }
    return {"stage": stage, "entry": entry, "outs": {path: content}, "run": run}


def _simulate(nodes: int, rounds: int, points: int) -> Iterator[tuple[str, str, str]]:
    lengths = [random.Random(point).lognormvariate(3, 0.8) for point in range(points)]

    def seconds_of(stage: str) -> float:
        number, point = stage.removeprefix("measure@").split("-")
        return lengths[int(point)] * random.Random(f"{number}-{point}").lognormvariate(0, _NOISE)

    stages = {f"measure@{number}-{point}": number for number in range(rounds) for point in range(points)}
    ray = _Ray(nodes, seconds_of)
    process, resident = psutil.Process(), dict[int, int]()

    def open_stub(environment: bytes, *_: Any) -> Kind:
        folder = Path.cwd() / "kind"
        (folder / "results").mkdir(parents=True)
        (folder / LOCK).write_text(f"stages: {{{CEILINGS_STAGE}: {{deps: []}}}}")
        (folder / "results/ceilings.json").write_text("{}")
        kind = Kind("simulated", environment, "0" * 40, folder, Path.cwd() / "cache", stages)
        take = kind.take

        def counted(result: Mapping[str, Any]) -> None:
            take(result)
            resident[len(kind.done)] = process.memory_info().rss

        kind.take = counted  # type: ignore[method-assign]
        return kind

    for name, stub in (("open_kind", open_stub), ("make_order", lambda: {"devices": 1})):
        setattr(driver, name, stub)
    began, cpu = time.perf_counter(), time.process_time()
    fleet = driver.Fleet(ray, "", 1, None)
    fleet.run()
    count = len(stages)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    ideal = ray.work / nodes
    yield (
        f"driver's time a point, of {count}",
        f"{1000 * took / count:.2f} ms (of CPU {1000 * cpu / count:.2f})",
        "50 ms",
    )
    early, late = (resident[share] / 2**20 for share in (count // 10, count))
    yield "driver's memory after a tenth, and after all", f"{early:.0f} MiB, {late:.0f} MiB", "flat"
    yield f"time over work divided by {nodes} nodes", f"{ray.now / ideal:.3f} ×", "1.05 ×"


def main() -> None:
    """Simulate what the command line asks for, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("nodes", 100), ("rounds", 200), ("points", 50)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    arguments = parser.parse_args()
    table = Table("figure", "value", "at most")
    with tempfile.TemporaryDirectory(prefix="hfbench-fleet-") as folder:
        os.chdir(folder)
        for figure in _simulate(arguments.nodes, arguments.rounds, arguments.points):
            table.add_row(*figure)
        os.chdir("/")
    Console().print(table)


if __name__ == "__main__":
    main()
