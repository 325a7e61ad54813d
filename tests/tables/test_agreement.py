"""How far two outputs are apart, what a point is compared with, and what follows."""

from pathlib import Path
from typing import Any

import pytest

from hfbench.core.record import Record
from hfbench.tables.agreement import AGREEMENT_TYPES, Output, OutputDifference, difference
from hfbench.tables.build import Tables
from tests.tables.hand_records import failed_record, observed, ok_record, point, tables_of


def _between(one: dict[str, Any], other: dict[str, Any]) -> OutputDifference:
    return difference(Output.read(one), Output.read(other))


def test_the_share_of_positions_with_the_same_top_token() -> None:
    found = _between({"prompt_top1": [1, 2, 3, 4, 5]}, {"prompt_top1": [1, 2, 9, 4, 9]})
    assert found.top1_agreement == pytest.approx(3 / 5)
    assert not found.is_none
    assert _between({"prompt_top1": [1, 2]}, {"prompt_top1": [1]}).top1_agreement is None


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
    found = _between({"tokens": one}, {"tokens": other})
    assert found.first_different_token == position
    assert found.is_none == (position is None)


@pytest.mark.parametrize("gap", [0.25, -0.25, 0.001, 1e-6])
def test_likelihoods_differ_either_way_by_more_than_the_order_of_a_sum(gap: float) -> None:
    found = _between({"prompt_nll": 2.5}, {"prompt_nll": 2.5 + gap})
    assert found.nll_difference == pytest.approx(abs(gap))
    assert found.is_none == (gap == 1e-6)


def test_likelihoods_of_other_tokens_are_not_compared() -> None:
    one, other = ({"prompt_nll": nll, "nll_positions": [first, 63]} for nll, first in ((2.5, 1), (3.5, 25)))
    assert _between(one, other).nll_difference is None
    assert _between(one, {**other, "nll_positions": [1, 63]}).nll_difference == 1.0


def test_what_one_lacks_is_no_difference() -> None:
    whole = {"prompt_top1": [1], "prompt_nll": 2.0, "tokens": [1]}
    assert set(vars(_between(whole, {"prompt_top1": None, "prompt_nll": None})).values()) == {None}


PATH = {"checked": True, "nll": 6.0, "logits_difference": 1e-6, "tolerance": 3e-6, "agrees": True}


def test_likelihoods_of_decoding_steps_are_compared_where_the_tokens_were_given() -> None:
    one, other = ({"prompt_nll": 2.5, "path": {**PATH, "nll": nll}} for nll in (6.0, 6.5))
    assert _between(one, other).nll_difference == pytest.approx(0.5)
    few, many = ({"prompt_nll": 2.5, "path": {**PATH, "rows": rows, "steps": 8}} for rows in (3, 4))
    assert _between(few, other).nll_difference == 0.0
    assert _between(many, other).nll_difference == pytest.approx(0.5)
    chosen = {"prompt_nll": 2.5, "path": {**PATH, "nll": 6.5, "timed_tokens_agree": True}}
    assert _between(one, chosen).nll_difference == 0.0  # of the prompt alone


@pytest.mark.parametrize(
    ("path", "agrees"),
    [
        (PATH, True),
        ({**PATH, "agrees": False}, False),
        ({**PATH, "timed_tokens_agree": False}, False),
        ({"checked": False, "reason": "too long"}, None),
        (None, None),
    ],
)
def test_what_is_not_known_to_agree_is_not_said_to(path: Any, agrees: bool | None) -> None:
    assert Output.read({"path": path}).path_agrees is agrees


EAGER, SDPA = point(attn_implementation="eager"), point(attn_implementation="sdpa")
OUTPUT = {"prompt_nll": 2.0, "prompt_top1": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "tokens": [5, 6, 7]}


def _record(configuration: Any, **changes: Any) -> Record:
    return ok_record(configuration, observed([0.5, 0.6]), output=OUTPUT | changes)


def _agreement(tables: Tables, row: int) -> tuple[Any, ...]:
    """What a point is compared with and how they agree, and whether it is as its first round."""
    return tables.points.select(*AGREEMENT_TYPES).row(row)[:5]


def _codes(tables: Tables) -> set[tuple[str, str]]:
    found = {(each.code, each.configuration["attn_implementation"]) for each in tables.warnings}
    return {(code, attention) for code, attention in found if code != "few_rounds"}


def test_points_are_compared_with_eager(tmp_path: Path) -> None:
    other = {"prompt_nll": 2.25, "prompt_top1": [1, 2, 3, 4, 5, 6, 7, 8, 0, 0], "tokens": [5, 6, 0]}
    tables = tables_of(tmp_path, _record(SDPA, **other), _record(EAGER))
    assert _agreement(tables, 0) == ("compared", pytest.approx(0.8), 0.25, 2, True)
    assert _agreement(tables, 1) == ("compared", 1.0, 0.0, None, True)
    assert tables.configurations["output_differs"].to_list() == [True, False]
    assert _codes(tables) == {("output_differs", "sdpa")}


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"prompt_top1": [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]}, False),  # 0.9 of the positions agree, which is the limit
        ({"prompt_top1": [1, 2, 3, 4, 5, 6, 7, 8, 0, 0]}, True),
        ({"prompt_nll": 2.04}, False),
        ({"prompt_nll": 1.94}, True),
        ({"tokens": [0, 0, 0]}, False),  # bfloat16 diverges in mid-sequence without being wrong
        ({"prompt_nll": None, "prompt_top1": None}, False),
        ({"path": PATH}, False),
        ({"path": {**PATH, "agrees": False}}, True),
        ({"path": {**PATH, "timed_tokens_agree": False}}, True),
    ],
)
def test_the_limits(tmp_path: Path, changes: dict[str, Any], differs: bool) -> None:
    tables = tables_of(tmp_path, _record(EAGER), _record(SDPA, **changes))
    assert tables.configurations["output_differs"].to_list() == [False, differs]


def test_another_token_is_a_difference_in_float32(tmp_path: Path) -> None:
    eager, sdpa = (point(attn_implementation=each, dtype="float32") for each in ("eager", "sdpa"))
    tables = tables_of(tmp_path, _record(eager), _record(sdpa, tokens=[5, 6, 0]))
    assert tables.configurations["output_differs"].to_list() == [False, True]
    assert _codes(tables) == {("output_differs", "sdpa")}


@pytest.mark.parametrize(
    "other", [{"dtype": "float32"}, {"batch_size": 4}, {"sequence_length": 20}, {"max_new_tokens": 8}, {"model": "big"}]
)
def test_a_reference_does_the_same_work(tmp_path: Path, other: dict[str, Any]) -> None:
    tables = tables_of(tmp_path, _record(SDPA), _record(point(attn_implementation="eager", **other)))
    assert _agreement(tables, 0) == ("missing", None, None, None, True)
    assert _codes(tables) == {("reference_missing", "sdpa")}


@pytest.mark.parametrize(
    ("others", "references"),
    [
        # It is plain.
        ([_record(point(attn_implementation="eager", compile_mode="default"))], ["missing", "missing"]),
        ([_record(point(attn_implementation="eager", use_kernels=True))], ["missing", "missing"]),
        ([_record(point(attn_implementation="eager", continuous_batching=True))], ["missing", "missing"]),
        # One that failed gives nothing, and any round that is ok will do.
        ([failed_record(EAGER, "no", output=OUTPUT)], [None, "not ok"]),
        (
            [failed_record(EAGER, "killed", "crashed"), _record(point(round=2, attn_implementation="eager"))],
            [None, "compared", "compared"],
        ),
    ],
)
def test_what_may_be_a_reference(tmp_path: Path, others: list[Record], references: list[str | None]) -> None:
    tables = tables_of(tmp_path, *others, _record(SDPA))
    assert tables.points["reference"].to_list() == references
    is_missing = references[-1] != "compared"
    assert tables.configurations["top1_agreement"].to_list()[-1] == (None if is_missing else 1.0)
    assert (("reference_missing", "sdpa") in _codes(tables)) == is_missing


def test_rounds_that_disagree_with_each_other(tmp_path: Path) -> None:
    rounds = [_record(EAGER), _record(SDPA), _record(point(round=2), tokens=[5, 0, 7]), _record(point(round=3))]
    tables = tables_of(tmp_path, *rounds)
    assert tables.points["same_as_first_round"].to_list() == [True, True, False, True]
    assert tables.configurations["rounds_disagreeing"].to_list() == [0, 1]
    assert tables.configurations["first_different_token"].to_list() == [None, 1]
    assert _codes(tables) == {("rounds_disagree", "sdpa")}


def test_the_worst_round_counts(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, _record(EAGER), _record(SDPA), _record(point(round=2), prompt_nll=2.5))
    assert tables.configurations["nll_difference"].to_list() == [0.0, 0.5]
    assert tables.configurations["output_differs"].to_list() == [False, True]


def test_rounds_whose_kernels_replace_other_layers_are_not_ranked(tmp_path: Path) -> None:
    with_kernels = [point(round=number, use_kernels=True) for number in (1, 2)]
    norm = {"layer": "RMSNorm", "modules": 5, "replaced": 5, "kernel": "k", "path": "/k", "sha256": "5" * 64}
    effective = [{"kernelized_layers": layers} for layers in ([norm], [])]
    rounds = [
        ok_record(each, observed([0.5]), effective=ran) for each, ran in zip(with_kernels, effective, strict=True)
    ]
    tables = tables_of(tmp_path, ok_record(SDPA, observed([0.6])), *rounds)
    assert tables.configurations["output_differs"].to_list() == [False, True]
    codes = {code for code, _ in _codes(tables)}
    assert "other_kernels" in codes
    assert "output_differs" not in codes
