"""The history of a real git and DVC repository, and series over invented rows: what is marked, kept apart and told."""

import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len

from benchmarks.synthetic_tables import START, Plan, sweep
from hfbench.compare.changes import environment_labels
from hfbench.compare.history import is_history
from hfbench.compare.pairs import COMPARED, HEADLINE
from hfbench.compare.series import HistoryRow, Result, Series, change_text, collect_series, mark_changes
from hfbench.core.point import Configuration
from hfbench.statistics.bootstrap import CONFIDENCE, Interval, student
from tests.compare.project import Project

THIS_MACHINE: dict[str, Any] = {
    "cpu": {"brand": "Test CPU", "available_logical_cores": 4},
    "memory": {"total_gib": 16},
    "accelerators": [],
}
OTHER_MACHINE = {**THIS_MACHINE, "cpu": {"brand": "Other CPU", "available_logical_cores": 8}}
ROUNDS = 3
CONFIGURATION = tuple(vars(sweep()[0]).values())[1:]
UNKNOWN = ("", "", "", "")
BOTH = sweep(attn_implementation=["sdpa", "eager"])


def measurement(level: float, day: int, **changes: Any) -> Plan:
    """Three quiet rounds whose times are `level` times the usual."""
    plan = Plan(sweep(), (1, 2, 3), 6, lambda _: level, 0.002, 0.001, seed=day, started=START + timedelta(days=day))
    return replace(plan, **changes)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three equal results, a commit that was not measured, two results 10% slower, and one of another machine."""
    project = Project.create(tmp_path_factory.mktemp("history") / "project")
    project.commit_alone("Begin")
    days: list[tuple[str, float, dict[str, Any]]] = [
        ("Measure", 1.0, THIS_MACHINE),
        ("Write the README", 0, {}),
        ("Rename a variable", 1.0, THIS_MACHINE),
        ("Tidy | up", 1.0, THIS_MACHINE),
        ("Change the kernel", 0, {}),
        ("Measure again", 1.1, THIS_MACHINE),
        ("Fix a typo", 1.1, THIS_MACHINE),
        ("Measure elsewhere", 0.5, OTHER_MACHINE),
    ]
    tags = {"Measure": "first", "Fix a typo": "here", "Measure elsewhere": "elsewhere"}
    for day, (subject, level, machine) in enumerate(days, start=2):
        if subject == "Change the kernel":
            (project.folder / "dvc.lock").unlink()
        if level:
            project.measure(measurement(level, day), machine)
            project.commit(subject, tags.get(subject))
        else:
            project.commit_alone(subject)
    return project


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    return Project.create(tmp_path / "project")


def measure_days(project: Project, *plans: Plan | list[Plan], machines: Any = ()) -> list[str]:
    """Commit the results of a day each, and return the commits."""
    commits = []
    for day, plan in enumerate(plans, start=1):
        project.measure(plan, machines[day - 1] if machines else THIS_MACHINE)
        commits.append(project.commit(f"Day {day}"))
    return commits


def series_of(content: dict[str, Any], metric: str) -> list[dict[str, Any]]:
    return [series for series in content["series"] if series["metric"] == metric]


def test_three_names_or_a_range_are_a_history() -> None:
    asked = (["a", "b", "c"], ["v1..v2"], ["a", "b"], ["../other", "HEAD"])
    assert list(map(is_history, asked)) == [True, True, False, False]


def test_a_row_for_each_commit_with_results_of_its_own(project: Project) -> None:
    content = project.compare_json("main~8..here")
    assert [row["subject"] for row in content["rows"]] == [
        "Measure",
        "Rename a variable",
        "Tidy | up",
        "Measure again",
        "Fix a typo",
    ]
    assert [row["commits_without_results_before"] for row in content["rows"]] == [1, 0, 0, 1, 0]
    notes = " ".join(content["notes"])
    assert "2 commits without results are left out." in notes
    readme = project.git("rev-parse", "--short=7", "main~6").strip()
    assert f"1 commit with the very results of the commit before is left out: {readme}." in notes


def test_the_slowdown_is_marked_where_it_was_first_measured(project: Project) -> None:
    content = project.compare_json("first..here")
    (series,) = series_of(content, "end_to_end_seconds")
    (change,) = series["changes"]
    assert (change["row"], change["previous_row"], change["verdict"]) == (3, 2, "slower")
    assert change["low"] < 1.1 < change["high"]
    assert change["ratio"] == pytest.approx(1.1, rel=0.005)
    (decode,) = series_of(content, "decode_tokens_per_second")
    assert decode["changes"][0]["verdict"] == "slower"
    assert decode["changes"][0]["ratio"] == pytest.approx(1 / 1.1, rel=0.005)
    (load,) = series_of(content, "load_seconds")
    assert load["changes"] == []
    content = project.compare_json("first..here", "--threshold", "20%")  # which hides it
    assert not any(series["changes"] for series in content["series"])


def test_the_terminal_shows_estimates_with_intervals_and_the_change(project: Project) -> None:
    text = project.compare("first..here").out
    lines = text.splitlines()
    assert max(map(cell_len, lines[: lines.index("Change points")])) <= 100
    assert lines[0].startswith("end-to-end latency (ms)")
    slower = next(line for line in lines if line.startswith(project.git("rev-parse", "--short=7", "here~1").strip()))
    assert re.search(r"49\d ±\d", slower)
    assert "●" in slower
    assert re.search(r"▲ slower \+\d+\.\d% \(\+\d+\.\d … \+\d+\.\d%\)", slower)
    assert sum("▲ slower +" in line and "end-to-end" in line for line in lines) == 1
    place = next(place for place, line in pairwise(lines) if line.startswith("  ▲ slower"))
    assert place.endswith("Measure again (or the commit before it, which was not measured)")
    assert "Fewer than 8 commits do not tell a change of the code from a machine" in text


def test_environments_are_never_mixed(project: Project) -> None:
    content = project.compare_json("first..elsewhere")
    assert {row["environment"] for row in content["rows"]} == {
        "Test CPU, 4 cores, 16 GiB",
        "Other CPU, 8 cores, 16 GiB",
    }
    here, elsewhere = series_of(content, "end_to_end_seconds")
    assert [value["row"] for value in here["values"]] == [0, 1, 2, 3, 4]
    assert [value["row"] for value in elsewhere["values"]] == [5]
    assert elsewhere["changes"] == []
    assert any("measured in 2 environments" in note and "Other CPU" in note for note in content["notes"])
    assert "end-to-end latency (ms) · Other CPU, 8 cores, 16 GiB" in project.compare("first..elsewhere").out
    refused = project.compare("first..elsewhere", "--across-environments")
    assert refused.status == 2
    assert "never mixes machines" in refused.err


def test_fail_on_slower_is_about_the_last_change(project: Project) -> None:
    assert project.compare("first..here", "--fail-on", "slower").status == 1
    assert project.compare("first..here").status == 0
    assert project.compare("first", "main~5", "main~4", "--fail-on", "slower").status == 0
    # The last row is of another machine, where nothing became slower.
    assert project.compare("first..elsewhere", "--fail-on", "slower").status == 0


def test_names_are_put_into_commit_order_and_kept(project: Project) -> None:
    names = ("here", "first", "main~4")
    assert [row["name"] for row in project.compare_json(*names)["rows"]] == ["first", "main~4", "here"]
    assert f"here {project.git('rev-parse', '--short=7', 'here').strip()}" in project.compare(*names).out


def test_metrics_and_filter(project: Project) -> None:
    words = ("first..here", "--metric", "decode", "--metric", "load", "--filter")
    content = project.compare_json(*words, 'attn_implementation == "sdpa"')
    assert {series["metric"] for series in content["series"]} == {"decode_tokens_per_second", "load_seconds"}
    assert "eager" in project.compare(*words, 'attn_implementation == "eager"').err
    assert "round" in project.compare(*words, "round == 1").err
    assert "--metric speed" in project.compare("first..here", "--metric", "speed").err


def test_markdown_survives_any_subject(project: Project) -> None:
    text = project.compare("first..here", "--format", "markdown").out
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert "Tidy \\| up" in text
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in tables}) == 1
    assert re.search(r"  - ▲ slower \+\d", text)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("here..first",), "no ancestor"),
        (("first...here",), "three dots"),
        (("first", "nothing", "here"), "'nothing' is no git revision"),
        (("first", "main~3", "here"), "`git checkout main~3 && dvc repro`"),
        (("main~8..main~8",), "0 commits with results"),
        (("first", "../imported", "here"), "no place in the order of commits"),
    ],
)
def test_what_cannot_be_a_history_says_why(project: Project, names: tuple[str, ...], expected: str) -> None:
    (project.folder.parent / "imported").mkdir(exist_ok=True)
    outcome = project.compare(*names)
    assert outcome.status == 2
    assert expected in outcome.err


def test_the_workspace_comes_last_and_is_no_second_measurement(project: Project) -> None:
    content = project.compare_json("workspace", "first", "elsewhere")
    assert [row["name"] for row in content["rows"]] == ["first", "elsewhere", "workspace"]
    _, elsewhere = series_of(content, "end_to_end_seconds")
    assert [value["same_measurement_as_before"] for value in elsewhere["values"]] == [False, True]


def test_results_that_are_not_in_the_cache_are_told(fresh: Project) -> None:
    first, second, third = measure_days(fresh, *(measurement(1.0, day) for day in (1, 2, 3)))
    digest = re.findall(r"md5: (\S+)\.dir", fresh.git("show", f"{second}:dvc.lock"))[-1]
    (fresh.folder / ".dvc/cache/files/md5" / digest[:2] / f"{digest[2:]}.dir").unlink()
    assert f"{second[:7]} is left out" in " ".join(fresh.compare(f"{first}..").out.split())
    assert "dvc pull" in fresh.compare(first, second, third).err


def test_several_configurations_stand_beside_each_other(fresh: Project) -> None:
    def faster_eager(configuration: Configuration) -> float:
        return 0.9 if configuration.attn_implementation == "eager" else 1.0

    plans = [measurement(1.0, day, configurations=BOTH) for day in range(1, 5)]
    measure_days(fresh, *plans[:2], *(replace(plan, effect=faster_eager) for plan in plans[2:]))
    lines = fresh.compare("HEAD~3..HEAD").out.splitlines()
    header = next(line for line in lines if "commit" in line)
    assert {"sdpa", "eager"} <= set(header.split())
    changed = next(line for line in lines if "Day 3" in line)
    assert re.search(r"▼ −(9|10)\.\d%", changed)
    assert any("trend" in line and "▁" in line for line in lines)


def test_a_configuration_that_fails_now_is_a_finding(fresh: Project) -> None:
    plans = [measurement(1.0, day, configurations=BOTH) for day in (1, 2, 3)]
    broken = replace(plans[2], fails=lambda each: "no memory" if each.attn_implementation == "eager" else None)
    measure_days(fresh, *plans[:2], broken)
    outcome = fresh.compare("HEAD~2..HEAD", "--fail-on", "slower")
    assert "failed" in next(line for line in outcome.out.splitlines() if "Day 3" in line)
    assert f"eager was ok, and is failed since {fresh.git('rev-parse', '--short=7', 'HEAD').strip()}." in outcome.out
    assert outcome.status == 1


def test_another_prompt_begins_a_series_of_its_own(fresh: Project) -> None:
    plans = [measurement(1.0 if day < 3 else 2.0, day) for day in range(1, 5)]
    measure_days(fresh, *plans[:2], *(replace(plan, facts=(("input_tensors_sha256", "1" * 64),)) for plan in plans[2:]))
    content = fresh.compare_json("HEAD~3..HEAD")
    old, new = series_of(content, "end_to_end_seconds")
    assert [value["row"] for value in old["values"]] == [0, 1]
    assert [value["row"] for value in new["values"]] == [2, 3]
    assert old["changes"] == new["changes"] == []
    assert any("#2 is the same configuration" in note for note in content["notes"])


def test_a_kernel_update_is_another_environment(fresh: Project) -> None:
    machines = [{**THIS_MACHINE, "system": {"kernel": kernel}} for kernel in ("6.1", "6.1", "6.2", "6.2")]
    measure_days(fresh, *(measurement(1.0 if day < 3 else 2.0, day) for day in range(1, 5)), machines=machines)
    content = fresh.compare_json("HEAD~3..HEAD")
    assert not any(series["changes"] for series in content["series"])
    assert "system.kernel 6.1 → 6.2" in content["rows"][2]["environment"]


def test_a_part_that_was_measured_anew_leaves_the_rest_as_it_was(fresh: Project) -> None:
    sdpa, eager = (measurement(1.0, 1, configurations=[each]) for each in BOTH)
    measure_days(fresh, *([sdpa, replace(eager, seed=day, started=START + timedelta(day))] for day in range(1, 5)))
    content = fresh.compare_json("HEAD~3..HEAD")
    carried = {
        series["configuration"]["attn_implementation"]: [
            value["same_measurement_as_before"] for value in series["values"]
        ]
        for series in series_of(content, "end_to_end_seconds")
    }
    assert carried == {"sdpa": [False, True, True, True], "eager": [False] * 4}
    assert any(note.startswith("= is the measurement of the commit before") for note in content["notes"])


def test_one_round_a_commit_tells_no_change(fresh: Project) -> None:
    measure_days(fresh, *(measurement(float(day), day, rounds=(1,)) for day in (1, 2, 3)))
    content = fresh.compare_json("HEAD~2..HEAD")
    (series,) = series_of(content, "end_to_end_seconds")
    assert series["noise_known"] is False
    assert series["changes"] == []
    assert any("add rounds" in note for note in content["notes"])


def test_a_project_below_the_top_of_its_repository(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "top", below="benchmarks")
    measure_days(project, *(measurement(1.0, day) for day in (1, 2, 3)))
    assert [row["subject"] for row in project.compare_json("main~2..")["rows"]] == ["Day 1", "Day 2", "Day 3"]


def result(estimate: float, error: float = 0.01, **changes: Any) -> Result:
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


def row(*results: Result, machine: str = "here") -> HistoryRow:
    return HistoryRow("row", None, None, None, results, machine)


def marked(*rows: HistoryRow) -> list[Series]:
    series = collect_series(rows)
    mark_changes(series, threshold=0.02)
    return series


def table(estimates: Any, errors: Any) -> list[HistoryRow]:
    """Rows of as many configurations as these arrays have columns."""
    return [
        row(
            *(
                result(float(estimate), float(error), configuration=(number, *CONFIGURATION[1:]))
                for number, (estimate, error) in enumerate(zip(*each, strict=True))
            )
        )
        for each in zip(estimates, errors, strict=True)
    ]


def test_many_series_of_noise_mark_nothing() -> None:
    generator = np.random.default_rng(3)
    histories, shape = 60, (12, 40)  # commits and series
    alarms = 0
    for _ in range(histories):
        values = np.exp(generator.normal(0, 0.01, shape))
        errors = 0.01 * np.sqrt(generator.chisquare(ROUNDS - 1, shape) / (ROUNDS - 1))
        alarms += any(each.changes for each in marked(*table(values, errors)))
    assert alarms <= 0.05 * histories


def test_a_change_stands_out_among_series_without_one() -> None:
    estimates = np.ones((10, 40)) + 1e-6 * np.arange(10)[:, None]
    estimates[6:, 7] += 0.1
    (changed,) = (series for series in marked(*table(estimates, np.full((10, 40), 0.01))) if series.changes)
    assert [(change.commit, change.verdict) for change in changed.changes or ()] == [(6, "slower")]


def test_a_measurement_taken_over_is_no_evidence() -> None:
    # One slow measurement, and five commits that took it over: as little evidence as the one.
    fresh = [row(result(1.0 + 1e-6 * day, 0.03)) for day in range(3)]
    slow = result(1.1, 0.03)
    (series,) = marked(*fresh, *[row(slow)] * 6)
    assert [value.is_carried for value in series.values] == [False] * 4 + [True] * 5
    assert series.changes == ()
    (series,) = marked(*fresh, *(row(result(1.1 + 1e-6 * day, 0.03)) for day in range(6)))
    assert len(series.changes or ()) == 1


def test_what_a_row_does_not_tell_is_no_difference() -> None:
    contents = [UNKNOWN, ("cpu", "4", "", ""), ("cpu", "", "", ""), ("cpu", "8", "", ""), ("cpu", "4", "", "")]
    rows = [row(result(1.0 + place / 1000, content=content)) for place, content in enumerate(contents)]
    four, eight = collect_series(rows)
    assert [value.commit for value in four.values] == [0, 1, 2, 4]
    assert [value.commit for value in eight.values] == [3]


def test_more_is_worse_of_latency_and_better_of_throughput() -> None:
    metrics = {metric.name: metric for metric in COMPARED}
    verdicts = {}
    for name, metric in metrics.items():
        rows = [row(result(level + 1e-6 * day, 0.002, metric=name)) for day, level in enumerate([1.0] * 4 + [1.1] * 4)]
        (series,) = marked(*rows)
        assert series.changes is not None
        (change,) = series.changes
        verdicts[name] = change.verdict
        assert abs(log(change.ratio.estimate / 1.1)) < 1e-4
        words = change_text(change, metric)
        if name == "peak_memory_bytes":
            assert words.startswith("▲ more +10.0% (+")
        if name == "decode_tokens_per_second":
            assert words.startswith("▼ faster +10.0% (+")
    assert {name for name, verdict in verdicts.items() if verdict == "faster"} == {
        "decode_tokens_per_second",
        "prefill_tokens_per_second",
    }


def test_environments_get_labels_that_tell_them_apart() -> None:
    cpu = {"brand": "CPU", "available_logical_cores": 4}
    environments: list[dict[str, Any]] = [
        {"cpu": cpu, "packages": {"torch": {"version": "1"}}},
        {"cpu": cpu, "packages": {"torch": {"version": "2"}}},
        {"cpu": {**cpu, "microcode": "0x2"}},
        {"cpu": cpu, "accelerators": [{"name": "GPU"}, {"name": "GPU"}]},
        {},
        {},
    ]
    *known, one, other = environment_labels(environments)
    changed = "CPU, 4 cores #2 (cpu.microcode none → 0x2)"
    assert known == ["CPU, 4 cores", "CPU, 4 cores", changed, "CPU, 4 cores, 2 × GPU"]
    assert one != other  # of two that do not say what they are, nobody knows that they are one
