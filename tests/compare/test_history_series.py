"""Series over invented rows: false alarms over many of them, and what is kept apart or together."""

from math import exp, log
from typing import Any

import numpy as np

from hfbench.compare.history_commits import Environments
from hfbench.compare.history_layout import change_text
from hfbench.compare.pairs import COMPARED, HEADLINE
from hfbench.compare.series import Result, Row, Series, collect_series, mark_changes
from hfbench.statistics.bootstrap import CONFIDENCE, Interval, student
from hfbench.statistics.verdicts import FASTER, SLOWER
from tests.tables.hand_records import point

ROUNDS = 3
CONFIGURATION = tuple(list(vars(point()).values())[1:])
UNKNOWN = ("", "", "", "")


def _result(estimate: float, error: float = 0.01, **changes: Any) -> Result:
    half = student(CONFIDENCE, ROUNDS - 1) * error
    values: dict[str, Any] = {
        "configuration": CONFIGURATION,
        "metric": HEADLINE.name,
        "content": UNKNOWN,
        "estimate": estimate,
        "interval": Interval(estimate, estimate * exp(-half), estimate * exp(half)),
        "rounds": ROUNDS,
        "measured": (estimate,),
        "output_differs": False,
    }
    return Result(**{**values, **changes})


def _row(*results: Result, machine: str = "here") -> Row:
    return Row("row", None, None, None, machine, results)


def _marked(*rows: Row) -> list[Series]:
    return mark_changes(collect_series(rows), threshold=0.02)


def test_many_series_of_noise_mark_nothing() -> None:
    generator = np.random.default_rng(3)
    histories, series, commits = 60, 40, 12
    alarms = 0
    for _ in range(histories):
        values = np.exp(generator.normal(0, 0.01, (commits, series)))
        errors = 0.01 * np.sqrt(generator.chisquare(ROUNDS - 1, (commits, series)) / (ROUNDS - 1))
        rows = [
            _row(
                *(
                    _result(float(value), float(error), configuration=(number, *CONFIGURATION[1:]))
                    for number, (value, error) in enumerate(zip(*each, strict=True))
                )
            )
            for each in zip(values, errors, strict=True)
        ]
        alarms += any(each.changes for each in _marked(*rows))
    assert alarms <= 0.05 * histories


def test_a_change_stands_out_among_series_without_one() -> None:
    rows = [
        _row(
            *(
                _result(
                    (1.1 if number == 7 and commit > 5 else 1.0) + commit * 1e-6,
                    configuration=(number, *CONFIGURATION[1:]),
                )
                for number in range(40)
            )
        )
        for commit in range(10)
    ]
    changed = [series for series in _marked(*rows) if series.changes]
    assert len(changed) == 1
    assert changed[0].changes is not None
    assert [(change.commit, change.verdict) for change in changed[0].changes] == [(6, SLOWER)]


def test_a_measurement_taken_over_is_no_evidence() -> None:
    # One slow measurement, and five commits that took it over: as little evidence as the one.
    fresh = [_row(_result(1.0 + 1e-6 * day, 0.03)) for day in range(3)]
    slow = _result(1.1, 0.03)
    (series,) = _marked(*fresh, *[_row(slow)] * 6)
    assert [value.is_carried for value in series.values] == [False] * 4 + [True] * 5
    assert series.changes == ()
    (series,) = _marked(*fresh, *(_row(_result(1.1 + 1e-6 * day, 0.03)) for day in range(6)))
    assert len(series.changes or ()) == 1


def test_what_a_row_does_not_tell_is_no_difference() -> None:
    contents = [UNKNOWN, ("cpu", "4", "", ""), ("cpu", "", "", ""), ("cpu", "8", "", ""), ("cpu", "4", "", "")]
    rows = [_row(_result(1.0 + place / 1000, content=content)) for place, content in enumerate(contents)]
    four, eight = collect_series(rows)
    assert [value.commit for value in four.values] == [0, 1, 2, 4]
    assert [value.commit for value in eight.values] == [3]


def test_more_is_worse_of_latency_and_better_of_throughput() -> None:
    metrics = {metric.name: metric for metric in COMPARED}
    verdicts = {}
    for name, metric in metrics.items():
        rows = [
            _row(_result(level + 1e-6 * day, 0.002, metric=name)) for day, level in enumerate([1.0] * 4 + [1.1] * 4)
        ]
        (series,) = _marked(*rows)
        assert series.changes is not None
        (change,) = series.changes
        verdicts[name] = change.verdict
        assert abs(log(change.ratio.estimate / 1.1)) < 1e-4
        words = change_text(change, metric)
        if name == "peak_memory_bytes":
            assert words.startswith("▲ more +10.0% (+")
        if name == "decode_tokens_per_second":
            assert words.startswith("▼ faster +10.0% (+")
    assert {name for name, verdict in verdicts.items() if verdict == FASTER} == {
        "decode_tokens_per_second",
        "prefill_tokens_per_second",
    }


def test_environments_get_labels_that_tell_them_apart() -> None:
    environments = Environments()
    cpu = {"brand": "CPU", "available_logical_cores": 4}
    packages = {"torch": {"version": "1"}}
    assert environments.label({"cpu": cpu, "packages": packages}) == "CPU, 4 cores"
    assert environments.label({"cpu": cpu, "packages": {"torch": {"version": "2"}}}) == "CPU, 4 cores"
    assert environments.label({"cpu": {**cpu, "microcode": "0x2"}}) == "CPU, 4 cores #2 (cpu.microcode none → 0x2)"
    assert environments.label({"cpu": cpu, "accelerators": [{"name": "GPU"}, {"name": "GPU"}]}) == (
        "CPU, 4 cores, 2 × GPU"
    )
    # Of two that do not say what they are, nobody knows that they are one.
    assert environments.label({}) != environments.label({})
