"""What compiling costs and when it has paid, as a person sees it: on the terminal, in the report, for one point."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from hfbench.core.record import Record
from hfbench.report.point_facts import asked_and_ran, differing_rounds, evidence
from hfbench.report.show import print_results
from tests.report.report_records import sweep_records
from tests.tables.hand_records import ok_record, point, tables_of

WARM = {"first_call_seconds": 3.25, "compile_seconds": 2.5, "cache_hits": 1}


def _terminal(folder: Path, records: list[Record]) -> str:
    stream = io.StringIO()
    tables_of(folder / "measurements", *records).write(folder)
    print_results(folder, Console(file=stream, width=160, highlight=False))
    return stream.getvalue()


@pytest.mark.parametrize(("modes", "is_shown"), [(["off"], False), (["off", "default"], True)])
def test_break_even_has_a_column_where_something_was_compiled(tmp_path: Path, modes: list[str], is_shown: bool) -> None:
    assert ("break-even" in _terminal(tmp_path, sweep_records(compile_mode=modes))) is is_shown


def test_rounds_that_took_different_times_to_compile_ran_the_same() -> None:
    records = [
        ok_record(
            point(round=number, compile_mode="default"),
            effective={"compilation": {"graphs": 1, "seconds": 10.0 + number, "compiled_calls": calls}},
        )
        for number, calls in ((1, 3), (2, 3), (3, 2))
    ]
    assert differing_rounds(records) == [3]
    assert "compiled in 11.0 s" in dict(evidence(records[0]))["compilation"]


def test_a_point_tells_what_was_asked_beside_the_mode_and_how_it_started_again() -> None:
    config = {"fullgraph": True, "dynamic": None, "backend": "inductor", "mode": None, "options": {"dce": True}}
    record = ok_record(point(compile_mode="default"), requested={"compile_config": config}, warm_start=WARM)
    asked = next(asked for setting, asked, _ in asked_and_ran(record) if setting == "compile")
    assert asked == "default, fullgraph True, options {'dce': True}"
    assert dict(evidence(record))["warm start"] == "first call in 3.25 s, 2.50 s of it compiling, 1 cache hit"
    record.warm_start = {"reason": "timed_out: exceeded"}
    assert dict(evidence(record))["warm start"] == "not measured: timed_out: exceeded"
