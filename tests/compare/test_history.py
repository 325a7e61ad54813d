"""The history of a real git and DVC repository: its rows, its change points, and what it says of the rest."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from hfbench.compare.history import HistoryOptions, history_command
from hfbench.compare.history_commits import is_history
from hfbench.core.errors import UserError
from hfbench.core.record import OUT_OF_MEMORY
from tests.compare.history_repository import MACHINE, OTHER_MACHINE, Repository, records
from tests.tables.hand_records import failed_record

OPTIONS = HistoryOptions(width=140)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Three equal results, a commit that was not measured, two results 10% slower, and one of another machine."""
    repository = Repository(tmp_path_factory.mktemp("history"))
    repository.commit("Begin")
    repository.measure("Measure", records(1.0, 2))
    repository.git("tag", "first")
    (repository.folder / "README.md").write_text("Words alone.")
    repository.commit("Write the README")
    repository.measure("Rename a variable", records(1.0, 4))
    repository.measure("Tidy | up", records(1.0, 5))
    (repository.folder / "dvc.lock").unlink()
    repository.commit("Change the kernel")
    repository.measure("Measure again", records(1.1, 7))
    repository.measure("Fix a typo", records(1.1, 8))
    repository.git("tag", "here")
    repository.measure("Measure elsewhere", records(0.5, 9), OTHER_MACHINE)
    repository.git("tag", "elsewhere")
    return repository


def _json(repository: Repository, *names: str, **options: Any) -> dict[str, Any]:
    text, _ = history_command(names, replace(OPTIONS, format="json", **options), repository.folder)
    content: dict[str, Any] = json.loads(text)
    return content


def _series(content: dict[str, Any], metric: str) -> list[dict[str, Any]]:
    return [series for series in content["series"] if series["metric"] == metric]


def test_three_names_or_a_range_are_a_history() -> None:
    assert is_history(["a", "b", "c"])
    assert is_history(["v1..v2"])
    assert not is_history(["a", "b"])
    assert not is_history(["../other", "HEAD"])


def test_a_row_for_each_commit_with_results_of_its_own(repository: Repository) -> None:
    content = _json(repository, "main~8..here")
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
    readme = repository.git("rev-parse", "--short=7", "main~6")
    assert f"1 commit with the very results of the commit before is left out: {readme}." in notes


def test_the_slowdown_is_marked_where_it_was_first_measured(repository: Repository) -> None:
    content = _json(repository, "first..here")
    (series,) = _series(content, "end_to_end_seconds")
    (change,) = series["changes"]
    assert (change["row"], change["previous_row"], change["verdict"]) == (3, 2, "slower")
    assert change["low"] < 1.1 < change["high"]
    assert change["ratio"] == pytest.approx(1.1, rel=0.005)
    (decode,) = _series(content, "decode_tokens_per_second")
    assert decode["changes"][0]["verdict"] == "slower"
    assert decode["changes"][0]["ratio"] == pytest.approx(1 / 1.1, rel=0.005)
    (load,) = _series(content, "load_seconds")
    assert load["changes"] == []


def test_the_terminal_shows_estimates_with_intervals_and_the_change(repository: Repository) -> None:
    text, _ = history_command(["first..here"], OPTIONS, repository.folder)
    lines = text.splitlines()
    assert max(map(cell_len, lines)) <= 140
    assert lines[0].startswith("end-to-end latency (ms)")
    slower = next(line for line in lines if "Measure again" in line)
    assert re.search(r"17\d ±\d", slower)
    assert "●" in slower
    assert re.search(r"▲ slower \+10\.\d% \(\+\d+\.\d … \+\d+\.\d%\)", slower)
    assert sum("▲ slower +" in line and "end-to-end" in line for line in lines) == 1
    place = next(place for place, line in pairwise(lines) if line.startswith("  ▲ slower"))
    assert place.endswith("Measure again (or the commit before it, which was not measured)")
    assert "Fewer than 8 commits do not tell a change of the code from a machine" in text


def test_environments_are_never_mixed(repository: Repository) -> None:
    content = _json(repository, "first..elsewhere")
    assert {row["environment"] for row in content["rows"]} == {
        "Test CPU, 4 cores, 16 GiB",
        "Other CPU, 8 cores, 16 GiB",
    }
    here, elsewhere = _series(content, "end_to_end_seconds")
    assert [value["row"] for value in here["values"]] == [0, 1, 2, 3, 4]
    assert [value["row"] for value in elsewhere["values"]] == [5]
    assert elsewhere["changes"] == []
    assert any("measured in 2 environments" in note and "Other CPU" in note for note in content["notes"])
    text, _ = history_command(["first..elsewhere"], OPTIONS, repository.folder)
    assert "end-to-end latency (ms) · Other CPU, 8 cores, 16 GiB" in text


def test_fail_on_slower_is_about_the_last_change(repository: Repository) -> None:
    failing = replace(OPTIONS, fail_on_slower=True)
    assert history_command(["first..here"], failing, repository.folder)[1] == 1
    assert history_command(["first..here"], OPTIONS, repository.folder)[1] == 0
    assert history_command(["first", "main~5", "main~4"], failing, repository.folder)[1] == 0
    # The last row is of another machine, where nothing became slower.
    assert history_command(["first..elsewhere"], failing, repository.folder)[1] == 0


def test_a_larger_threshold_hides_the_change(repository: Repository) -> None:
    assert not any(series["changes"] for series in _json(repository, "first..here", threshold=0.2)["series"])


def test_names_are_put_into_commit_order_and_kept(repository: Repository) -> None:
    content = _json(repository, "here", "first", "main~4")
    assert [row["name"] for row in content["rows"]] == ["first", "main~4", "here"]
    text, _ = history_command(["here", "first", "main~4"], OPTIONS, repository.folder)
    assert f"here {repository.git('rev-parse', '--short=7', 'here')}" in text


def test_metrics_and_filter(repository: Repository) -> None:
    content = _json(repository, "first..here", metrics=("decode", "load"), condition='attn_implementation == "sdpa"')
    assert {series["metric"] for series in content["series"]} == {"decode_tokens_per_second", "load_seconds"}
    with pytest.raises(UserError, match="eager"):
        _json(repository, "first..here", condition='attn_implementation == "eager"')
    with pytest.raises(UserError, match="--metric speed"):
        _json(repository, "first..here", metrics=("speed",))


def test_markdown_survives_any_subject(repository: Repository) -> None:
    text, _ = history_command(["first..here"], replace(OPTIONS, format="markdown"), repository.folder)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert "Tidy \\| up" in text
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in tables}) == 1
    assert "  - ▲ slower +10" in text


def test_what_cannot_be_a_history_says_why(repository: Repository) -> None:
    def error(*names: str) -> str:
        with pytest.raises(UserError) as caught:
            history_command(names, OPTIONS, repository.folder)
        return str(caught.value)

    assert "no ancestor" in error("here..first")
    assert "three dots" in error("first...here")
    assert "'nothing' is no git revision" in error("first", "nothing", "here")
    assert "`git checkout main~3 && dvc repro`" in error("first", "main~3", "here")
    assert "0 commits with results" in error("main~8..main~8")
    (repository.folder.parent / "imported").mkdir(exist_ok=True)
    assert "no place in the order of commits" in error("first", "../imported", "here")


def test_the_workspace_comes_last_and_is_no_second_measurement(repository: Repository) -> None:
    content = _json(repository, "workspace", "first", "elsewhere")
    assert [row["name"] for row in content["rows"]] == ["first", "elsewhere", "workspace"]
    _, elsewhere = _series(content, "end_to_end_seconds")
    assert [value["same_measurement_as_before"] for value in elsewhere["values"]] == [False, True]


@pytest.fixture
def fresh(tmp_path: Path) -> Repository:
    folder = tmp_path / "project"
    folder.mkdir()
    return Repository(folder)


def test_results_that_are_not_in_the_cache_are_told(fresh: Repository) -> None:
    fresh.measure("Measure", records(1.0, 1))
    second = fresh.measure("Measure again", records(1.0, 2))
    lock = (fresh.folder / "dvc.lock").read_text()
    digest = re.findall(r"md5: (\S+)\.dir", lock)[-1]
    fresh.measure("And again", records(1.0, 3))
    (fresh.folder / ".dvc/cache/files/md5" / digest[:2] / f"{digest[2:]}.dir").unlink()
    text, _ = history_command(["HEAD~2..HEAD"], OPTIONS, fresh.folder)
    assert f"{second[:7]} is left out" in " ".join(text.split())
    with pytest.raises(UserError, match="dvc pull"):
        history_command(["HEAD~2", second, "HEAD"], OPTIONS, fresh.folder)


def test_several_configurations_stand_beside_each_other(fresh: Repository) -> None:
    def both(day: int, eager: float) -> list[Any]:
        return [
            *records(1.0, day, attn_implementation="sdpa"),
            *records(eager, 100 + day, attn_implementation="eager"),
        ]

    for day in range(1, 5):
        fresh.measure(f"Day {day}", both(day, 1.0 if day < 3 else 0.9))
    text, _ = history_command(["HEAD~3..HEAD"], OPTIONS, fresh.folder)
    header = next(line for line in text.splitlines() if "commit" in line)
    assert {"sdpa", "eager"} <= set(header.split())
    changed = next(line for line in text.splitlines() if "Day 3" in line)
    assert re.search(r"▼ −(9|10)\.\d%", changed)
    assert any("trend" in line and "▁" in line for line in text.splitlines())


def test_a_configuration_that_fails_now_is_a_finding(fresh: Repository) -> None:
    for day in range(1, 4):
        eager = records(1.0, 10 + day, attn_implementation="eager")
        if day == 3:
            eager = [failed_record(each.configuration, "no memory", OUT_OF_MEMORY) for each in eager]
        fresh.measure(f"Day {day}", [*records(1.0, day, attn_implementation="sdpa"), *eager])
    text, status = history_command(["HEAD~2..HEAD"], replace(OPTIONS, fail_on_slower=True), fresh.folder)
    last = next(line for line in text.splitlines() if "Day 3" in line)
    assert "out_of_memory" in last
    assert f"eager was ok, and is out_of_memory since {fresh.git('rev-parse', '--short=7', 'HEAD')}." in text
    assert status == 1


def test_another_prompt_begins_a_series_of_its_own(fresh: Repository) -> None:
    for day in range(1, 5):
        provenance = {"inputs": "old" if day < 3 else "new"}
        measured = [replace(each, provenance=provenance) for each in records(1.0 if day < 3 else 2.0, day)]
        fresh.measure(f"Day {day}", measured)
    content = _json(fresh, "HEAD~3..HEAD")
    old, new = _series(content, "end_to_end_seconds")
    assert [value["row"] for value in old["values"]] == [0, 1]
    assert [value["row"] for value in new["values"]] == [2, 3]
    assert old["changes"] == new["changes"] == []
    assert any("#2 is the same configuration" in note for note in content["notes"])


def test_a_kernel_update_is_another_environment(fresh: Repository) -> None:
    for day, kernel in enumerate(("6.1", "6.1", "6.2", "6.2"), start=1):
        fresh.measure(f"Day {day}", records(1.0 if day < 3 else 2.0, day), {**MACHINE, "system": {"kernel": kernel}})
    content = _json(fresh, "HEAD~3..HEAD")
    assert not any(series["changes"] for series in content["series"])
    assert "system.kernel 6.1 → 6.2" in content["rows"][2]["environment"]


def test_a_part_that_was_measured_anew_leaves_the_rest_as_it_was(fresh: Repository) -> None:
    for day in range(1, 5):
        sdpa = records(1.0, 1, attn_implementation="sdpa")
        fresh.measure(f"Day {day}", [*sdpa, *records(1.0, 10 + day, attn_implementation="eager")])
    content = _json(fresh, "HEAD~3..HEAD")
    carried = {
        series["configuration"]["attn_implementation"]: [
            value["same_measurement_as_before"] for value in series["values"]
        ]
        for series in _series(content, "end_to_end_seconds")
    }
    assert carried == {"sdpa": [False, True, True, True], "eager": [False] * 4}
    assert any(note.startswith("= is the measurement of the commit before") for note in content["notes"])


def test_one_round_is_shown_and_marks_nothing(fresh: Repository) -> None:
    for day in range(1, 4):
        fresh.measure(f"Day {day}", records(float(day), day, rounds=1))
    content = _json(fresh, "HEAD~2..HEAD")
    (series,) = _series(content, "end_to_end_seconds")
    assert series["noise_known"] is False
    assert series["changes"] == []
    assert any("add rounds" in note for note in content["notes"])


def test_a_project_below_the_top_of_its_repository(tmp_path: Path) -> None:
    from dvc.repo import Repo

    repository = Repository(tmp_path)
    repository.commit("Begin")
    project = tmp_path / "benchmarks"
    project.mkdir()
    Repo.init(str(project), subdir=True).close()
    (project / "dvc.yaml").write_text((tmp_path / "dvc.yaml").read_text())
    (project / ".gitignore").write_text("/results/tables\n")
    repository.folder = project
    for day in range(1, 4):
        repository.measure(f"Day {day}", records(1.0, day))
    content = _json(repository, "HEAD~2..HEAD")
    assert [row["subject"] for row in content["rows"]] == ["Day 1", "Day 2", "Day 3"]
