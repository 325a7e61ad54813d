"""Reading a side by every name that it can have."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from benchmarks.synthetic_tables import Plan, sweep, synthetic_tables, write_tables
from hfbench.compare.pairs import COMPARED, values_of
from hfbench.compare.side import locked_tables, read_side
from hfbench.core.errors import UserError
from hfbench.core.point import AXES
from tests.compare.project import MACHINE, Project
from tests.conftest import some
from tests.tables.hand_records import observed, ok_record, point, tables_of

PLAN = Plan(sweep(attn_implementation=["eager", "sdpa"]), rounds=(1, 2), iterations=3)
OTHER = replace(PLAN, seed=1)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two commits with results, the older one tagged `v1`; `bare` is the commit before them, without any."""
    project = Project.create(tmp_path_factory.mktemp("template") / "project")
    project.git("add", "--all")
    project.git("commit", "--quiet", "--message", "nothing measured yet")
    project.git("branch", "bare")
    project.measure(PLAN)
    project.commit("the first results")
    project.git("tag", "v1")
    project.measure(OTHER)
    project.commit("the second results")
    return project


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    return template.copy(tmp_path)


def test_a_commit_is_read_from_the_cache_by_any_of_its_names(project: Project) -> None:
    commit = project.git("rev-parse", "v1").strip()
    expected = synthetic_tables(PLAN)
    for name in ("v1", "HEAD~1", "main~1", commit, commit[:9]):
        side = read_side(name, project.folder)
        assert (side.label, side.revision, side.subject) == (name, commit, "the first results")
        assert side.points.equals(expected.points)
        assert side.samples.equals(expected.samples.drop("token_seconds", "arrival_seconds"))
        assert side.environment == MACHINE
        assert side.manifests["synthetic"]["model_type"] == "llama"
        assert side.params == {"device": "cpu", "sampling": {"min_iterations": 12}}
    assert abs((some(side.committed_at) - datetime.now(UTC)).total_seconds()) < 3600


def test_the_workspace_is_read_as_it_lies_there(project: Project) -> None:
    project.measure(PLAN)
    side = read_side("workspace", project.folder)
    assert (side.revision, side.notes) == (None, ())
    assert side.points.equals(synthetic_tables(PLAN).points)


def test_a_workspace_that_is_older_than_its_params_says_so(project: Project) -> None:
    first = synthetic_tables(PLAN).points.row(0, named=True)
    axes = {axis: [first[axis]] for axis in AXES}
    sweep_asked = {**axes, "round": [1, 2], "attn_implementation": ["eager", "sdpa"], "batch_size": [1, 8]}
    (project.folder / "params.yaml").write_text(json.dumps({"sweep": sweep_asked}))
    (note,) = read_side("workspace", project.folder).notes
    assert "sweep.batch_size changed since" in note
    assert "dvc repro" in note
    (project.folder / "params.yaml").write_text(json.dumps({"sweep": {**sweep_asked, "batch_size": [1]}}))
    assert read_side("workspace", project.folder).notes == ()
    # YAML has a number for a rate, and the tables what params.yaml spells.
    project.measure(replace(PLAN, configurations=[replace(each, request_rate="2") for each in PLAN.configurations]))
    rated = {**sweep_asked, "batch_size": [1], "request_rate": [2]}
    (project.folder / "params.yaml").write_text(json.dumps({"sweep": rated}))
    assert read_side("workspace", project.folder).notes == ()


def test_an_experiment_is_read_by_its_name(project: Project) -> None:
    baseline, commit = (project.git("rev-parse", name).strip() for name in ("HEAD", "v1"))
    project.git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/happy-otter", commit)
    side = read_side("happy-otter", project.folder)
    assert (side.revision, side.label) == (commit, "happy-otter")
    # The same name once more, from another commit: the one that started from HEAD is meant.
    project.git("update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/happy-otter", baseline)
    assert read_side("happy-otter", project.folder).revision == commit
    project.git("checkout", "--quiet", "bare")
    with pytest.raises(UserError, match="the name of 2 DVC experiments"):
        read_side("happy-otter", project.folder)


def test_a_project_below_the_top_of_its_repository(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "top", below="bench/marks")
    project.measure(PLAN)
    project.commit("results")
    side = read_side("HEAD", project.folder)
    assert side.points.equals(synthetic_tables(PLAN).points)
    assert side.environment == MACHINE
    assert side.params["device"] == "cpu"


def test_the_tables_are_found_whatever_the_stage_that_makes_them_is_called(project: Project) -> None:
    pipeline = project.folder / "dvc.yaml"
    pipeline.write_text(pipeline.read_text().replace("  tables:", "  aggregate:"))
    (project.folder / "dvc.lock").unlink()
    project.measure(PLAN)
    project.commit("as another hfbench calls it", tag="renamed")
    assert read_side("renamed", project.folder).points.equals(synthetic_tables(PLAN).points)
    assert read_side("renamed~1", project.folder).points.equals(synthetic_tables(OTHER).points)
    content = project.compare_json("v1", "renamed~1", "renamed")
    assert [row["commits_without_results_before"] for row in content["rows"]] == [0, 0, 0]


def test_of_a_dvc_lock_only_the_tables_are_read() -> None:
    stage = "  {}:\n    cmd: python\n    deps:\n    - path: results/tables\n      md5: 1\n    outs:\n    - path: {}\n{}"
    held = "      hash: md5\n      md5: 5ab.dir\n      size: 12\n      nfiles: 4\n"
    lock = "schema: '2.0'\nstages:\n" + stage.format("report", "results/report.html", held)
    assert locked_tables(lock) is None
    found = locked_tables(lock + stage.format("anything@1", "results/tables", held) + "  other: {never: parsed\n")
    assert found == {"path": "results/tables", "hash": "md5", "md5": "5ab.dir", "size": 12, "nfiles": 4}


def test_a_folder_with_tables_alone_is_a_side(tmp_path: Path) -> None:
    write_tables(synthetic_tables(PLAN), tmp_path / "import" / "tables")
    side = read_side("./import", tmp_path)
    assert side.points.equals(synthetic_tables(PLAN).points)
    assert (side.environment, side.manifests, side.params, side.revision) == ({}, {}, {}, None)
    (tmp_path / "import" / "environment.json").write_text(json.dumps(MACHINE))
    (tmp_path / "import" / "params.json").write_text('{"device": "cpu"}')
    side = read_side(str(tmp_path / "import"), tmp_path)
    assert (side.environment, side.params) == (MACHINE, {"device": "cpu"})


def test_a_branch_comes_before_a_folder_of_its_name(project: Project) -> None:
    write_tables(synthetic_tables(OTHER), project.folder / "v1" / "tables")
    assert read_side("v1", project.folder).revision is not None
    assert read_side("./v1", project.folder).revision is None


def test_a_column_that_an_older_hfbench_did_not_know_is_null(tmp_path: Path) -> None:
    tables = synthetic_tables(PLAN)
    write_tables(
        replace(tables, points=tables.points.drop("kernels", "input_tensors_sha256")), tmp_path / "old" / "tables"
    )
    points = read_side("./old", tmp_path).points
    assert points["input_tensors_sha256"].null_count() == points.height
    assert points.schema["kernels"] == pl.List(pl.String)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("v11", "Did you mean v1"),
        ("mian", "Did you mean main"),
        ("qqqq", "git log"),
        ("./nowhere", "is no git revision"),
    ],
)
def test_an_unknown_name_is_told_with_close_ones(project: Project, name: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        read_side(name, project.folder)


def test_a_commit_without_results_says_what_makes_them(project: Project) -> None:
    with pytest.raises(UserError, match=r"bare \(\w{7}\) has no results.*`git checkout bare && dvc repro`"):
        read_side("bare", project.folder)


def test_outside_of_a_repository_a_revision_is_not_to_be_found(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="here is no git repository"):
        read_side("HEAD", tmp_path)


def test_a_workspace_without_tables_says_what_makes_them(project: Project) -> None:
    shutil.rmtree(project.folder / "results" / "tables")
    with pytest.raises(UserError, match="Run `dvc repro`"):
        read_side("workspace", project.folder)


@pytest.mark.parametrize("kept", [0, 1])
def test_results_that_are_in_no_cache_say_how_to_get_them(project: Project, kept: int) -> None:
    """Whether all is gone, or only the tables and not the list of them."""
    for path in sorted((project.folder / ".dvc" / "cache").rglob("*")):
        if path.is_file() and not (kept and path.suffix == ".dir"):
            path.unlink()
    with pytest.raises(UserError, match=r"neither in DVC's cache nor in a remote.*`dvc pull`.*`git checkout v1 &&"):
        read_side("v1", project.folder)


def test_results_that_only_a_remote_has_are_read_from_it(project: Project, tmp_path: Path) -> None:
    from dvc.repo import Repo

    config = project.folder / ".dvc" / "config"
    config.write_text(f"[core]\n    remote = shelf\n['remote \"shelf\"']\n    url = {tmp_path / 'shelf'}\n")
    with Repo(str(project.folder)) as repo:
        repo.push()
    shutil.rmtree(project.folder / ".dvc" / "cache")
    assert read_side("HEAD", project.folder).points.equals(synthetic_tables(OTHER).points)


def test_a_broken_table_and_a_table_of_something_else_are_told(project: Project) -> None:
    path = project.folder / "results" / "tables" / "points.parquet"
    path.unlink()
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"points\.parquet is no readable table"):
        read_side("workspace", project.folder)
    pl.DataFrame({"round": [1]}).write_parquet(path)
    with pytest.raises(UserError, match="has no column model"):
        read_side("workspace", project.folder)


def test_the_synthetic_tables_have_the_columns_that_aggregate_writes(tmp_path: Path) -> None:
    """And so a side can be read from real ones."""
    real = tables_of(tmp_path / "records", ok_record(point(), observed([0.1, 0.2, 0.3, 0.4])))
    synthetic = synthetic_tables(PLAN)
    assert synthetic.samples.schema == real.samples.schema
    assert synthetic.summary.schema == real.summary.schema
    assert synthetic.points.schema.items() <= real.points.schema.items()
    assert synthetic.configurations.schema.items() <= real.configurations.schema.items()
    real.write(tmp_path / "real" / "tables")
    values = values_of(read_side("./real", tmp_path), COMPARED)
    assert values[tuple(vars(point()).values())[1:]]["load_seconds"][1] == 0.5
