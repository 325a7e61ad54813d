"""Which way is called fastest, and what that rests on."""

from pathlib import Path

import pytest

from hfbench.core.record import Record
from hfbench.report.charts.speed import summary_sentence
from hfbench.report.speedups import Winner, speedups_and_winners
from hfbench.statistics.verdicts import paired_ratio_interval
from tests.conftest import some
from tests.report.report_records import data_of, measured, rounds_of, sweep_records
from tests.tables.hand_records import point


def _only(folder: Path, records: list[Record]) -> Winner:
    (winner,) = speedups_and_winners(data_of(folder, records))[1]
    return winner


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
    assert summary_sentence([winner]) == "sdpa is fastest beyond noise in the one workload."


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
    assert summary_sentence([winner]) == "No way is faster than every other by more than noise in the workload."


def test_one_round_decides_nothing(tmp_path: Path) -> None:
    winner = _only(tmp_path, rounds_of(eager=[2.0], sdpa=[1.0]))
    assert some(winner.runner_up).interval is None
    assert some(winner.runner_up).estimate == pytest.approx(2.0)
    assert winner.rivals == ("eager",)
    assert "With one round no difference can be told from noise" in summary_sentence([winner])


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
    assert [each.configuration["way"] for each in speedups_and_winners(data_of(tmp_path, records))[0]] == ["sdpa"]


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
    _, found = speedups_and_winners(
        data_of(tmp_path, sweep_records(5, 6, noise=0.02, attn_implementation=names, **lengths))
    )
    assert len(found) == 40
    assert sum(not each.rivals for each in found) <= 3
