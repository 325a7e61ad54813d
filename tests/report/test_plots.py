"""The data of DVC's plots, and DVC itself drawing them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from hfbench.report.frames import write_plots
from hfbench.tables.build import Tables
from tests.compare.project import Project
from tests.conftest import ROOT
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of, unobserved

FOLDER = "results/plots"
EAGER = {"attn_implementation": "eager"}


def _written(folder: Path, tables: Tables) -> dict[str, pl.DataFrame]:
    write_plots(tables.summary, tables.samples, tables.points, folder)
    return {path.stem: pl.read_csv(path) for path in folder.iterdir()}


def test_the_samples_of_each_round(tmp_path: Path) -> None:
    tables = tables_of(
        tmp_path / "m",
        ok_record(point(), observed([0.5, 0.6], phase="first"), observed([0.5, 0.7]), unobserved(0.8)),
        ok_record(point(round=2), observed([0.5, 0.9])),
        failed_record(point(**EAGER), "no"),
    )
    samples = _written(tmp_path / "plots", tables)["samples"]
    key = "tiny sdpa b2 s10 n4"
    assert samples.rows() == [(key, 1, 1, 0.7, True), (key, 1, 2, 0.8, False), (key, 2, 1, 0.9, True)]


def test_an_interval_is_cut_where_it_would_hide_the_rest(tmp_path: Path) -> None:
    records = [ok_record(point(round=n), observed([0.5, end])) for n, end in ((1, 1.0), (2, 1.1), (3, 9.0))]
    tables = tables_of(tmp_path / "m", *records)
    high = tables.summary.filter(metric="end_to_end_seconds")["high"][0]
    drawn = _written(tmp_path / "plots", tables)["end_to_end"]
    assert high > 2.2
    assert drawn["high"][0] == pytest.approx(2.2)


def test_nothing_measured_is_a_header_alone(tmp_path: Path) -> None:
    plots = _written(tmp_path / "plots", tables_of(tmp_path / "m", failed_record(point(), "no")))
    assert len(plots) == 2
    assert all(plot.height == 0 and plot.columns for plot in plots.values())


PLOTS: list[dict[str, dict[str, Any]]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
DEFINITIONS = [definition for plot in PLOTS for definition in plot.values()]


def test_templates_and_definitions_name_columns_that_there_are(tmp_path: Path) -> None:
    plots = _written(tmp_path / "plots", tables_of(tmp_path / "m", ok_record(point(), observed([0.5, 0.6]))))
    drawn = set()
    for definition in DEFINITIONS:
        ((data, y),) = definition["y"].items()
        columns = {*plots[Path(data).stem].columns, "rev"}
        drawn.add(Path(data).stem)
        assert Path(data).parent.as_posix() == FOLDER
        assert {definition["x"], y} <= columns
        assert {"title", "x_label", "y_label"} <= definition.keys()
        path = ROOT / ".dvc/plots" / f"{definition['template']}.json"
        if not path.exists():  # one of DVC's own
            continue
        template = path.read_text()
        fields = set(re.findall(r'"field": "(\w+)"', template)) | set(re.findall(r"datum\['(\w+)'\]", template))
        assert fields <= columns, definition["template"]
        assert {"<DVC_METRIC_DATA>", "<DVC_METRIC_TITLE>", "<DVC_METRIC_X>"} <= set(
            re.findall("<DVC_METRIC_[A-Z_]+>", template)
        )
    assert drawn == set(plots)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository with this one's plots and templates, and two commits of plots of different times."""
    project = Project.create(tmp_path_factory.mktemp("repository"))
    folder = project.folder
    shutil.copytree(ROOT / ".dvc/plots", folder / ".dvc/plots")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"plots": PLOTS}))
    for factor in (1, 2):
        times = observed([factor * at for at in (0.5, 0.6, 0.8)])
        _written(folder / FOLDER, tables_of(folder.parent / f"m{factor}", ok_record(point(), times)))
        project.commit_alone(f"factor {factor}")
    return folder


@pytest.mark.parametrize(
    ("words", "revisions"), [(["show"], {"workspace"}), (["diff", "HEAD~1"], {"HEAD~1", "workspace"})]
)
def test_dvc_draws_every_plot(repository: Path, tmp_path: Path, words: list[str], revisions: set[str]) -> None:
    dvc = [sys.executable, "-m", "dvc", "plots", *words, "--out", str(tmp_path)]
    subprocess.run(dvc, cwd=repository, check=True, capture_output=True)
    page = (tmp_path / "index.html").read_text()
    specifications = [json.loads(found) for found in re.findall(r"var spec = (\{.*\});", page)]
    assert len(specifications) == len(DEFINITIONS) > 0
    for specification in specifications:
        values = specification["data"]["values"]
        assert {value["rev"] for value in values} == revisions
        assert "<DVC_" not in json.dumps(specification)
    texts = {specification["title"]["text"] for specification in specifications}
    assert texts == {definition["title"] for definition in DEFINITIONS}
