"""When compiling has paid for itself, from records: which twin, which rounds, and where there is no answer."""

from pathlib import Path
from typing import Any

import pytest

from hfbench.core.record import Record
from hfbench.statistics.break_even import NEVER, NOT_KNOWN, PAID
from tests.tables.hand_records import observed, ok_record, point, tables_of

# 2 rows of 4 new tokens. Rounds differ by the machine, and twins with them.
DRIFT = (1.0, 1.02, 0.98)


def _rounds(first_call: float, steady: float, rounds: int = 3, **axes: Any) -> list[Record]:
    return [
        ok_record(
            point(round=number, **axes),
            *(observed([0.1, 0.2, 0.3, 0.4], end_to_end=steady * drift) for _ in range(3)),
            first_call_seconds=first_call + (drift - 1) * steady,
        )
        for number, drift in enumerate(DRIFT[:rounds], start=1)
    ]


def _compiled(folder: Path, *records: Record) -> dict[str, Any]:
    rows = tables_of(folder, *records).configurations.to_dicts()
    assert all(row["break_even"] is None for row in rows if row["compile_mode"] == "off")
    return next(dict(row) for row in rows if row["compile_mode"] != "off")


def test_against_the_uncompiled_twin(tmp_path: Path) -> None:
    # As by hand in the test of the formula: 38 calls of 8 tokens.
    row = _compiled(tmp_path, *_rounds(3.0, 2.0), *_rounds(21.5, 1.5, compile_mode="default"))
    assert row["break_even"] == PAID
    assert row["break_even_new_tokens"] == pytest.approx(38 * 8)
    assert row["break_even_new_tokens_low"] <= row["break_even_new_tokens"] <= row["break_even_new_tokens_high"]


def test_the_twin_has_the_cache_that_it_has_by_itself(tmp_path: Path) -> None:
    static: dict[str, Any] = {"cache_implementation": "static"}
    uncompiled = [*_rounds(3.0, 2.0), *_rounds(3.0, 4.0, **static)]
    row = _compiled(tmp_path, *uncompiled, *_rounds(21.5, 1.5, compile_mode="default", **static))
    assert row["break_even_new_tokens"] == pytest.approx(38 * 8)


def test_slower_never_pays_and_one_round_tells_nothing(tmp_path: Path) -> None:
    slower = _compiled(tmp_path / "a", *_rounds(3.0, 1.5), *_rounds(21.5, 2.0, compile_mode="default"))
    assert (slower["break_even"], slower["break_even_new_tokens"]) == (NEVER, None)
    alone = _compiled(tmp_path / "b", *_rounds(3.0, 2.0, 1), *_rounds(21.5, 1.5, 1, compile_mode="default"))
    assert (alone["break_even"], alone["break_even_new_tokens"]) == (NOT_KNOWN, None)


@pytest.mark.parametrize("axes", [{"attn_implementation": "eager"}, {"batch_size": 4}, {"dtype": "float32"}])
def test_without_a_twin_there_is_none(tmp_path: Path, axes: dict[str, Any]) -> None:
    row = _compiled(tmp_path, *_rounds(3.0, 2.0, **axes), *_rounds(21.5, 1.5, compile_mode="default"))
    assert (row["break_even"], row["break_even_new_tokens"]) == (None, None)


def test_what_computes_something_else_has_not_paid(tmp_path: Path) -> None:
    reference: dict[str, Any] = {"attn_implementation": "eager"}
    records = [*_rounds(3.0, 2.0, **reference), *_rounds(21.5, 1.5, **reference, compile_mode="default")]
    for record in records:
        is_wrong = record.configuration.compile_mode != "off"
        record.output = {"prompt_nll": 9.0 if is_wrong else 2.5, "prompt_top1": [1, 2], "tokens": [3]}
    assert _compiled(tmp_path, *records)["break_even"] is None
