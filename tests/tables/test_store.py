"""What the tables know of points: their keys and labels, and what a filter keeps and says of what it does not read."""

import re

import pytest

from hfbench.core.errors import UserError
from hfbench.core.point import AXES, AXIS_TYPES
from hfbench.tables.metrics import axes_frame
from hfbench.tables.store import configuration_keys, parse_filter, point_label
from tests.tables.hand_records import POINT, point

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
