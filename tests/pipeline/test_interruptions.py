"""Real interruptions of a real `dvc repro`: signals to it and to what it started, and a disk that is full."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ruamel.yaml import YAML

from hfbench.core.results import sweep_stage
from tests.pipeline.checkout import Checkout, Running, processes_in, start, tiny_point

NEW_POINT = sweep_stage(tiny_point("eager"))


@pytest.fixture(scope="module")
def interrupted(measured: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone with one point that is not measured yet; these tests interrupt it again and again."""
    folder = tmp_path_factory.mktemp("interrupted") / "checkout"
    shutil.copytree(measured.folder, folder, symlinks=True)
    checkout = Checkout(folder)
    checkout.change_params(lambda content: content["sweep"].update(attn_implementation=["sdpa", "eager"]))
    return checkout


def endless(content: Any) -> None:
    content["sampling"].update(min_iterations=100_000, max_iterations=100_000, max_seconds=3600)


def short(content: Any) -> None:
    content["sampling"].update(min_iterations=2, max_iterations=30, max_seconds=8)


def ctrl_c(dvc: Running, worker: psutil.Process) -> None:
    """The terminal sends it to the whole foreground process group, which the worker is not in."""
    assert os.getpgid(worker.pid) != dvc.process.pid
    os.killpg(dvc.process.pid, signal.SIGINT)


def terminate_dvc(dvc: Running, worker: psutil.Process) -> None:
    """DVC dies of it at once, and tells nobody."""
    assert worker.is_running()
    dvc.process.terminate()


def kill_supervisor(dvc: Running, worker: psutil.Process) -> None:
    assert worker.is_running()
    (supervisor,) = (each for each in processes_in(dvc.folder) if "stages.measure" in each.cmdline()[:3])
    supervisor.kill()


def kill_server_of_workers(dvc: Running, worker: psutil.Process) -> None:
    server = worker.parent()
    assert server is not None
    assert "hfbench.workers.forkserver" in server.cmdline()
    server.kill()
    dvc.process.terminate()  # which would else go on


def test_what_is_there_is_shown_with_what_is_missing(interrupted: Checkout, tmp_path: Path) -> None:
    shown = interrupted.run("python", "-m", "hfbench.cli", "show").stdout
    told = r"^So far: 1 of 2 points measured, the last one begun \d+ \w+ ago; missing: tiny eager .*in round 1\. `dvc"
    assert (found := re.search(told, shown, re.MULTILINE)), shown
    interrupted.run("python", "-m", "hfbench.cli", "report", "--output", str(tmp_path / "report.html"))
    assert found[0].partition(", the last")[0] in (tmp_path / "report.html").read_text()


def test_a_point_that_is_being_measured_again_is_missing_from_what_is_shown(fresh: Checkout) -> None:
    """DVC removes a record before it measures its point."""
    assert "So far" not in fresh.run("python", "-m", "hfbench.cli", "show").stdout
    next((fresh.folder / "results/measurements").glob("*flash*.json")).unlink()
    assert "So far: 1 of 2 points measured" in fresh.run("python", "-m", "hfbench.cli", "show").stdout
    for record in (fresh.folder / "results/measurements").glob("*.json"):  # as where only tables were pulled
        record.unlink()
    assert "So far" not in fresh.run("python", "-m", "hfbench.cli", "show").stdout


@pytest.mark.parametrize("stop", [ctrl_c, terminate_dvc, kill_supervisor, kill_server_of_workers])
def test_nothing_is_left_after(
    interrupted: Checkout, tmp_path: Path, stop: Callable[[Running, psutil.Process], None]
) -> None:
    interrupted.change_params(endless)
    dvc = start(interrupted, tmp_path / "stderr", "dvc", "repro", "--verbose")
    try:
        dvc.wait_for_phase("sample")
        shown = interrupted.run("python", "-m", "hfbench.cli", "show", check=False)
        assert "nothing is measured yet of the 2 points" in shown.stderr
        stop(dvc, dvc.worker())
        signalled = time.monotonic()
        assert dvc.process.wait(timeout=5) != 0
        while (left := processes_in(interrupted.folder)) and time.monotonic() < signalled + 5:
            time.sleep(0.05)
        assert not left, "these outlive `dvc repro`"
    finally:
        for process in processes_in(interrupted.folder):
            process.kill()
    results = interrupted.folder / "results"
    assert not list(results.rglob("*.tmp"))
    for path in results.rglob("*.json"):
        json.loads(path.read_text())
    assert not re.search(r'File ".*/(hfbench|stages)/', dvc.stderr.read_text()), "a traceback of hfbench's own"


def test_the_next_repro_goes_on_where_it_stopped(interrupted: Checkout) -> None:
    interrupted.change_params(short)
    assert interrupted.repro() == [NEW_POINT, "tables", "report"]
    statuses = json.loads((interrupted.folder / "results/metrics.json").read_text())
    assert (statuses["points_ok"], statuses["points_not_ok"]) == (2, 0)


def test_what_is_edited_while_it_is_measured_gets_no_record(interrupted: Checkout, tmp_path: Path) -> None:
    """DVC would take the record for one of the files as they are when the stage ends."""

    def longer(content: Any) -> None:
        content["sampling"].update(min_iterations=150, max_iterations=150, max_seconds=3600)

    interrupted.change_params(longer)
    dvc = start(interrupted, tmp_path / "stderr", "dvc", "repro", "--verbose", NEW_POINT)
    dvc.wait_for_phase("sample")
    interrupted.append("hfbench/core/point.py", "# edited\n")
    try:
        assert dvc.process.wait(timeout=60) != 0
    finally:
        interrupted.run("git", "checkout", "--", "hfbench/core/point.py")
    assert "has changed meanwhile (code), and the measurement is dropped" in dvc.stderr.read_text()
    assert not list((interrupted.folder / "results/measurements").glob("*eager*.json"))


@pytest.fixture(scope="module")
def small_disk(measured: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A clone whose results lie on a file system of 4 MiB."""
    folder = tmp_path_factory.mktemp("small_disk") / "checkout"
    shutil.copytree(measured.folder, folder)
    results = folder / "results"
    results.rename(folder / "results_before")
    results.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(results)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"mounting a file system is not permitted here: {mount.stderr.strip()}")
    try:
        shutil.copytree(folder / "results_before", results, dirs_exist_ok=True)
        shutil.rmtree(folder / "results_before")
        shutil.rmtree(results / "logs")  # an old log would be emptied, which makes room
        yield Checkout(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(results)], check=True)


def fill(results: Path) -> Path:
    filler = results / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            return filler


def test_repro_on_a_full_disk(small_disk: Checkout) -> None:
    filler = fill(small_disk.folder / "results")
    small_disk.change_params(lambda content: content["sampling"].update(min_iterations=60, max_iterations=60))
    try:
        result = small_disk.run("dvc", "repro", check=False)
        assert result.returncode != 0
        assert_says_disk_is_full(result.stderr, "results/measurements/1-tiny-sdpa-off-")
        assert not list((small_disk.folder / "results").rglob("*.tmp"))
    finally:
        filler.unlink()
    small_disk.change_params(short)
    assert small_disk.repro() == []


@pytest.mark.parametrize(
    ("stage", "written"),
    [
        ("environment", "results/environment.json"),
        ("inputs@tiny", "results/inputs/tiny/"),
        ("tables", "results/tables/"),
        ("report", "results/report.html"),
    ],
)
def test_other_stages_say_that_the_disk_is_full(small_disk: Checkout, tmp_path: Path, stage: str, written: str) -> None:
    results, aside = small_disk.folder / "results", tmp_path / "aside"
    lock = small_disk.folder / ("stages/dvc.lock" if stage == "environment" else "dvc.lock")
    locked = YAML(typ="safe").load(lock.read_text())["stages"][stage]
    outputs = [Path(out["path"]) for out in locked["outs"]]
    for output in outputs:  # as DVC does, which removes them before it runs the stage
        (aside / output).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(small_disk.folder / output, aside / output)
    filler = fill(results)
    try:
        result = small_disk.run("sh", "-c", locked["cmd"], check=False)
        assert result.returncode != 0
        assert_says_disk_is_full(result.stderr, written)
        assert not list(results.rglob("*.tmp"))
        assert not any((small_disk.folder / output).is_file() for output in outputs)
    finally:
        filler.unlink()
        for output in outputs:
            if (small_disk.folder / output).is_dir():
                shutil.rmtree(small_disk.folder / output)
            shutil.move(aside / output, small_disk.folder / output)


def assert_says_disk_is_full(stderr: str, written: str) -> None:
    assert "the disk is full" in stderr
    assert written in stderr
    assert "Traceback" not in stderr
