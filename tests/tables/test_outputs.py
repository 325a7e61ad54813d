"""How far two outputs are apart, counted by hand."""

from typing import Any

import pytest

from hfbench.tables.agreement import Output, difference


def _output(**fields: Any) -> Output:
    return Output.read(fields)


def test_the_share_of_positions_with_the_same_top_token() -> None:
    one, other = _output(prompt_top1=[1, 2, 3, 4, 5]), _output(prompt_top1=[1, 2, 9, 4, 9])
    assert difference(one, other).top1_agreement == pytest.approx(3 / 5)
    assert not difference(one, other).is_none


@pytest.mark.parametrize(
    ("one", "other", "position"),
    [
        ([7, 8, 9], [7, 8, 9], None),
        ([7, 8, 9], [7, 1, 2], 1),
        ([1, 8, 9], [7, 8, 9], 0),
        ([7, 8], [7, 8, 9], 2),
        ([], [7], 0),
        ([], [], None),
    ],
)
def test_the_first_generated_token_that_differs(one: list[int], other: list[int], position: int | None) -> None:
    found = difference(_output(tokens=one), _output(tokens=other))
    assert found.first_different_token == position
    assert found.is_none == (position is None)


def test_likelihoods_differ_either_way() -> None:
    assert difference(_output(prompt_nll=2.5), _output(prompt_nll=2.75)).nll_difference == 0.25
    assert difference(_output(prompt_nll=2.75), _output(prompt_nll=2.5)).nll_difference == 0.25


def test_the_order_of_a_sum_is_no_difference() -> None:
    assert difference(_output(prompt_nll=2.5), _output(prompt_nll=2.5 + 1e-6)).is_none
    assert not difference(_output(prompt_nll=2.5), _output(prompt_nll=2.501)).is_none


def test_what_one_lacks_is_not_compared() -> None:
    whole = _output(prompt_top1=[1], prompt_nll=2.0, tokens=[1])
    empty = _output(prompt_top1=None, prompt_nll=None)
    assert vars(difference(whole, empty)) == {
        "top1_agreement": None,
        "nll_difference": None,
        "first_different_token": None,
    }
    assert difference(_output(prompt_top1=[1, 2]), _output(prompt_top1=[1])).top1_agreement is None
