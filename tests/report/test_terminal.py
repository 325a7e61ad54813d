"""The results as a person sees them, at several widths."""

import io
import re
from itertools import product
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from benchmarks.synthetic_records import synthetic_record
from hfbench.core.record import OK
from hfbench.report.show import print_results
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of

REASON = (
    "ImportError: the package flash_attn seems to be not installed. [bold]Install it[/bold] or take another "
    "attn_implementation; see https://example.org/a/long/address/that/cannot/be/broken/at/a/blank/anywhere/in/it.html"
)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of 2 attentions at 2 batch sizes, 3 rounds each, and of one attention that cannot run."""
    folder = tmp_path_factory.mktemp("tables")
    points = [
        point(round=number, attn_implementation=attention, batch_size=batch_size, max_new_tokens=8)
        for number, attention, batch_size in product((1, 2, 3), ("eager", "sdpa", "flash_attention_2"), (1, 4))
    ]
    records = [
        failed_record(each, REASON) if each.attn_implementation == "flash_attention_2" else synthetic_record(each, 5)
        for each in points
    ]
    assert {record.status for record in records} == {OK, "failed"}
    tables_of(folder / "measurements", *records).write(folder)
    return folder


def _lines(folder: Path, width: int) -> list[str]:
    stream = io.StringIO()
    print_results(folder, Console(file=stream, width=width, highlight=False))
    return stream.getvalue().splitlines()


def test_all_columns_at_120(folder: Path) -> None:
    lines = _lines(folder, 120)
    assert lines[0] == "tiny · Synthetic device · bfloat16"
    assert lines[1] == "6 configurations, 12 of 18 records ok"
    assert "new tokens 8" in lines[2]
    header = " ".join(lines[4:7])
    for word in (
        "attention",
        "batch",
        "rounds",
        "TTFT",
        "inter-token",
        "decode",
        "prefill",
        "end-to-end",
        "load",
        "MiB",
    ):
        assert word in header
    assert "Not shown" not in "\n".join(lines)
    assert "model" not in header  # constant axes stand in the caption


def test_rows_at_120(folder: Path) -> None:
    lines = _lines(folder, 120)
    rows = [line.split() for line in lines if line.startswith(("sdpa", "eager"))]
    assert [row[:3] for row in rows] == [
        ["sdpa", "1", "3"],
        ["eager", "1", "3"],
        ["sdpa", "4", "3"],
        ["eager", "4", "3"],
    ]
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
    points = [
        point(attn_implementation=name, compile_mode=mode, dtype=dtype, use_kernels=kernels, max_new_tokens=8)
        for name, mode, dtype, kernels in product(
            names, ("off", "max-autotune-no-cudagraphs"), ("bfloat16", "float32"), (False, True)
        )
    ]
    tables_of(tmp_path / "measurements", *(synthetic_record(each, 5) for each in points)).write(tmp_path)
    lines = _lines(tmp_path, 80)
    assert max(map(cell_len, lines)) <= 80
    header = next(index for index, line in enumerate(lines) if line.startswith("point"))
    assert lines[header].split()[1:] == ["rounds", "(ms)", "(ms)", "(tok/s)", "(s)"]
    rows = [line.split() for line in lines[header + 2 :] if re.search(r"  \d", line)]
    assert len(rows) == len(points)
    assert all(len(NUMBER.findall(" ".join(row[-5:]))) == 5 for row in rows)
    assert "sdpa:efficient_attention kernels float32" in _folded(lines[header + 2 :])


def _folded(lines: list[str]) -> str:
    """The first column's words."""
    return " ".join(line[:26].strip() for line in lines)


def test_one_configuration_has_no_axes_to_show(tmp_path: Path) -> None:
    tables_of(tmp_path / "measurements", ok_record(point(), observed([0.5, 0.6, 0.8, 1.1]))).write(tmp_path)
    lines = _lines(tmp_path, 80)
    assert any(line.split()[:2] == ["1", "500"] for line in lines)
    assert "*" not in "".join(lines)


def test_nothing_measured(tmp_path: Path) -> None:
    tables_of(tmp_path / "measurements", failed_record(point(), REASON)).write(tmp_path)
    text = "\n".join(_lines(tmp_path, 80))
    assert "No point could be measured." in text
    assert "[bold]Install it[/bold]" in " ".join(text.split())
