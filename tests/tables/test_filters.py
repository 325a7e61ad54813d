"""Filters: what they keep, and what they say of what they do not understand."""

from typing import Any

import polars as pl
import pytest

from hfbench.core.errors import UserError
from hfbench.tables.filters import parse_filter
from hfbench.tables.metrics import AXIS_COLUMNS, STATUS
from tests.tables.hand_records import point

_POINTS = pl.DataFrame(
    [
        vars(point(batch_size=1, attn_implementation="eager")),
        vars(point(batch_size=4, attn_implementation="sdpa")),
        vars(point(batch_size=8, attn_implementation="sdpa:math", use_kernels=True)),
        vars(point(batch_size=16, attn_implementation="eager", dtype="float32")),
    ],
    schema=AXIS_COLUMNS,
)


def _kept(text: str, frame: pl.DataFrame = _POINTS) -> list[int]:
    return frame.filter(parse_filter(text, frame.schema))["batch_size"].to_list()


def _complaint(text: str, columns: Any = _POINTS.schema) -> str:
    with pytest.raises(UserError) as raised:
        parse_filter(text, columns)
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('attn_implementation == "sdpa"', [4]),
        ("attn_implementation != 'eager'", [4, 8]),
        ("batch_size < 4", [1]),
        ("batch_size <= 4", [1, 4]),
        ("batch_size > 4", [8, 16]),
        ("batch_size >= 4.5", [8, 16]),
        ("batch_size > -1", [1, 4, 8, 16]),
        ("4 <= batch_size", [4, 8, 16]),
        ("1 < batch_size < 16", [4, 8]),
        ("batch_size in [1, 8, 99]", [1, 8]),
        ('dtype in ("float32",)', [16]),
        ('attn_implementation not in {"eager"}', [4, 8]),
        ("batch_size in []", []),
        ("batch_size not in ()", [1, 4, 8, 16]),
        ("use_kernels", [8]),
        ("not use_kernels", [1, 4, 16]),
        ("use_kernels == true", [8]),
        ("use_kernels == True", [8]),
        ("false == use_kernels", [1, 4, 16]),
        ("use_kernels in [True, false]", [1, 4, 8, 16]),
        ("batch_size == sequence_length", []),
        ("  batch_size ==\t4 ", [4]),
    ],
)
def test_it_keeps_what_the_words_say(text: str, kept: list[int]) -> None:
    assert _kept(text) == kept


def test_and_binds_closer_than_or_and_not_closest() -> None:
    text = 'attn_implementation == "sdpa" and batch_size >= 4 or dtype in ("float32",)'
    assert _kept(text) == [4, 16]
    assert _kept('batch_size == 1 or batch_size == 4 and dtype == "float32"') == [1]
    assert _kept('(batch_size == 1 or batch_size == 4) and dtype == "float32"') == []
    assert _kept("not batch_size == 1 and batch_size < 16") == [4, 8]
    assert _kept("not (batch_size == 1 or batch_size < 16)") == [16]


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


def test_an_unknown_value_equals_nothing_and_is_in_no_order() -> None:
    frame = pl.DataFrame({"batch_size": [1, 2], "dtype": [None, "bfloat16"], "max_new_tokens": [None, 3]})
    assert _kept('dtype == "bfloat16"', frame) == [2]
    assert _kept('dtype != "float32"', frame) == [1, 2]
    assert _kept('dtype not in ["bfloat16"]', frame) == [1]
    assert _kept("max_new_tokens < 10", frame) == [2]
    assert _kept("not max_new_tokens < 10", frame) == [1]


def test_a_word_that_an_enumeration_lacks_equals_none_of_it() -> None:
    frame = pl.DataFrame({"batch_size": [1, 2], "status": pl.Series(["ok", "failed"], dtype=STATUS)})
    assert _kept('status == "ok"', frame) == [1]
    assert _kept('status == "nonsense"', frame) == []
    assert _kept('status in ["nonsense", "failed"]', frame) == [2]


def test_names_alone_have_the_types_of_the_axes() -> None:
    assert _POINTS.filter(parse_filter("batch_size == 4", AXIS_COLUMNS.keys())).height == 1
    assert "batch_size is a number" in _complaint('batch_size == "4"', ["batch_size"])
    frame = pl.DataFrame({"verdict": ["faster", "same"]})
    assert frame.filter(parse_filter('verdict == "same"', ["verdict"])).height == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('batch_size == "4"', "batch_size is a number, and '4' is text. Write a number without quotes."),
        ("dtype == 16", "dtype is text, and 16 is a number. Write text in quotes."),
        ("use_kernels == 1", "use_kernels is true or false, and 1 is a number. Write true or false."),
        ("dtype == true", "dtype is text, and true is true or false."),
        ('dtype in ["bfloat16", 16]', "dtype is text, and 16 is a number."),
        ("dtype == batch_size", "dtype is text, and batch_size is a number."),
        ("use_kernels < true", "have no order. Write == or !=."),
        ("batchsize == 4", "there is no batchsize. Did you mean batch_size?"),
        ("attn_implementation == sdpa", 'text stands in quotes, as "sdpa". Known are: round, model, '),
        ("compile_mode == off", 'text stands in quotes, as "off".'),
        ('dtype in "bfloat16"', "`in` is followed by a list. Write it as dtype in ["),
        ('dtype in ("bfloat16")', "`in` is followed by a list."),
        ("4 in [batch_size]", "a list holds values, not columns such as batch_size"),
        ("batch_size is 4", "`is` compares no values. Write == or !=."),
        ("batch_size = 4", "Two values are compared by ==."),
        ("batch_size == 4 &", "is no expression"),
        ("(batch_size == 4) & use_kernels", "Write `and` for &, `or` for |."),
        ("batch_size >", "is no expression"),
        ("", "The filter is empty. Write one such as "),
        ("  \n", "The filter is empty."),
        ("batch_size", "batch_size is a number and no condition"),
        ("1 == 1", "1 and 1 are both values."),
        ("true", "`true` is no comparison."),
        ("4", "`4` is no comparison."),
        ("dtype == -'a'", "`-'a'` is no value. Give a number, text in quotes, true or false."),
        ("dtype == None", "` is no value."),
        ("batch_size == 4j", "` is no value."),
        (f"batch_size == {10**30}", "` is no value."),
        ("batch_size + 1 == 4", "`batch_size + 1` is no comparison."),
        ("len(dtype) == 4", "`len(dtype)` is no comparison."),
        ("__import__('os').system('true')", "is no comparison."),
        ("dtype.str == 'a'", "is no comparison."),
        ("[x for x in batch_size]", "is no comparison."),
        ("(lambda: 1)() == batch_size", "is no comparison."),
        ("f'{dtype}' == dtype", "is no comparison."),
        ("(batch_size := 4) == 4", "is no comparison."),
        ("batch_size == 4\x00", "null bytes"),
        ("not " * 20_000 + "use_kernels", "cannot be read"),
        ("(" * 500 + "use_kernels" + ")" * 500, "expression"),
    ],
)
def test_what_it_does_not_understand_gets_a_sentence(text: str, part: str) -> None:
    assert part in _complaint(text)


def test_a_column_of_lists_is_not_compared() -> None:
    assert "tokens holds neither text nor numbers" in _complaint("tokens == 1", {"tokens": pl.List(pl.Int64)})
