"""A fleet on a real Ray cluster: raylets on this machine, each on a core of its own, in clones of this repository."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from tests.pipeline.checkout import BIN, Checkout, clone, measurements, ran
from tests.pipeline.conftest import small_sweep

T = TypeVar("T")
_PATIENCE = 4  # times as long as things take where nothing else runs: other tests do
# Ray misses a node after a minute, or so.
_QUICK_TO_MISS = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}
_RAY = ("--num-cpus", "1", "--disable-usage-stats", "--block")
_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


@dataclass
class Cluster:
    """Raylets that are real processes, with a cache, locks and a core of their own."""

    folder: Path
    port: int
    raylets: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, name: str, **variables: str) -> None:
        """Start a raylet, the first of which is the head, and wait until the cluster knows it."""
        self.begin(name, **variables)
        self.wait_for(name)

    def begin(self, name: str, **variables: str) -> None:
        home = self.folder / name
        (home / "locks").mkdir(parents=True, exist_ok=True)
        where = ["--address", self.address] if self.raylets else ["--head", "--port", str(self.port)]
        more = [] if self.raylets else ["--include-dashboard", "false"]
        core = _CORES[sum(each.poll() is None for each in self.raylets.values()) % len(_CORES)]
        self.raylets[name] = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), "ray", "start", *where, *more, "--node-name", name, *_RAY],
            env={
                **{key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "OMP_NUM_THREADS")},
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "XDG_CACHE_HOME": str(home),
                "HFBENCH_LOCKS": str(home / "locks"),
                **_QUICK_TO_MISS,
                **variables,
            },
            stdout=self._log(name).open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_for(self, name: str) -> None:
        within(_PATIENCE * 30, lambda: "Ray runtime started" in self._log(name).read_text())

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def processes(self, name: str) -> list[psutil.Process]:
        """All that a raylet has started."""
        found = []
        for each in psutil.process_iter():
            try:
                if each.environ().get("XDG_CACHE_HOME") == str(self.folder / name):
                    found.append(each)
            except (psutil.Error, OSError):
                continue
        return found

    def stop(self, *names: str) -> None:
        for name in names or self.raylets:
            for process in self.processes(name):
                process.kill()

    def measuring(self, name: str) -> psutil.Process | None:
        """Ray's worker that measures a block on a node."""
        return next((each for each in self.processes(name) if "ray::measure" in _command(each)[:1]), None)

    def working(self) -> list[psutil.Process]:
        """What measures on the nodes, or would: DVC, stages, workers and their server."""
        words = ("dvc", "stages.", "hfbench.")
        return [
            process
            for name in self.raylets
            for process in self.processes(name)
            if any(word in " ".join(_command(process)) for word in words)
        ]


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def within(seconds: float, found: Callable[[], T | None]) -> T:
    """Return what is found, which is not there at once."""
    deadline = time.monotonic() + seconds
    while not (it := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return it


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    its = Cluster(tmp_path_factory.mktemp("nodes"), port)
    its.start("first")
    yield its
    its.stop()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Checkout:
    """A clone in which nothing was measured."""
    made = clone(tmp_path_factory.mktemp("fleet") / "checkout")
    made.change_params(lambda content: small_sweep(content, tiny_model))
    _ask_for(made, round=[1])
    return made


def _ask_for(checkout: Checkout, **sweep: Any) -> None:
    checkout.change_params(lambda content: content["sweep"].update(sweep))


@dataclass
class Driver:
    """`hfbench fleet run`, going on, and what it says."""

    process: "subprocess.Popen[bytes]"
    log: Path

    @classmethod
    def start(cls, checkout: Checkout, cluster: Cluster, log: Path, *words: str) -> "Driver":
        command = ["hfbench", "fleet", "run", "--address", cluster.address, *words]
        with log.open("wb") as said:
            its = subprocess.Popen(
                command, cwd=checkout.folder, env=checkout.variables(), stdout=said, stderr=subprocess.STDOUT
            )
        return cls(its, log)

    def says(self, pattern: str) -> Callable[[], "re.Match[str] | None"]:
        def look() -> "re.Match[str] | None":
            text = self.log.read_text()
            found = re.search(pattern, text, re.MULTILINE)
            assert found or self.process.poll() is None, text
            return found

        return look

    def end(self) -> str:
        status = self.process.wait(_PATIENCE * 120)
        assert status == 0, self.log.read_text()
        return self.log.read_text()


def fleet(checkout: Checkout, cluster: Cluster, *words: str, check: bool = True) -> str:
    said = checkout.run("hfbench", "fleet", *words, "--address", cluster.address, check=check)
    return said.stdout + said.stderr


def experiments(checkout: Checkout) -> set[str]:
    return set(checkout.run("dvc", "exp", "list", "--name-only").stdout.split())


def begun(checkout: Checkout) -> dict[str, str]:
    """When each point that came together in the kinds' clones was begun."""
    records = (checkout.folder / ".dvc/tmp/hfbench-fleet").glob("*/results/measurements/*.json")
    return {f"{path.parents[2].name}/{path.name}": json.loads(path.read_text())["started_at"] for path in records}


def known(checkout: Checkout) -> set[str]:
    """What DVC's run cache has."""
    return {path.name for path in (checkout.folder / ".dvc/cache/runs").glob("*/*/*")}


def test_two_kinds_of_machines_of_which_one_comes_late_and_one_loses_its_worker(
    checkout: Checkout, cluster: Cluster, tmp_path: Path
) -> None:
    checkout.run("dvc", "remote", "add", "--quiet", "--default", "shared", str(tmp_path / "remote"))
    checkout.commit("a remote")
    driver = Driver.start(checkout, cluster, tmp_path / "log", "--push")
    within(_PATIENCE * 60, driver.says("first is of the kind"))
    cluster.begin("second", ATEN_CPU_CAPABILITY="default")
    within(_PATIENCE * 120, lambda: cluster.measuring("first")).kill()
    said = driver.end()
    assert "first gave up round 1" in said
    kinds = dict(re.findall(r"^(\w+) is of the kind (\S+);", said, re.MULTILINE))
    assert kinds.keys() == {"first", "second"}
    assert kinds["first"] != kinds["second"], "one computes without vector instructions"
    assert experiments(checkout) == set(kinds.values())
    page = (checkout.folder / "results/fleet.md").read_text()
    assert all(page.count(kind) >= 3 for kind in kinds.values()), page
    records = (checkout.folder / ".dvc/tmp/hfbench-fleet" / kinds["second"] / "results/measurements").glob("*.json")
    assert {json.loads(path.read_text())["provenance"]["node"] for path in records} == {"second"}
    within(10, lambda: not cluster.working())
    # A machine of the first kind: this one, on the same core. Another clone has the remote alone.
    same = ("env", "--unset", "OMP_NUM_THREADS", "taskset", "--cpu-list", str(_CORES[0]))
    subprocess.run(["git", "clone", "--quiet", str(checkout.folder), str(tmp_path / "other")], check=True)
    other = Checkout(tmp_path / "other")
    with ThreadPoolExecutor() as pool:
        pulled = pool.submit(other.run, *same, "dvc", "repro", "--pull", "measure")
        compared = checkout.run("hfbench", "compare", *kinds.values(), "--across-environments").stdout
    assert "sdpa" in compared
    assert measurements(ran(pulled.result().stdout)) == []
    assert len(list((other.folder / "results/measurements").glob("*.json"))) == len(begun(checkout)) / 2


def test_what_is_finished_when_the_driver_is_killed_is_not_measured_again(
    checkout: Checkout, cluster: Cluster, tmp_path: Path
) -> None:
    before = begun(checkout)
    _ask_for(checkout, round=[1, 2, 3])
    cluster.stop("second")
    shutil.copytree(cluster.folder / "second", cluster.folder / "third")  # a machine with the models
    cluster.begin("third")
    driver = Driver.start(checkout, cluster, tmp_path / "log")
    within(_PATIENCE * 90, driver.says("a point is done"))
    driver.process.kill()
    driver.process.wait()
    within(15, lambda: not cluster.working())
    told = len(re.findall("a point is done", driver.log.read_text()))
    cluster.wait_for("third")
    again = Driver.start(checkout, cluster, tmp_path / "again")
    within(_PATIENCE * 120, lambda: cluster.measuring("third"))
    for process in cluster.processes("third"):  # as where a machine loses its power
        process.kill()
    said = again.end()
    assert re.search(r"third (is gone|gave up round \d)", said), "whichever is seen first"
    assert len(re.findall("a point is done", said)) <= 4 - told
    assert "ceilings is done" not in said + driver.log.read_text(), "they hold for other rounds too"
    after = begun(checkout)
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
    assert "It has ended" not in checkout.run("hfbench", "fleet", "status").stderr


@pytest.fixture(scope="module")
def listing(checkout: Checkout, cluster: Cluster) -> Iterator[str]:
    """What `hfbench fleet` says when all is measured, and two more nodes are there that cannot measure.

    One has another transformers. Of the other the cache folder has room for almost nothing, where a file system may be
    mounted here.
    """
    other = cluster.folder / "site/transformers-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 9.9.9\n")
    cluster.start("other", PYTHONPATH=str(other.parent))
    home = cluster.folder / "full"
    home.mkdir()
    words = ("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(home))
    mount = subprocess.run(words, capture_output=True, text=True, check=False)
    if mount.returncode:
        yield f"{fleet(checkout, cluster)}\n{_NOT_PERMITTED} {mount.stderr}"
        cluster.stop("other")
        return
    try:
        cluster.start("full")
        yield fleet(checkout, cluster)
    finally:
        cluster.stop("other", "full")
        subprocess.run(["umount", "--lazy", str(home)], check=True)


_NOT_PERMITTED = "mounting a file system is not permitted here:"


def test_who_cannot_measure_is_said_by_name(checkout: Checkout, listing: str) -> None:
    assert "other is left out: it has transformers 9.9.9, and here is" in listing
    assert "first (CPU)" in listing, "the others are still there to measure"
    assert listing.count("nothing") == 1, "and have done so"
    nowhere = checkout.run("hfbench", "fleet", "--address", "127.0.0.1:9", check=False)
    assert nowhere.returncode == 1
    assert "no Ray cluster answers at 127.0.0.1:9" in nowhere.stderr


def test_a_node_whose_disk_is_full_is_said_by_name(listing: str) -> None:
    if _NOT_PERMITTED in listing:
        pytest.skip(listing[listing.index(_NOT_PERMITTED) :])
    assert re.search(r"^full is left out: .*No space left on device", listing, re.MULTILINE)


def test_a_cluster_whose_head_is_lost_ends_the_driver_and_leaves_no_process(
    checkout: Checkout, cluster: Cluster, tmp_path: Path
) -> None:
    _ask_for(checkout, round=[1, 2, 3, 4])
    before = known(checkout)
    driver = Driver.start(checkout, cluster, tmp_path / "log")
    within(_PATIENCE * 120, lambda: cluster.measuring("first"))
    for process in cluster.processes("first"):  # which holds the head
        process.kill()
    assert driver.process.wait(_PATIENCE * 60) == 1
    said = driver.log.read_text()
    assert "does not answer any more. What came back is kept" in said
    assert "Traceback" not in said
    within(90, lambda: not cluster.working())
    assert before <= known(checkout)
