"""Files are whole or absent, and JSON that a person can read."""

import json
import os
from pathlib import Path

import pytest

from hfbench.core.errors import UserError
from hfbench.core.files import atomic_path, read_json, readable_json, write_json, write_text
from hfbench.core.record import Iteration, Record, Sampling
from tests.tables.hand_records import point


def test_numbers_stay_on_one_line_and_keys_get_their_own() -> None:
    value = {"times": [i / 7 for i in range(100)], "nested": {"a": [{"b": "x" * 60}, {"b": "y" * 60}]}, "n": None}
    text = readable_json(value)
    assert json.loads(text) == value
    assert next(line for line in text.splitlines() if "times" in line).count(",") == 100
    assert len(text.splitlines()) > 5


def test_no_number_that_json_does_not_have() -> None:
    with pytest.raises(ValueError, match="JSON"):
        readable_json({"a": float("nan")})


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]  # noqa: PTH208, hidden files too


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_records_survive_a_round_trip(tmp_path: Path) -> None:
    record = Record(
        point(attn_implementation="sdpa:math", use_kernels=True),
        "auto",
        Sampling("precision", 1, 5, 6, 30, 0.01, 12.0, 4, 100.0, 0.5),
        iterations=[Iteration("sample", True, 1.5, 0.123456789, 0.2, (2,), ((0.1, 0.123456789),))],
    )
    record.save(tmp_path / "r.json")
    assert Record.load(tmp_path / "r.json") == record
    assert (tmp_path / "r.json").read_text().startswith('{\n "schema_version": 2')


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "r.json", {"schema_version": 99})
    with pytest.raises(UserError, match="schema version 99"):
        Record.load(tmp_path / "r.json")
