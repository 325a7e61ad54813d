"""`hfbench show`: the results as a person sees them, at several widths, in each format, and what of them is chosen."""

import csv
import io
import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from benchmarks.synthetic_records import synthetic_record
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES, Configuration
from hfbench.core.record import Record
from hfbench.report.frames import Results, read_results, warning_groups
from hfbench.report.pages import print_page, standard_output
from hfbench.report.show import Choice, chosen_view, results_page
from hfbench.tables.build import Tables
from hfbench.tables.store import read_table
from tests.report.report_records import measured, run_show, save_mixed_results, sweep_records
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of

REASON = (
    "ImportError: the package flash_attn seems to be not installed. [bold]Install it[/bold] or take another "
    "attn_implementation; see https://example.org/a/long/address/that/cannot/be/broken/at/a/blank/anywhere/in/it.html"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of 2 attentions at 2 batch sizes, 3 rounds each, and of one attention that cannot run."""
    folder = tmp_path_factory.mktemp("tables")
    records = []
    for number, attention, batch_size in product((1, 2, 3), ("eager", "sdpa", "flash_attention_2"), (1, 4)):
        axes = point(round=number, attn_implementation=attention, batch_size=batch_size, max_new_tokens=8)
        does_run = attention != "flash_attention_2"
        records.append(synthetic_record(axes, 5) if does_run else failed_record(axes, REASON))
    tables_of(folder / "measurements", *records).write(folder)
    return folder


def _lines(folder: Path, width: int) -> list[str]:
    stream = io.StringIO()
    page = results_page(chosen_view(read_results(folder), Choice()), width)
    print_page(page, Console(file=stream, width=width, highlight=False))
    return stream.getvalue().splitlines()


def test_all_columns_and_rows_at_120(folder: Path) -> None:
    lines = _lines(folder, 120)
    assert lines[0] == "tiny · Synthetic device · bfloat16"
    assert lines[1] == "6 configurations, 12 of 18 records ok"
    assert "new tokens 8" in lines[2]
    header = " ".join(lines[4:7])
    names = ("attention", "batch", "rounds", "TTFT", "inter-token", "decode", "prefill", "end-to-end", "load", "MiB")
    assert all(name in header for name in names)
    assert "Not shown" not in "\n".join(lines)
    assert "model" not in header  # constant axes stand in the caption
    rows = [line.split() for line in lines if line.startswith(("sdpa", "eager"))]
    assert [" ".join(row[:3]) for row in rows] == ["sdpa 1 3", "eager 1 3", "sdpa 4 3", "eager 4 3"]
    # attention, batch, rounds, five metrics, the range's three words, load, memory
    assert {len(row) for row in rows} == {13}
    assert rows[0][7].endswith("*")
    assert not rows[1][7].endswith("*")


def test_no_number_is_cut_at_any_width(folder: Path) -> None:
    wide = [line for line in _lines(folder, 200) if line.startswith(("sdpa", "eager"))]
    for width in range(40, 125):
        lines = _lines(folder, width)
        assert max(map(cell_len, lines)) <= width
        table = [line for line in lines if line.startswith(("sdpa", "eager"))]
        assert len(table) == 4
        for line, whole in zip(table, wide, strict=True):
            cells, whole_cells = re.split(r"\s{2,}", line.strip()), re.split(r"\s{2,}", whole.strip())
            # The first cell is the point, whole or only its attention.
            assert set(cells[1:]) <= set(whole_cells), width


def test_lesser_columns_go_first_at_80(folder: Path) -> None:
    text = "\n".join(_lines(folder, 80))
    assert "end-to-end" in text
    assert "decode" in text
    dropped = text[text.index("Not shown at this width: ") :].split(".")[0]
    assert "load" in dropped
    assert "end-to-end" not in dropped


@pytest.mark.parametrize("width", [120, 80, 50])
def test_the_whole_reason_is_readable(folder: Path, width: int) -> None:
    lines = _lines(folder, width)
    first = next(index for index, line in enumerate(lines) if line.startswith("point") and "reason" in line)
    column = lines[first].index("reason")
    reason = "".join(line[column:].replace(" ", "") for line in lines[first + 2 :])
    assert REASON.replace(" ", "") * 2 == reason


def test_many_long_axes_become_one_column(tmp_path: Path) -> None:
    names = ["kernels-community/flash-attn3@v1.0.0:flash_attn_varlen_func", "sdpa:efficient_attention"]
    values = product(names, ("off", "max-autotune-no-cudagraphs"), ("bfloat16", "float32"), (False, True))
    axes = ("attn_implementation", "compile_mode", "dtype", "use_kernels")
    points = [point(max_new_tokens=8, **dict(zip(axes, each, strict=True))) for each in values]
    tables = tables_of(tmp_path / "measurements", *(synthetic_record(each, 5) for each in points))
    lines = _printed(tmp_path, tables, 80)
    assert max(map(cell_len, lines)) <= 80
    header = next(index for index, line in enumerate(lines) if line.startswith("point"))
    assert lines[header].split()[1:] == ["rounds", "(ms)", "(ms)", "(tok/s)", "(s)"]
    rows = [line.split() for line in lines[header + 2 :] if re.search(r"  \d", line)]
    assert len(rows) == len(points)
    assert all(len(re.findall(r"\d+(?:\.\d+)?", " ".join(row[-5:]))) == 5 for row in rows)
    first_column = " ".join(line[:26].strip() for line in lines[header + 2 :])
    assert "sdpa:efficient_attention kernels float32" in first_column


def test_one_configuration_has_no_axes_to_show(tmp_path: Path) -> None:
    lines = _printed(tmp_path, tables_of(tmp_path / "m", ok_record(point(), observed([0.5, 0.6, 0.8, 1.1]))), 80)
    assert any(line.split()[:2] == ["1", "500"] for line in lines)
    assert "*" not in "".join(lines)


def test_nothing_measured(tmp_path: Path) -> None:
    text = " ".join(_printed(tmp_path, tables_of(tmp_path / "m", failed_record(point(), REASON)), 80))
    assert "No point could be measured." in text


EAGER, SDPA, FLEX = (point(attn_implementation=name) for name in ("eager", "sdpa", "flex_attention"))


def _measured(configuration: Configuration, load: float = 0.0) -> Record:
    return measured(configuration, 0.6, machine_before={"cpu_percent": load} if load else {})


def _printed(folder: Path, tables: Tables, width: int = 100) -> list[str]:
    tables.write(folder)
    return _lines(folder, width)


def test_one_finding_of_all_is_said_once(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, _measured(EAGER), _measured(SDPA), failed_record(FLEX, "no"))
    (group,) = warning_groups(tables.warnings, tables.points)
    assert group.title == "few rounds"
    assert group.remedy == "Give sweep.round at least 3 values."
    assert group.findings == (("both configurations", "one round, and it takes 3 to tell noise from effect"),)


def test_the_only_configuration_needs_no_name(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, _measured(SDPA), failed_record(EAGER, "no"))
    groups = {group.title: group for group in warning_groups(tables.warnings, tables.points)}
    assert groups.keys() == {"reference missing", "few rounds"}
    assert groups["few rounds"].findings[0][0] == ""
    lines = _printed(tmp_path / "tables", tables)
    _, finding, remedy, *_ = lines[lines.index("few rounds") :]
    assert finding == "  one round, and it takes 3 to tell noise from effect"
    assert remedy == "  → Give sweep.round at least 3 values."


def test_findings_that_differ_stand_one_by_one(tmp_path: Path) -> None:
    loads = {1: 50, 2: 60, 4: 70, 8: 80, 16: 90, 32: 50}
    records = [_measured(replace(EAGER, batch_size=size), load) for size, load in loads.items()]
    tables = tables_of(tmp_path, *records)
    group = warning_groups(tables.warnings, tables.points)[-1]
    assert group.title == "machine loaded"
    assert group.findings[:2] == (
        ("b1, b32", "50% of the CPUs were busy just before a round began"),
        ("b2", "60% of the CPUs were busy just before a round began"),
    )
    lines = _printed(tmp_path / "tables", tables)
    findings = [line.split(":")[0].strip() for line in lines[lines.index("machine loaded") :][1:5]]
    assert findings == ["b1, b32", "b2", "b4", "and 2 more, in the report"]


@pytest.mark.parametrize("width", [120, 50])
def test_warnings_stand_below_the_results_at_any_width(tmp_path: Path, width: int) -> None:
    tables = tables_of(tmp_path, _measured(EAGER, 80), _measured(SDPA), failed_record(FLEX, "no"))
    lines = _printed(tmp_path / "tables", tables, width)
    assert lines.index("Warnings") < lines.index("Not ok")
    assert max(map(cell_len, lines)) <= width
    assert "hfbench doctor" in " ".join(" ".join(lines).split())


def test_no_warning_no_heading(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, *(_measured(replace(EAGER, round=number)) for number in (1, 2, 3)))
    assert tables.warnings == []
    assert "Warnings" not in _printed(tmp_path / "tables", tables)


@pytest.mark.parametrize(("modes", "is_shown"), [(["off"], False), (["off", "default"], True)])
def test_break_even_has_a_column_where_something_was_compiled(tmp_path: Path, modes: list[str], is_shown: bool) -> None:
    tables = tables_of(tmp_path / "measurements", *sweep_records(compile_mode=modes))
    assert ("break-even" in " ".join(_printed(tmp_path, tables, 160))) is is_shown


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("selection")
    seconds = {EAGER: 2.0, SDPA: 1.0, replace(EAGER, batch_size=8): 4.0, replace(SDPA, batch_size=8): 3.0}
    records = [measured(axes, each, load_seconds=None if axes == SDPA else each / 10) for axes, each in seconds.items()]
    tables_of(folder / "m", *records, failed_record(FLEX, "no")).write(folder)
    return read_results(folder)


def _order(selected: Results, **choice: str) -> list[tuple[str, int]]:
    return chosen_view(selected, Choice(**choice)).rows.select("attn_implementation", "batch_size").rows()  # type: ignore[arg-type]


def test_a_condition_narrows_rows_warnings_and_failures(selected: Results) -> None:
    view = chosen_view(selected, Choice('batch_size == 8 and attn_implementation != "flex_attention"'))
    assert view.rows.select("attn_implementation", "batch_size").rows() == [("sdpa", 8), ("eager", 8)]
    assert {warning.configuration["batch_size"] for warning in view.results.warnings} == {8}
    assert view.results.points.height == 2
    assert view.note is not None
    assert view.note.text.startswith("2 of 5 configurations, where batch_size == 8")
    # Of the axes, the batch size no longer varies.
    assert [column.label for column in view.columns][:2] == ["attention", "rounds"]


def test_best_is_the_best_of_what_is_left(selected: Results) -> None:
    assert chosen_view(selected, Choice()).rows["end_to_end_seconds_best"].to_list() == [True, False, True, False]
    alone = chosen_view(selected, Choice('attn_implementation == "eager"'))
    assert alone.rows["end_to_end_seconds_best"].to_list() == [False, False]


def test_rows_are_sorted_by_metric_or_axis_and_those_without_a_value_stand_last(selected: Results) -> None:
    assert _order(selected, sort="end_to_end_seconds") == [("sdpa", 2), ("eager", 2), ("sdpa", 8), ("eager", 8)]
    assert _order(selected, sort="End to end:desc") == [("eager", 8), ("sdpa", 8), ("eager", 2), ("sdpa", 2)]
    assert _order(selected, sort="load")[-1] == ("sdpa", 2)
    assert _order(selected, sort="load:desc")[-1] == ("sdpa", 2)
    assert [row[0] for row in _order(selected, sort="attention")] == ["eager", "eager", "sdpa", "sdpa"]
    view = chosen_view(selected, Choice(sort="load:asc"))
    assert len(set(view.sections)) == 1  # no lines between workloads that no longer stand together


def test_columns_are_known_by_full_and_by_displayed_names(selected: Results) -> None:
    def names(*columns: str) -> list[str]:
        return [column.name for column in chosen_view(selected, Choice(columns=columns)).columns]

    axes = ["batch_size", "attn_implementation"]
    assert names("batch", "attn_implementation", "TTFT", "first_call_seconds") == [
        *axes,
        "time_to_first_token_seconds",
        "first_call_seconds",
    ]
    assert names("end-to-end") == [*axes[::-1], "end_to_end_seconds"]  # a row always says what it is of


@pytest.mark.parametrize(
    ("choice", "parts"),
    [
        (
            Choice(columns=("decode", "speed")),
            ["'speed'", "end_to_end_seconds (end-to-end)", "batch_size (batch)", "dtype"],
        ),
        (Choice(columns=("end_to_ende",)), ["Did you mean end-to-end?"]),
        (Choice(sort="decod"), ["Did you mean decode?"]),
        (Choice(sort="decode:up"), ["Expected :asc or :desc"]),
        (Choice(sort="energy"), ["no configuration has a value of energy_joules_per_token"]),
        (Choice("batch_size == 3"), ["no configuration meets", "batch_size is 2, 8", 'dtype is "bfloat16"']),
        (Choice("round == 1"), ["there is no round"]),
    ],
)
def test_what_is_not_known_gets_a_sentence(selected: Results, choice: Choice, parts: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        chosen_view(selected, choice)
    assert all(part in str(raised.value) for part in parts), raised.value


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    save_mixed_results(folder)
    return folder


def _shown(capsys: pytest.CaptureFixture[str], results: Path, *words: str) -> str:
    run_show(results, *words)
    return capsys.readouterr().out


def test_below_the_table_stands_where_the_report_is(
    capsys: pytest.CaptureFixture[str], results: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    report.touch()
    shown = _shown(capsys, results, "--report", str(report))
    assert "end-to-end" in shown
    assert shown.endswith(f"\nreport: {report}\n")


def test_csv_has_full_precision_and_what_failed(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(_shown(capsys, results, "--format", "csv"))))
    assert len(rows) == 9
    summary = read_table(results / "tables", "summary")
    for row in rows[:6]:
        axes = {"attn_implementation": row["attn_implementation"], "batch_size": int(row["batch_size"])}
        estimate = summary.filter(metric="decode_tokens_per_second", **axes).row(0, named=True)
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
    content = json.loads(_shown(capsys, results, "--format", "json", "--filter", 'attn_implementation == "sdpa"'))
    rows = content["configurations"]
    assert [row["batch_size"] for row in rows] == [1, 2, 16]
    assert rows[0]["not_ok"] is None
    assert rows[0]["use_kernels"] is False
    assert rows[0]["peak_memory_bytes"] == 300 * 2**20
    assert content["warnings"]
    assert all("sdpa" in warning["point"] for warning in content["warnings"])
    samples = [each for each in content["samples"] if each["batch_size"] == 16]
    assert {each["attn_implementation"] for each in content["samples"]} == {"sdpa"}
    assert {each["round"] for each in samples} == {1, 2, 3}
    (times,) = samples[0]["token_seconds"]
    assert len(times) == samples[0]["max_new_tokens"]
    assert times[0] == samples[0]["time_to_first_token_seconds"]
    percentiles = [rows[2][f"inter_token_gap_p{percent}_seconds"] for percent in (50, 90, 95, 99)]
    assert percentiles == sorted(percentiles)


def test_data_has_the_columns_asked_for_in_their_order(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    text = _shown(capsys, results, "--format", "csv", "--columns", "decode,batch,rounds", "--sort", "decode:desc")
    lines = text.splitlines()
    assert lines[0] == (
        "decode_tokens_per_second,decode_tokens_per_second_low,decode_tokens_per_second_high,"
        "batch_size,rounds_asked,rounds_ok"
    )
    values = [float(line.split(",")[0]) for line in lines[1:7]]
    assert values == sorted(values, reverse=True)


def test_markdown_is_a_table_whose_cells_are_not_torn(capsys: pytest.CaptureFixture[str], results: Path) -> None:
    text = _shown(capsys, results, "--format", "markdown")
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
    text = _shown(capsys, results, "--columns", names)
    rows = [line for line in text.splitlines() if re.match(r"(sdpa|eager) b\d+ +\d+\.\d", line)]
    assert len(rows) == 6
    assert all(len(row.split()) == 12 for row in rows)  # the interval is three words, and the point two
    assert "…" not in re.sub(r"\d … \d", "", "".join(rows))
