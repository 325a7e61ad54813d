"""The HTML report: well-formed, whole in itself, and nothing in it acts as markup that was not meant to."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hfbench.core import results
from hfbench.core.files import write_json
from hfbench.report.machine import environment_groups
from hfbench.tables.metrics import METRICS
from tests.conftest import ROOT, run_stage
from tests.report.page_reader import CEILINGS, ENVIRONMENT, MANIFEST, NASTY, PARAMS, Reader, page_of, write_tables
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of, unobserved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("tables"))


def test_the_page_says_what_was_measured_on_what(folder: Path) -> None:
    reader = Reader(page_of(folder, ENVIRONMENT, CEILINGS))
    text = " ".join(reader.texts)
    for wanted in (
        "tiny · Fast <b>CPU</b> · bfloat16",
        "3 configurations, 2 of 3 records ok.",
        "2025-03-01 10:00:00 UTC to 2025-03-01 10:05:00 UTC",
        "1.10*",
        "2.13.0",
        "vendor nvidia, H200",
        "21.3 GB/s",
        "1.10 TFLOP/s",
        *(metric.name for metric in METRICS),
    ):
        assert wanted in text


def test_the_same_input_makes_the_same_bytes(folder: Path) -> None:
    assert page_of(folder, ENVIRONMENT, CEILINGS) == page_of(folder, ENVIRONMENT, CEILINGS)


def test_provenance_names_model_params_digests_and_the_way_to_the_commit(tmp_path: Path) -> None:
    digests = {"environment": "e" * 64, "manifest": "f" * 64, "inputs": "0" * 64}
    tables_of(tmp_path / "m", ok_record(point(), observed([0.5, 0.6]), provenance=digests)).write(tmp_path)
    text = " ".join(Reader(page_of(tmp_path, {}, {}, manifests=[MANIFEST], params=PARAMS)).texts)
    for wanted in (
        *digests.values(),
        "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d",
        "OWNER/TINY",
        "model.safetensors, 1,234,567 bytes, sha256 " + "ab" * 32,
        '{"round": [1], "batch_size": [2]}',
        'git log --oneline -S "$(md5sum < results/report.html | cut -c1-32)" -- dvc.lock',
    ):
        assert wanted in text


def test_the_sections_stand_in_the_order_of_the_questions(folder: Path) -> None:
    page = page_of(folder, ENVIRONMENT, CEILINGS)
    assert re.findall("<h2>(.*?)</h2>", page[: page.index("<script")]) == [
        "Which way is fastest",
        "Throughput against latency",
        "Decode and prefill beside the roofline",
        "Every sample, by round",
        "Between tokens, along the sequence",
        "From process start to first token",
        "Memory",
        "Results",
        "Warnings",
        "Not ok",
        "Environment and provenance",
        "How the numbers are defined",
    ]


@pytest.mark.parametrize("environment", [{}, {"packages": None, "accelerators": [], "cpu": {}}, {"packages": ["a", 1]}])
def test_the_environment_may_lack_anything(folder: Path, environment: dict[str, Any]) -> None:
    reader = Reader(page_of(folder, environment, {}))
    assert "Results" in reader.texts
    assert "What the device can do" not in reader.texts


def test_the_environment_is_grouped() -> None:
    caches = [{"level": 1, "size": "48K"}, {"level": 2, "size": "2M"}]
    assert environment_groups({"schema_version": 1, "cpu": {"smt": False, "caches": caches}, "compiler": "g++"}) == [
        ("general", [("compiler", "g++")]),
        ("cpu", [("smt", "no"), ("caches", "level 1, size 48K; level 2, size 2M")]),
    ]


def test_the_cost_of_observing_is_that_of_all_records(tmp_path: Path) -> None:
    costs = {1: 0.5, 2: 1.0, 3: 4.0}
    records = [
        ok_record(point(round=number), observed([0.1, 0.2], end_to_end=cost), unobserved(1.0))
        for number, cost in costs.items()
    ]
    tables_of(tmp_path / "measurements", *records).write(tmp_path)
    text = " ".join(Reader(page_of(tmp_path, {}, {})).texts)
    assert "is 1.00 in the middle record, 0.500 in the lowest and 4.00 in the highest" in text


def test_nothing_measured(tmp_path: Path) -> None:
    tables_of(tmp_path / "measurements", failed_record(point(), NASTY)).write(tmp_path)
    page = page_of(tmp_path, ENVIRONMENT, CEILINGS)
    reader = Reader(page)
    assert "data-chart" not in page
    assert len(page) < 100_000  # and nothing that draws
    assert "No point could be measured." in reader.texts
    assert NASTY.replace("\x1b", "") in reader.texts


def test_the_stage_writes_the_page(folder: Path, tmp_path: Path) -> None:
    write_json(tmp_path / results.ENVIRONMENT, ENVIRONMENT)
    MANIFEST.save(tmp_path / results.MODELS / "tiny.json")
    write_json(tmp_path / "params.yaml", {"models": {}, **PARAMS})
    shutil.copytree(folder, tmp_path / results.TABLES)
    result = run_stage("report", tmp_path, HFBENCH_TABLE="off")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (tmp_path / results.REPORT).read_text() == page_of(
        folder, ENVIRONMENT, {}, manifests=[MANIFEST], params=PARAMS
    )


def test_the_stage_without_tables_ends_with_a_sentence(tmp_path: Path) -> None:
    result = run_stage("report", tmp_path)
    assert result.returncode == 1
    assert ".parquet does not exist. Run `dvc repro`" in result.stderr
    assert "Traceback" not in result.stderr


def test_show_prints_the_results_and_where_the_report_is(folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text("")
    command = [sys.executable, "-m", "hfbench.cli", "show", "--tables", str(folder), "--report", str(report)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "end-to-end" in result.stdout
    assert result.stdout.endswith(f"report: {report}\n")


def test_a_prefill_alone_has_no_numbers_of_decoding(tmp_path: Path) -> None:
    alone = [ok_record(point(round=number, max_new_tokens=1), observed([0.5])) for number in (1, 2)]
    tables_of(tmp_path / "m", *alone).write(tmp_path)
    page = page_of(tmp_path, {}, {})
    text = " ".join(Reader(page).texts)
    assert "40.0" in text  # 2 rows of 10 prompt tokens in 0.5 s
    assert text.count("No configuration was measured that generates more than one token.") == 2
    assert "inter-token" not in re.sub(r".*<section id=\"results\">(.*?)</section>.*", r"\1", page, flags=re.DOTALL)
