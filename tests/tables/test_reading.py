"""Which records are read, and what is said of those that cannot be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_records import record_path
from hfbench.core import record
from hfbench.core.errors import UserError
from hfbench.tables.metrics import STATUS
from hfbench.tables.reading import read_records
from tests.tables.hand_records import POINT, observed, ok_record, point, save

RECORD = ok_record(POINT, observed([0.5, 0.6, 0.8, 1.1]))


def _edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Write RECORD, changed by `edit`, as JSON."""
    save(folder, RECORD)
    path = record_path(folder, POINT)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_records_come_in_the_order_of_the_sweep(tmp_path: Path) -> None:
    points = [point(round=2), point(attn_implementation="eager"), POINT]
    save(tmp_path, *map(ok_record, points))
    assert [record.configuration for record in read_records(tmp_path, points)] == points


def test_records_of_earlier_sweeps_are_ignored(tmp_path: Path) -> None:
    save(tmp_path, RECORD, ok_record(point(batch_size=8)))
    (tmp_path / "older").mkdir()
    (tmp_path / "older/axes.json").write_text('{"schema_version": 0, "configuration": {"model": "tiny"}}')
    (tmp_path / ".writing.json.x1.tmp").write_text("{")
    assert [record.configuration for record in read_records(tmp_path, [POINT])] == [POINT]


def test_a_point_without_a_record(tmp_path: Path) -> None:
    save(tmp_path, RECORD)
    missing = point(attn_implementation="flex_attention", round=3)
    with pytest.raises(UserError, match=r"flex_attention.*`dvc repro`") as error:
        read_records(tmp_path, [POINT, missing, point(round=2)])
    for words in ('"round": 3', "and 1 other.", str(tmp_path)):
        assert words in str(error.value)
    with pytest.raises(UserError, match="no record of the point"):
        read_records(tmp_path / "nowhere", [POINT])


def test_two_records_of_one_point(tmp_path: Path) -> None:
    save(tmp_path, RECORD)
    RECORD.save(tmp_path / "copy.json")
    with pytest.raises(UserError, match="same point") as error:
        read_records(tmp_path, [POINT])
    assert "copy.json" in str(error.value)


@pytest.mark.parametrize("content", [b"", b'{"schema_version": 1, "conf', b"[]", b"{}", b"\xff\xfe{}"])
def test_a_file_that_is_no_record(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.json.*`dvc repro`"):
        read_records(tmp_path, [POINT])


def test_a_record_of_an_older_hfbench_with_fewer_axes_is_passed_over(tmp_path: Path) -> None:
    new, old = ok_record(point(), observed([1.0, 1.5])), ok_record(point(round=2), observed([1.0, 1.5]))
    save(tmp_path, new, old)
    path = record_path(tmp_path, old.configuration)
    content = json.loads(path.read_text())
    del content["configuration"]["tp_size"]
    path.write_text(json.dumps(content))
    assert [each.configuration for each in read_records(tmp_path, [new.configuration])] == [new.configuration]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.update(schema_version=7), "schema version 7"),
        (lambda content: content.pop("iterations"), "lacks iterations"),
        (lambda content: content.update(status="fine"), "'fine' is no status"),
        (lambda content: content.update(load_seconds="fast"), "fast"),
        (lambda content: content.update(memory=None), "AttributeError"),
        (lambda content: content.update(output={"prompt_top1": "many"}), "is no measurement record"),
        (lambda content: content.update(monitoring={"time_seconds": [1.0], "host": []}), "AttributeError"),
        (lambda content: content.update(accounting=7), "TypeError"),
        (lambda content: content["configuration"].update(colour="red"), "other axes"),
        (lambda content: content["configuration"].update(model=["tiny"]), "neither text nor a whole number"),
        (lambda content: content["iterations"][0].pop("phase"), "KeyError"),
        (lambda content: content["iterations"][0].update(phase="third"), "is no measurement record"),
        (lambda content: content["iterations"][0].update(token_seconds=[["soon"]]), "is no measurement record"),
        (lambda content: content["iterations"][0].update(end_to_end_seconds="late"), "is no measurement record"),
    ],
)
def test_a_record_with_something_wrong(tmp_path: Path, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    path = _edited(tmp_path, edit)
    with pytest.raises(UserError, match=message) as error:
        read_records(tmp_path, [POINT])
    assert str(path) in str(error.value)


def test_whole_numbers_are_times_too(tmp_path: Path) -> None:
    _edited(
        tmp_path, lambda content: content["iterations"][0].update(token_seconds=[[1, 1.5, 2]], end_to_end_seconds=2)
    )
    (record,) = read_records(tmp_path, [POINT])
    assert record.iterations["token_seconds"].to_list() == [[[1.0, 1.5, 2.0]]]


def test_every_status_can_be_read() -> None:
    statuses = {value for name, value in vars(record).items() if name.isupper() and isinstance(value, str)}
    assert statuses == set(STATUS.categories)
