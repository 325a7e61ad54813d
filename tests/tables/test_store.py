"""Which records the tables read, and what is said of those that cannot be; what they know of points.

Their keys and labels, and what a filter keeps and says of what it does not read.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic_records import record_path
from hfbench.core import record
from hfbench.core.errors import UserError
from hfbench.core.point import AXES, AXIS_TYPES
from hfbench.tables.metrics import STATUS, axes_frame
from hfbench.tables.reading import read_records
from hfbench.tables.store import configuration_keys, parse_filter, point_label
from tests.tables.hand_records import POINT, observed, ok_record, point, save

_POINTS = axes_frame(
    [
        point(batch_size=1, attn_implementation="eager"),
        point(batch_size=4, attn_implementation="sdpa"),
        point(batch_size=8, attn_implementation="sdpa:math", use_kernels=True),
        point(batch_size=16, attn_implementation="eager", dtype="float32"),
    ]
)


def _kept(text: str) -> list[int]:
    return _POINTS.filter(parse_filter(text, AXES))["batch_size"].to_list()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, "tiny sdpa b2 s10 n4"),
        ({"compile_mode": "reduce-overhead"}, "tiny sdpa compile-reduce-overhead b2 s10 n4"),
        ({"use_kernels": True, "continuous_batching": True}, "tiny sdpa kernels continuous b2 s10 n4"),
        ({"dtype": "float32"}, "tiny sdpa float32 b2 s10 n4"),
        ({"attn_implementation": "sdpa:math"}, "tiny sdpa-math b2 s10 n4"),
    ],
)
def test_keys_are_short_and_say_what_is_not_default(changes: dict[str, object], key: str) -> None:
    assert configuration_keys([vars(point(**changes))]) == [key]


def test_a_name_that_two_axes_have_makes_two_keys() -> None:
    keys = configuration_keys([vars(point(quantization="mixed")), vars(point(request_lengths="mixed")), vars(POINT)])
    assert len(set(keys)) == 3
    assert all(key.startswith("tiny sdpa mixed b2 s10 n4 ") for key in keys[:2])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("request_rate >= 4", ["4", "16", "inf"]),
        ('request_rate >= "4" and request_rate < inf', ["4", "16"]),
        ("2 < request_rate", ["2.5", "4", "16", "inf"]),
        ("request_rate in [1, 2.5]", ["1", "2.5"]),
        ("request_rate == inf", ["inf"]),
        ('request_rate != "inf" and attn_implementation == "sdpa"', ["1", "2.5", "4", "16"]),
    ],
)
def test_request_rates_are_compared_as_numbers(text: str, kept: list[str]) -> None:
    rates = axes_frame(point(request_rate=rate) for rate in ("1", "2.5", "4", "16", "inf"))
    assert rates.filter(parse_filter(text, AXES))["request_rate"].to_list() == kept


@pytest.mark.parametrize("text", ['request_rate == ""', 'request_rate == "2/s"', 'request_rate in [1, "1 or 1"]'])
def test_what_is_no_rate_is_said(text: str) -> None:
    with pytest.raises(UserError, match=r"request_rate is a number of requests a second, or inf, and .* is none"):
        parse_filter(text, AXES)


@pytest.mark.parametrize("text", ["batch_size < inf", "batch_size in [1, inf]", "request_rate == 2,5"])
def test_what_cannot_be_read_beside_a_rate_is_quoted_as_it_was_typed(text: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"The filter `{text}`")):
        parse_filter(text, AXES)


def test_keys_of_different_configurations_differ() -> None:
    names = ["org/kernel.a", "org/kernel-a", "sdpa"]
    keys = configuration_keys([vars(point(attn_implementation=name)) for name in names])
    assert len(set(keys)) == 3
    assert keys[2] == "tiny sdpa b2 s10 n4"


def test_labels_hold_what_is_not_usual_of_the_axes_asked_for() -> None:
    axes = ["batch_size", "attn_implementation", "use_kernels"]
    assert point_label(vars(POINT), axes) == "sdpa b2"
    assert point_label(vars(point(use_kernels=True)), axes) == "sdpa kernels b2"
    assert point_label(vars(POINT), ["use_kernels"]) == "no-kernels"
    assert point_label(vars(POINT), []) == "tiny"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('attn_implementation == "sdpa"', [4]),
        ("attn_implementation != 'eager'", [4, 8]),
        ("attn_implementation == 'nonsense'", []),
        ("batch_size >= 4.5", [8, 16]),
        ("batch_size > -1", [1, 4, 8, 16]),
        ("4 <= batch_size", [4, 8, 16]),
        ("batch_size in [1, 8, 99]", [1, 8]),
        ("4 in [batch_size]", [4]),
        ('dtype in ("float32",)', [16]),
        ('dtype in ("float32")', [16]),
        ('attn_implementation not in {"eager"}', [4, 8]),
        ("use_kernels", [8]),
        ("not use_kernels", [1, 4, 16]),
        ("use_kernels == true", [8]),
        ("use_kernels == True", [8]),
        ("false == use_kernels", [1, 4, 16]),
        ("use_kernels in [True, false]", [1, 4, 8, 16]),
        ("batch_size == sequence_length", []),
        (f"batch_size == {10**30}", []),
        ("  batch_size ==\t4 ", [4]),
        ('attn_implementation == "sdpa" and batch_size >= 4 or dtype in ("float32",)', [4, 16]),
        ('batch_size == 1 or batch_size == 4 and dtype == "float32"', [1]),
        ('(batch_size == 1 or batch_size == 4) and dtype == "float32"', []),
        ("not batch_size == 1 and batch_size < 16", [4, 8]),
        ("not (batch_size == 1 or batch_size < 16)", [16]),
    ],
)
def test_a_filter_keeps_what_the_words_say(text: str, kept: list[int]) -> None:
    assert _kept(text) == kept


def test_every_filter_agrees_with_python_itself() -> None:
    texts = [
        f"{'not ' * negated}(batch_size {operator} {number}) {word} dtype == 'float32'"
        for negated in (0, 1)
        for operator in ("==", "!=", "<", "<=", ">", ">=")
        for number in (1, 4, 5)
        for word in ("and", "or")
    ]
    for text in texts:
        assert _kept(text) == [row["batch_size"] for row in _POINTS.to_dicts() if eval(text, {}, row)], text


@pytest.mark.parametrize("axis", AXES)
def test_no_axis_is_a_word_of_the_language(axis: str) -> None:
    (value, *_) = _POINTS[axis].to_list()
    literal = repr(value) if AXIS_TYPES[axis] is str else str(value)
    for text in (f"{axis} == {literal}", f"{axis} in [{literal}]", f"not {axis} != {literal}"):
        assert 1 in _kept(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('batch_size == "4"', 'batch_size is a number, and "4" is text. Write a number without quotes.'),
        ("dtype == 16", "dtype is text, and 16 is a number. Write text in quotes."),
        ("use_kernels == 1", "use_kernels is true or false, and 1 is a number. Write true or false."),
        ("dtype == true", "dtype is text, and true is true or false."),
        ("batch_size in [4, true]", "batch_size is a number, and true is true or false."),
        ('dtype in ["bfloat16", 16]', "dtype is text, and 16 is a number."),
        ("dtype == batch_size", "dtype is text, and batch_size is a number."),
        ("use_kernels < true", "have no order. Write == or !=."),
        ("batchsize == 4", "there is no batchsize. Did you mean batch_size?"),
        ("not batchsize", "there is no batchsize. Did you mean batch_size?"),
        ("attn_implementation == sdpa", 'text stands in quotes, as "sdpa". Known are: round, model, '),
        ("compile_mode == off", 'text stands in quotes, as "off".'),
        ('dtype in "bfloat16"', 'A list follows `in`, as in dtype in ["'),
        ("batch_size in []", "A list follows `in`, as in dtype in ["),
        ("batch_size is 4", "batch_size is a number and no condition. Compare it with a value by ==, "),
        ("batch_size = 4", "Two values are compared by ==."),
        ("1 < batch_size < 16", "'<' stands between no two values. Compare a column with one value at a time by "),
        ("batch_size == 4 &", "'&' stands between no two values."),
        ("(batch_size == 4) & use_kernels", "Write `and` for &, `or` for |."),
        ("batch_size >", "'>' stands between no two values."),
        ("", "The filter is empty. Write one such as "),
        ("  \n", "The filter is empty."),
        ("batch_size", "batch_size is a number and no condition"),
        ("not batch_size", "batch_size is a number and no condition"),
        ("4", "4 is a number and no condition"),
        ("1 == 1", "1 and 1 are both values."),
        ("batch_size == 4 use_kernels", "it cannot be read"),
        ("use_kernels and", "it cannot be read"),
        ("(use_kernels", "it cannot be read"),
        ("use_kernels (batch_size == 4)", "it cannot be read"),
        ("dtype == -'a'", "'==' stands between no two values."),
        ("dtype == 'a", "stands between no two values."),
        ("dtype == None", "there is no None"),
        ("batch_size == 4j", "'==' stands between no two values."),
        ("batch_size + 1 == 4", "1 and 4 are both values."),
        ("len(dtype) == 4", "'==' stands between no two values."),
        ("__import__('os').system('true')", "stands between no two values."),
        ("dtype.str == 'a'", "there is no str"),
        ("dtype.batch_size == 4", "'.' stands between no two values."),
        ("[x for x in batch_size]", "stands between no two values."),
        ("(lambda: 1)() == batch_size", "stands between no two values."),
        ("f'{dtype}' == dtype", "there is no f"),
        ("(batch_size := 4) == 4", "stands between no two values."),
        ("batch_size == 4 -- use_kernels", "'--' stands between no two values."),
        ("batch_size == 4\x00", "'\\x00' stands between no two values."),
        ("not " * 20_000 + "use_kernels", "cannot be read"),
        ("(" * 500 + "use_kernels" + ")" * 500, "cannot be read"),
    ],
)
def test_what_a_filter_does_not_understand_gets_a_sentence(text: str, part: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_filter(text, AXES)
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


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
