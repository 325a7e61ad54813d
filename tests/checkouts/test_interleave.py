"""`hfbench interleave` on a real DVC repository, with a stand-in for an editable checkout of transformers.

Which records of a round were measured side by side; and that what is lent comes back as it was.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from hfbench.checkouts.fit import require_fit
from hfbench.checkouts.interleave import Measured, SideOfRound, apart
from hfbench.checkouts.processes import HERE, stage_variables
from hfbench.checkouts.workspace import require_measured
from hfbench.core.errors import UserError
from hfbench.core.results import sweep_stage
from hfbench.git import Repository, uninterrupted
from tests.checkouts.conftest import FAST_SECONDS, Bench
from tests.environment.conftest import commit_all, git, write_metadata
from tests.pipeline.checkout import Checkout, measurements, processes_in, ran, start, tiny_point

SIDES = ("Start", "Notes 4")


def words(bench: Bench, rounds: int = 2) -> list[str]:
    revisions = [bench.commits[subject] for subject in SIDES]
    options = ["--checkout", str(bench.repository), "--rounds", str(rounds), "--names", "before", "after"]
    return ["interleave", *revisions, *options]


def started(bench: Bench, experiment: str) -> dict[int, datetime]:
    """Return when each round of an experiment was measured, as the tables have it."""
    script = (
        "import sys, json, dvc.api, polars as pl\n"
        "with dvc.api.open('results/tables/points.parquet', rev=sys.argv[1], mode='rb') as file:\n"
        "    print(json.dumps(pl.read_parquet(file.read()).select('round', 'started_at').rows()))"
    )
    rows = json.loads(bench.pipeline.run("python", "-c", script, experiment).stdout)
    return {number: datetime.fromisoformat(time) for number, time in rows}


@dataclass(frozen=True)
class Interleaved:
    """What the command printed when it measured the two sides, and the state before and after it."""

    output: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@pytest.fixture(scope="module")
def interleaved(bench: Bench) -> Interleaved:
    before = bench.state()
    result = bench.hfbench(*words(bench))
    return Interleaved(result.stdout + result.stderr, before, bench.state())


def test_each_commit_is_an_experiment_with_all_rounds(bench: Bench, interleaved: Interleaved) -> None:
    assert "hfbench compare before after" in interleaved.output
    read = "import sys, dvc.api; print(dvc.api.read(sys.argv[1], rev=sys.argv[2]))"
    medians = []
    for name, commit in (("before", bench.commits["Start"]), ("after", bench.commits["Rework the mask"])):
        text = bench.pipeline.run("python", "-c", read, "results/environment.json", name).stdout
        assert json.loads(text)["packages"]["transformers"]["commit"] == commit
        metrics = json.loads(bench.pipeline.run("python", "-c", read, "results/metrics.json", name).stdout)
        assert metrics["points_ok"] == 2  # one point in two rounds
        medians.append(metrics["best_end_to_end_seconds"])
        params = bench.pipeline.run("python", "-c", read, "params.yaml", name).stdout
        assert "# each round is a fresh process" in params
    assert medians[1] > 1.5 * medians[0]


@pytest.mark.usefixtures("interleaved")
def test_the_rounds_of_the_commits_take_turns(bench: Bench) -> None:
    before, after = started(bench, "before"), started(bench, "after")
    assert set(before) == set(after) == {1, 2}
    assert before[1] < after[1] < after[2] < before[2]


def test_the_workspace_and_the_checkout_are_as_before(interleaved: Interleaved) -> None:
    assert interleaved.after == interleaved.before


@pytest.mark.usefixtures("interleaved")
def test_only_a_round_of_another_time_is_measured_again_and_on_both_sides(bench: Bench) -> None:
    before = started(bench, "before"), started(bench, "after")
    make_older(bench, "before", sweep_stage(tiny_point("sdpa", 2)))
    result = bench.hfbench(*words(bench))
    assert "round 2 of" in result.stderr
    assert "was not measured side by side" in result.stderr
    again = started(bench, "before"), started(bench, "after")
    assert [times[1] for times in again] == [times[1] for times in before]
    assert min(times[2] for times in again) > max(times[2] for times in before)


def make_older(bench: Bench, experiment: str, stage: str) -> None:
    """Have DVC's run cache hold the record as if it had been measured an hour before."""
    read = "import sys, dvc.api; print(dvc.api.read('dvc.lock', rev=sys.argv[1]))"
    lock = YAML(typ="safe").load(bench.pipeline.run("python", "-c", read, experiment).stdout)
    old = lock["stages"][stage]["outs"][0]["md5"]
    cache = bench.pipeline.folder / ".dvc" / "cache"
    record = json.loads((cache / "files" / "md5" / old[:2] / old[2:]).read_text())
    record["started_at"] = (datetime.fromisoformat(record["started_at"]) - timedelta(hours=1)).isoformat()
    content = json.dumps(record).encode()
    new = hashlib.md5(content, usedforsecurity=False).hexdigest()
    path = cache / "files" / "md5" / new[:2] / new[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    for entry in cache.glob("runs/*/*/*"):
        if old in entry.read_text():
            text = re.sub(r"size: \d+(?=\s*$)", f"size: {len(content)}", entry.read_text().replace(old, new))
            entry.write_text(text)


@pytest.mark.usefixtures("interleaved")
def test_a_cancelled_job_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    before = bench.state()
    running = bench.start(tmp_path / "log", *words(bench, rounds=3))
    running.wait_for(r"round 3 of .*(.|\n)*1 point to measure")
    running.process.terminate()
    assert running.process.wait(timeout=30) == 128 + signal.SIGTERM
    assert bench.state() == before
    assert not processes_in(bench.pipeline.folder)
    assert "Traceback" not in running.stderr.read_text()


NOW, DAY = 1_000_000.0, 86400.0
Side = tuple[float, dict[str, float]]  # when it was switched to, and the start of each record


@pytest.mark.parametrize(
    ("sides", "again"),
    [
        # The start is in whole seconds, and so can lie before the moment at which the round began.
        ([(0.9, {"p": 0, "q": 21}), (45, {"p": 46, "q": 67})], [[], []]),
        # Measured together another day,
        ([(0, {"p": -DAY, "q": 21 - DAY}), (3, {"p": 45 - DAY, "q": 67 - DAY})], [[], []]),
        # one of them, and the two on different days.
        ([(0, {"p": -DAY}), (3, {"p": 4})], [["p"], []]),
        ([(0, {"p": -DAY}), (3, {"p": -2 * DAY})], [["p"], ["p"]]),
        # Only the points that are apart count.
        ([(0, {"p": -DAY, "q": 1}), (30, {"p": 31, "q": 52})], [["p"], []]),
        # By hand: two measurements of 20 s and two minutes are 160 s.
        ([(0, {"p": -159}), (-1, {"p": 0})], [[], []]),
        ([(0, {"p": -161}), (-1, {"p": 0})], [["p"], []]),
        ([(0, {"p": -DAY}), (0, {"p": 1}), (0, {"p": 22})], [["p"], [], []]),
    ],
)
def test_records_are_side_by_side_within_the_time_of_the_round(sides: list[Side], again: list[list[str]]) -> None:
    """Records that took 20 s each, a minute allowed for each side."""
    found = {
        str(number): SideOfRound(NOW + began, {stage: Measured(NOW + at, 20.0) for stage, at in starts.items()})
        for number, (began, starts) in enumerate(sides)
    }
    assert list(apart(found).values()) == again


def make_environment(folder: Path, **versions: str) -> Path:
    """An environment upon this one, in which packages have other versions as far as their metadata tells."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "upon.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    for name, version in versions.items():
        write_metadata(site, name, version=version)
    return folder / "bin" / "python"


def test_two_environments_are_measured_in_turns_and_compared(bench: Bench, tmp_path: Path) -> None:
    """What tells them apart is the version of a package that nothing here runs."""
    fresh = Checkout(tmp_path / "checkout")
    shutil.copytree(bench.pipeline.folder, fresh.folder, symlinks=True)
    sides = [make_environment(tmp_path / name, triton=version) for name, version in (("old", "3.6"), ("new", "3.7"))]
    words = [word for side in sides for word in ("--python", str(side))]
    result = fresh.run("python", "-m", "hfbench.cli", "interleave", *words, "--rounds", "2")
    assert "differ for a measurement in: triton" in result.stderr
    assert result.stdout.splitlines()[-1] == "To compare them: hfbench compare old new"
    assert re.findall(r"^round (\d) of .*/(old|new)/bin/python$", result.stderr, re.MULTILINE) == [
        *(("1", side) for side in ("old", "new")),
        *(("2", side) for side in ("new", "old")),
    ]
    compared = fresh.run("python", "-m", "hfbench.cli", "compare", "old", "new").stdout
    assert "triton 3.6 → 3.7" in compared
    assert "the rounds of the two sides alternate" in " ".join(compared.split())
    assert fresh.run("git", "status", "--porcelain").stdout == ""

    again = fresh.run("python", "-m", "hfbench.cli", "interleave", *words[:2], *words[:2], check=False)
    assert "Two of --python are the same" in again.stderr


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"kernels": "0.1"}, ["hfbench needs kernels>=", "kernels 0.1 is installed", "-m pip install 'kernels>="]),
        ({"torch": "1.13.1"}, ["torch 1.13.1 is installed"]),
    ],
)
def test_an_environment_that_lacks_what_hfbench_needs_is_told_before_anything_is_measured(
    tmp_path: Path, versions: dict[str, str], words: list[str]
) -> None:
    python = make_environment(tmp_path / "lacking", **versions)
    with pytest.raises(UserError) as raised:
        require_fit("that environment", python)
    for text in ("that environment cannot be measured: ", *words):
        assert text in str(raised.value)


def test_what_is_no_interpreter_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be run"):
        require_fit("it", tmp_path / "bin" / "python")
    venv.create(tmp_path / "empty", with_pip=False)
    with pytest.raises(UserError, match=r"cannot be measured: .*Install hfbench there: .* -m pip install --editable"):
        require_fit("it", tmp_path / "empty" / "bin" / "python")


def test_a_commit_that_asks_for_other_versions_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    table = tmp_path / "src" / "transformers" / "dependency_versions_table.py"
    table.parent.mkdir(parents=True)
    table.write_text(
        "deps = {'kernels': 'kernels>=99.1', 'torch': 'torch>=2', 'flax': 'flax>=99', 'jinja2': 'jinja2>99'}"
    )
    with pytest.raises(UserError, match=r"v9 cannot be measured: .* needs kernels>=99\.1, and kernels .* is installed"):
        require_fit("v9", HERE, tmp_path)
    table.unlink()
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\ndependencies = ['huggingface_hub>=99']\n")
    with pytest.raises(UserError, match=r"needs huggingface_hub>=99.*pip install 'huggingface_hub>=99'"):
        require_fit("v9", HERE, tmp_path)
    (tmp_path / "pyproject.toml").unlink()
    require_fit("this environment", HERE, tmp_path)


def test_a_commit_that_cannot_be_imported_is_told_before_anything_is_measured(bench: Bench) -> None:
    try:
        broken = bench.commit("Break it", 0.0, "raise ImportError('cannot import name masking')")
        before = bench.state()
        words = ["interleave", bench.commits["Start"], broken, "--checkout", str(bench.repository), "--rounds", "2"]
        result = bench.hfbench(*words, check=False)
        assert result.returncode == 1
        assert "transformers cannot be imported (ImportError: cannot import name masking)" in result.stderr
        assert "round 1" not in result.stderr
        assert bench.state() == before
    finally:
        bench.git("reset", "--quiet", "--hard", bench.commits["Notes 4"])


def test_what_is_measured_while_a_checkout_is_edited_is_dropped(bench: Bench, tmp_path: Path) -> None:
    """`dvc repro` described the checkout before: the edit would be measured under that description."""
    head = bench.git("rev-parse", "HEAD")
    bench.commit("Known as transformers", FAST_SECONDS, 'sys.modules["transformers.here"] = sys.modules[__name__]')
    running = start(bench.pipeline, tmp_path / "log", "dvc", "repro", "--verbose", "measure", **bench.variables)
    try:
        running.wait_for_phase("verify")
        with (bench.repository / "python/src/transformers/__init__.py").open("a") as code:
            code.write("SECONDS = 1\n")
        assert running.process.wait(60) != 0
        said = running.stderr.read_text()
        assert "transformers changed after results/environment.json described it" in said
        assert "Run `dvc repro` again" in said
        assert not list((bench.pipeline.folder / "results/measurements").glob("*.json"))
        again = bench.pipeline.run("dvc", "repro", "measure", check=True, **bench.variables).stdout
        assert len(measurements(ran(again))) == 1
    finally:
        bench.git("reset", "--quiet", "--hard", head)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "package"
    folder.mkdir()
    for content in ("one", "two"):
        (folder / "code.py").write_text(f"{content} = 1\n")
        commit_all(folder)
    git(folder, "branch", "--quiet", "--move", "work")
    return Repository(folder)


@pytest.mark.parametrize("start", ["work", "HEAD~1"])
def test_a_checkout_comes_back_after_an_error(repository: Repository, start: str) -> None:
    git(repository.folder, "checkout", "--quiet", start)
    before = (repository.folder / ".git" / "HEAD").read_text()
    other = repository.commit("work~1" if start == "work" else "work")

    def use() -> None:
        with repository.borrowed():
            repository.switch(other)
            assert git(repository.folder, "rev-parse", "HEAD") == other.sha
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert (repository.folder / ".git" / "HEAD").read_text() == before
    assert git(repository.folder, "status", "--porcelain") == ""


def test_what_is_in_no_commit_is_refused_and_named(repository: Repository) -> None:
    (repository.folder / "code.py").write_text("three = 1\n")
    (repository.folder / "new file.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"(?s)M code\.py.*new file\.py.*git stash"), repository.borrowed():
        raise AssertionError
    assert (repository.folder / "code.py").read_text() == "three = 1\n"


def test_a_checkout_that_is_being_bisected_is_refused(repository: Repository) -> None:
    git(repository.folder, "bisect", "start")
    with pytest.raises(UserError, match="git bisect reset"), repository.borrowed():
        raise AssertionError


def test_what_is_no_checkout_or_no_commit(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no git checkout"):
        Repository(tmp_path / "nowhere")
    for name in ("nowhere", "-h", "--all"):
        with pytest.raises(UserError, match="no commit"):
            repository.commit(name)


def test_an_interruption_waits_until_all_is_put_back() -> None:
    done = []

    def put_back() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            subprocess.run(["sh", "-c", "kill -INT $$; true"], check=True)  # as in a terminal, where all get it
            done.append("put back")

    with pytest.raises(KeyboardInterrupt):
        put_back()
    assert done == ["put back"]


def test_variables_of_git_do_not_reach_what_is_measured() -> None:
    variables = stage_variables({"GIT_DIR": "elsewhere", "PATH": "somewhere", "OMP_NUM_THREADS": "1"})
    assert "GIT_DIR" not in variables
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["PATH"].endswith(f"{os.pathsep}somewhere")


def described(*commits: str) -> dict[str, dict[str, Any]]:
    torch = {"version": "2.0"}
    return {
        f"side {number}": {"packages": {"torch": torch, "transformers": {"version": "5.0", "commit": commit}}}
        for number, commit in enumerate(commits)
    }


def test_sides_must_differ_in_what_is_measured() -> None:
    assert require_measured(described("a", "b"), "Install it.") == ["transformers"]
    with pytest.raises(UserError, match=r"side 0 and side 1 are the same.*Install it\.$"):
        require_measured(described("a", "a"), "Install it.")
