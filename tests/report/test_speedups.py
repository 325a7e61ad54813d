"""Which way is called fastest, and what that rests on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.record import Record
from hfbench.report.charts.speed import payoff_sentences, summary_sentences
from hfbench.report.speedups import Judgement, Winner, judge_ways
from hfbench.statistics.verdicts import SAME, paired_ratio_interval
from tests.conftest import some
from tests.report.report_records import data_of, measured, rounds_of, sweep_records
from tests.tables.hand_records import failed_record, point


def _only(folder: Path, records: list[Record]) -> Winner:
    (winner,) = judge_ways(data_of(folder, records)).winners
    return winner


def _summary(winner: Winner) -> str:
    return summary_sentences(Judgement([], [winner], []))


def test_the_winner_has_its_ratios_from_paired_rounds(tmp_path: Path) -> None:
    eager, sdpa = [2.0, 2.2, 2.4, 2.1], [1.0, 1.1, 1.2, 1.06]
    winner = _only(tmp_path, rounds_of(eager=eager, sdpa=sdpa, sdpa__math=[1.5, 1.65, 1.8, 1.58]))
    assert winner.configuration["way"] == "sdpa"
    assert some(winner.runner_up).against["way"] == "sdpa:math"
    assert some(winner.over_baseline).against["way"] == "eager"
    # The machine was slower in round 3, and both ways with it: the median of 2, 2, 2 and 1.98.
    assert some(winner.over_baseline).estimate == pytest.approx(2.0)
    samples = [[[each * factor for factor in (0.999, 1.0, 1.001)] for each in way] for way in (sdpa, eager)]
    assert some(winner.over_baseline).interval == paired_ratio_interval(*samples)
    assert winner.rivals == ()
    assert _summary(winner) == "sdpa is fastest beyond noise in the one workload."


@pytest.mark.parametrize(
    ("rounds", "rival"),
    [
        ({"eager": [1.0, 1.02, 0.99], "sdpa": [0.99, 1.03, 0.98]}, "eager"),
        ({"eager": [2.0, 2.0, 2.0], "sdpa": [1.0, 1.0, 1.0], "sdpa__math": [0.8, 3.0, 3.1]}, "sdpa:math"),
    ],
    ids=["a lead within noise", "a noisy third"],
)
def test_what_is_not_told_from_another_has_not_won(tmp_path: Path, rounds: dict[str, list[float]], rival: str) -> None:
    winner = _only(tmp_path, rounds_of(**rounds))
    assert winner.configuration["way"] == "sdpa"
    assert winner.rivals == (rival,)
    assert _summary(winner) == "No way is faster than every other by more than noise in the workload."


def test_one_round_decides_nothing(tmp_path: Path) -> None:
    winner = _only(tmp_path, rounds_of(eager=[2.0], sdpa=[1.0]))
    assert some(winner.runner_up).interval is None
    assert some(winner.runner_up).estimate == pytest.approx(2.0)
    assert winner.rivals == ("eager",)
    assert "With one round no difference can be told from noise" in _summary(winner)


def test_the_only_way_has_nothing_to_beat(tmp_path: Path) -> None:
    winner = _only(tmp_path, rounds_of(sdpa=[1.0, 1.0]))
    assert (winner.runner_up, winner.over_baseline, winner.rivals) == (None, None, ())


def test_what_computes_something_else_does_not_win(tmp_path: Path) -> None:
    records = [
        measured(
            point(round=number, attn_implementation=name),
            *(seconds * factor for factor in (0.999, 1.0, 1.001)),
            output={"prompt_nll": nll, "prompt_top1": [1, 2], "tokens": [3]},
        )
        for number in (1, 2, 3)
        for name, seconds, nll in (("eager", 2.0, 2.0), ("sdpa", 1.5, 2.0), ("flex_attention", 1.0, 3.0))
    ]
    winner = _only(tmp_path, records)
    assert winner.configuration["way"] == "sdpa"
    assert winner.flagged == ("flex_attention",)
    assert [each.configuration["way"] for each in judge_ways(data_of(tmp_path, records)).speedups] == ["sdpa"]


def test_only_rounds_that_both_have_are_compared(tmp_path: Path) -> None:
    winner = _only(tmp_path, [*rounds_of(eager=[2.0, 2.0, 2.0]), *rounds_of(sdpa=[1.0, 1.0, 1.0])[1:]])
    assert some(winner.over_baseline).interval is not None
    assert some(winner.over_baseline).estimate == pytest.approx(2.0)


def test_without_the_reference_the_first_way_of_the_sweep_is_the_baseline(tmp_path: Path) -> None:
    winner = _only(tmp_path, rounds_of(sdpa__math=[2.0, 2.0], sdpa=[1.0, 1.0]))
    assert some(winner.over_baseline).against["way"] == "sdpa:math"


def test_of_equal_ways_few_are_called_fastest(tmp_path: Path) -> None:
    """Forty workloads of three ways with the same speed and 2% between rounds: two are to be expected at most."""
    names = ["sdpa:flash_attention", "sdpa:cudnn_attention", "sdpa:efficient_attention"]
    lengths = {"sequence_length": list(range(10, 50)), "batch_size": [1], "max_new_tokens": [4]}
    records = sweep_records(5, 6, noise=0.02, attn_implementation=names, **lengths)
    found = judge_ways(data_of(tmp_path, records)).winners
    assert len(found) == 40
    assert sum(not each.rivals for each in found) <= 3


def _later(records: list[Record], days: int) -> list[Record]:
    """The same, measured on another day."""
    for each in records:
        started = datetime.fromisoformat(str(each.started_at)) + timedelta(days=days)
        each.started_at = started.isoformat()
    return records


def test_what_was_measured_on_another_day_is_said_to_be(tmp_path: Path) -> None:
    drift = [1.0, 1.1, 1.2, 1.3]
    eager, sdpa = (rounds_of(**{name: [time * each for each in drift]}) for name, time in (("eager", 1.1), ("sdpa", 1)))
    together = judge_ways(data_of(tmp_path / "a", [*eager, *sdpa]))
    assert together.winners[0].is_clear
    assert "separate runs" not in summary_sentences(together)
    apart = judge_ways(data_of(tmp_path / "b", [*eager, *_later(sdpa, 7)]))
    assert not apart.winners[0].is_clear, "the drift of a machine from day to day is in it"
    assert "1 of 1 comparison is of two separate runs" in summary_sentences(apart)


def test_a_round_that_failed_makes_no_separate_run_of_the_others(tmp_path: Path) -> None:
    records = rounds_of(eager=[2.0, 2.0, 2.0], sdpa=[1.0, 1.0, 1.0])
    records[-2] = failed_record(records[-2].configuration)
    assert "separate runs" not in summary_sentences(judge_ways(data_of(tmp_path, records)))


def test_rounds_that_failed_are_no_rounds_that_were_not_asked_for(tmp_path: Path) -> None:
    failed = [failed_record(point(round=number, attn_implementation="sdpa")) for number in (2, 3)]
    judgement = judge_ways(data_of(tmp_path, [*rounds_of(eager=[2.0, 2.0, 2.0], sdpa=[1.0]), *failed]))
    assert "See under Not ok why the other rounds were not." in summary_sentences(judgement)


def _batches(seconds: Mapping[str, Mapping[int, float]], output: Callable[[str], dict[str, Any]]) -> list[Record]:
    return [
        measured(
            point(round=number, attn_implementation="eager", quantization=name, batch_size=batch),
            *(each * factor for factor in (0.999, 1.0, 1.001)),
            output=output(name),
        )
        for number in (1, 2, 3)
        for name, batches in seconds.items()
        for batch, each in batches.items()
    ]


def test_where_a_value_of_an_axis_pays_and_what_it_costs(tmp_path: Path) -> None:
    times = {"none": {1: 1.0, 4: 2.0, 16: 4.0}, "int8": {1: 0.8, 4: 1.5, 16: 5.0}, "nf4": {1: 0.5, 4: 0.5}}
    nll = {"none": 2.0, "int8": 2.01, "nf4": 9.0}

    def output(name: str) -> dict[str, Any]:
        return {"prompt_nll": nll[name], "prompt_top1": [1, 2], "tokens": [3], "nll_positions": [0, 9]}

    failed = [failed_record(point(round=1, attn_implementation="eager", quantization="nf4", batch_size=16))]
    assert payoff_sentences(judge_ways(data_of(tmp_path, [*_batches(times, output), *failed]))) == [
        "quantization int8 against none: faster up to batch 4; slower at batch 16; the prompt's negative "
        "log-likelihood changes by +0.01 nats a token",
        "quantization nf4 against none: output differs at b1, b4; failed at b16; the prompt's negative log-likelihood "
        "changes by +7 nats a token",
    ]


def test_a_change_within_the_threshold_of_the_params_counts_as_none(tmp_path: Path) -> None:
    data = data_of(tmp_path, rounds_of(eager=[1.03, 1.031, 1.029], sdpa=[1.0, 1.001, 0.999]))
    assert judge_ways(data).winners[0].is_clear
    (winner,) = judge_ways(replace(data, threshold=0.05)).winners
    assert some(winner.verdict).word == SAME
