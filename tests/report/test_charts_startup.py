"""From the start of a process to its first token: phases that add up, and the round that stands for all."""

from pathlib import Path

from hfbench.core.record import Record
from hfbench.report.charts.startup import middle_rounds, startup_chart, startup_rounds
from tests.report.report_data_of import data_of, drawn, measured
from tests.tables.hand_records import observed, ok_record, point


def _started(number: int, first_token: float, compile_seconds: float | None = None) -> Record:
    """A round with 1 s before its import, 2 s in it, 3 s preparing, 4 s loading, 5 s checking, 20 s in a call."""
    timeline = {"import": 1.0, "prepare": 3.0, "load": 6.0, "verify": 10.0, "first call": 15.0, "warm-up": 35.0}
    call = observed([first_token, 19.0], phase="first")
    first = type(call)(**{**vars(call), "start_seconds": 15.5})
    compilation = {"compilation": {"graphs": 1, "seconds": compile_seconds}} if compile_seconds else {}
    record = ok_record(point(round=number), first, observed([0.1, 0.2]), effective=compilation)
    record.timeline = {**timeline, "sample": 41.0, "conclude": 50.0, "end": 51.0}
    return record


def test_the_phases_of_a_start_add_up(tmp_path: Path) -> None:
    data = data_of(tmp_path, [_started(1, 0.5, compile_seconds=12.0)])
    (row,) = startup_rounds(data.points, data.first_calls).to_dicts()
    phases = {name: row[name] for name in list(row)[6:]}
    assert phases == {
        "process start": 1.0,
        "import": 2.0,
        "prepare": 3.0,
        "load": 4.0,
        "checks": 5.0,
        "first call": 8.0,
        "compile": 12.0,
        "warm-up": 6.0,
    }
    assert row["first_token"] == 16.0
    assert sum(phases.values()) == 41.0


def test_compilation_is_no_longer_than_the_call_that_holds_it(tmp_path: Path) -> None:
    data = data_of(tmp_path, [_started(1, 0.5, compile_seconds=99.0)])
    (row,) = startup_rounds(data.points, data.first_calls).to_dicts()
    assert (row["first call"], row["compile"]) == (0.0, 20.0)


def test_the_middle_round_stands_for_all(tmp_path: Path) -> None:
    data = data_of(tmp_path, [_started(1, 3.0), _started(2, 1.0), _started(3, 2.0), _started(4, 9.0)])
    rounds = startup_rounds(data.points, data.first_calls)
    assert middle_rounds(rounds)["first_token"].to_list() == [17.5]
    assert drawn(startup_chart(data)).title == "From the start of a process to its first token: 17.5 s (sdpa)"


def test_a_record_without_a_timeline_has_no_start(tmp_path: Path) -> None:
    data = data_of(tmp_path, [measured(point(), 1.0)])
    assert startup_rounds(data.points, data.first_calls).is_empty()
