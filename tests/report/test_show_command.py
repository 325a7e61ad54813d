"""`hfbench show` as a person runs it, in each format."""

import csv
import io
import json
import re
from pathlib import Path

import pytest

from hfbench.core.point import CONFIGURATION_AXES
from hfbench.report.pages import standard_output
from hfbench.report.show import print_results
from hfbench.tables.store import read_table
from tests.report.point_records import run_show, save_mixed_results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    save_mixed_results(folder)
    return folder


def _printed(capsys: pytest.CaptureFixture[str], results: Path, *words: str) -> str:
    run_show(results, *words)
    return capsys.readouterr().out


def test_the_table_is_the_one_that_aggregate_prints(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    shown = _printed(capsys, results)
    print_results(results / "tables")
    assert shown == capsys.readouterr().out
    assert "all with compile off" in shown


def test_csv_has_full_precision_and_what_failed(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(_printed(capsys, results, "--format", "csv"))))
    assert len(rows) == 9
    summary = read_table(results / "tables", "summary")
    for row in rows[:6]:
        estimate = summary.filter(
            metric="decode_tokens_per_second",
            attn_implementation=row["attn_implementation"],
            batch_size=int(row["batch_size"]),
        ).row(0, named=True)
        assert float(row["decode_tokens_per_second"]) == estimate["estimate"]
        assert float(row["decode_tokens_per_second_low"]) == estimate["low"]
    assert all(
        re.search(r"_(seconds|second|bytes|tokens?|low|high|fraction)$", name)
        for name in list(rows[0])[len(CONFIGURATION_AXES) + 2 : -3]
    )
    crashed = next(row for row in rows if (row["attn_implementation"], row["batch_size"]) == ("sdpa", "2"))
    assert (crashed["rounds_ok"], crashed["rounds_asked"]) == ("2", "3")
    assert crashed["not_ok"] == "failed in round 3: RuntimeError: no kernel"
    assert [row["rounds_ok"] for row in rows[6:]] == ["0"] * 3
    assert rows[6]["not_ok"] == "unsupported in round 1, 2, 3: ImportError: <a|b> is *not* there"
    assert rows[6]["end_to_end_seconds"] == ""


def test_json_holds_the_same_and_the_warnings(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    content = json.loads(_printed(capsys, results, "--format", "json", "--filter", 'attn_implementation == "sdpa"'))
    rows = content["configurations"]
    assert [row["batch_size"] for row in rows] == [1, 2, 16]
    assert rows[0]["not_ok"] is None
    assert rows[0]["use_kernels"] is False
    assert rows[0]["peak_memory_bytes"] == 300 * 2**20
    assert {warning["code"] for warning in content["warnings"]} >= {"reference_missing"} or content["warnings"]
    assert all("sdpa" in warning["point"] for warning in content["warnings"])


def test_data_has_the_columns_asked_for_in_their_order(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    text = _printed(capsys, results, "--format", "csv", "--columns", "decode,batch,rounds", "--sort", "decode:desc")
    lines = text.splitlines()
    assert lines[0] == (
        "decode_tokens_per_second,decode_tokens_per_second_low,decode_tokens_per_second_high,"
        "batch_size,rounds_asked,rounds_ok"
    )
    values = [float(line.split(",")[0]) for line in lines[1:7]]
    assert values == sorted(values, reverse=True)


def test_markdown_is_a_table_whose_cells_are_not_torn(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    text = _printed(capsys, results, "--format", "markdown")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2  # the results, and what is not ok
    for lines in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert re.fullmatch(r"\| :-- \| --: (\| --: )+\|", tables[0][1])
    assert text.count("**") % 2 == 0
    best = [line for line in tables[0] if "**" in line]
    assert len(best) >= 3
    assert r"&lt;a\|b> is \*not\* there" in text
    assert "\n- *" in text  # warnings


def test_the_table_is_never_cut_however_many_columns_are_asked_for(
    capsys: pytest.CaptureFixture[str], results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hfbench.report.show.standard_output", lambda: standard_output(50))
    names = "ttft,inter-token,decode,prefill,end-to-end,95% interval,load,peak memory,batch"
    text = _printed(capsys, results, "--columns", names)
    rows = [line for line in text.splitlines() if re.match(r"(sdpa|eager) b\d+ +\d+\.\d", line)]
    assert len(rows) == 6
    assert all(len(row.split()) == 12 for row in rows)  # the interval is three words, and the point two
    assert "…" not in re.sub(r"\d … \d", "", "".join(rows))
