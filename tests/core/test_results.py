"""Which points a word means, by the names that the points of a sweep have."""

from dataclasses import replace
from itertools import product

import pytest

from hfbench.core.errors import UserError
from hfbench.core.results import configuration_meant, listed_stage, points_meant, sweep_stage
from tests.tables.hand_records import point

SWEEP = [
    point(round=number, model="m", attn_implementation=way, batch_size=size, sequence_length=128, max_new_tokens=32)
    for number, way, size in product((1, 2), ("eager", "sdpa:math"), (1, 16))
]
LISTED = replace(SWEEP[0], batch_size=4)
NAMES = {
    point: (f"m {point.attn_implementation.replace(':', '-')} b{point.batch_size} s128 n32", point.file_name, stage)
    for point, stage in {**{point: sweep_stage(point) for point in SWEEP}, LISTED: listed_stage(1, 0)}.items()
}
MATH_16 = "1-m-sdpa:math-off-auto-{0}-auto-{0}-0-bfloat16-uniform-16-128-32-0"


def _meant(text: str) -> list[tuple[int, str, int]]:
    return [(point.round, point.attn_implementation, point.batch_size) for point in points_meant(text, NAMES)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m eager b1 s128 n32", [(1, "eager", 1), (2, "eager", 1)]),  # a whole key, also a part of no other
        ("b1 eager", [(1, "eager", 1), (2, "eager", 1)]),  # whole words come first: b1 is also a part of b16
        ("eager b16 s1", [(1, "eager", 16), (2, "eager", 16)]),
        ("16", [(1, "eager", 16), (1, "sdpa:math", 16), (2, "eager", 16), (2, "sdpa:math", 16)]),  # of keys: bfloat16
        (MATH_16.format("false"), [(1, "sdpa:math", 16)]),
        (f"./results/measurements/{MATH_16.format('false')}.json", [(1, "sdpa:math", 16)]),
        (f" measure@{MATH_16.format('False')} ", [(1, "sdpa:math", 16)]),
        ("sdpa:math-off-auto-False-auto-False-0-bfloat16-uniform-16", [(1, "sdpa:math", 16), (2, "sdpa:math", 16)]),
        ("2-m-eager-*-uniform-1-*", [(2, "eager", 1)]),
        ("measure@[2]-m-sdpa:math-*-16-???-32-0", [(2, "sdpa:math", 16)]),
        ("measure_listed@1-is0", [(1, "eager", 4)]),
        ("listed", [(1, "eager", 4)]),
        ("b2", []),
        ("eager b17", []),
        ("", []),
        (" ", []),
        (".json", []),
    ],
)
def test_the_points_that_a_word_means(text: str, expected: list[tuple[int, str, int]]) -> None:
    assert _meant(text) == expected


def test_all_names_of_one_kind_are_looked_at_before_those_of_the_next() -> None:
    names = {1: ("a-1", "stage@x"), 2: ("b-1", "stage@a-1-b")}
    assert points_meant("a-1", names) == [1]
    assert points_meant("a", names) == [1]  # also a part of the other's stage
    assert points_meant("x", names) == [1]
    assert points_meant("a", {}) == []


def test_one_configuration_is_meant_with_all_its_rounds_or_with_the_one_named() -> None:
    assert [each.round for each in configuration_meant("b1 eager", NAMES, among="params.yaml")] == [1, 2]
    assert [each.round for each in configuration_meant("2-m-eager-*-1-128-32-0", NAMES, among="params.yaml")] == [2]


def test_a_word_of_several_configurations_or_none_lists_the_candidates() -> None:
    with pytest.raises(UserError) as several:
        configuration_meant("b16", NAMES, among="params.yaml")
    assert str(several.value) == (
        "--point 'b16' fits several points. Name one of:\n  m eager b16 s128 n32\n  m sdpa-math b16 s128 n32"
    )
    many = {number: (f"key {number}",) for number in range(25)}
    with pytest.raises(UserError) as none:
        configuration_meant("gpt2", many, among="the results", asked="POINT")
    first, *listed, last = str(none.value).splitlines()
    assert first == "POINT 'gpt2' fits no point of the results. There are:"
    assert listed == [f"  key {number}" for number in range(20)]
    assert last == "  and 5 more"
