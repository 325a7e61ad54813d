"""`hfbench compare` as a person and a CI job meet it: in a repository, by its output and its exit status."""

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from benchmarks.synthetic_tables import START, Plan, sweep
from hfbench.core.point import Configuration
from tests.compare.project import MACHINE, Project
from tests.conftest import ROOT

HERE = {**os.environ, "PYTHONPATH": str(ROOT)}
BASELINE = Plan(sweep(attn_implementation=["eager", "sdpa"], batch_size=[1, 4]), rounds=(1, 2, 3, 4, 5))


def slow(configuration: Configuration) -> float:
    return 1.2 if configuration.attn_implementation == "sdpa" else 1.0


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Tags: `base`, `again` with the same truth, `slow` with sdpa a fifth slower and code and params changed."""
    project = Project.create(tmp_path_factory.mktemp("template") / "project")
    project.measure(BASELINE)
    project.commit("base", tag="base")
    project.measure(replace(BASELINE, seed=1, started=START + timedelta(minutes=5)))
    project.commit("again", tag="again")
    (project.folder / "params.yaml").write_text("device: cpu\nsampling:\n  min_iterations: 20\n")
    (project.folder / "hfbench" / "measurement" / "loop.py").write_text("pass\npass\n")
    project.measure(replace(BASELINE, seed=2, started=START + timedelta(days=1), effect=slow))
    project.commit("slow", tag="slow")
    return project


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    return template.copy(tmp_path)


def test_the_terminal_shows_sides_causes_and_verdicts(template: Project) -> None:
    outcome = template.compare("base", "slow")
    lines = outcome.out.splitlines()
    assert outcome.status == 0
    assert lines[0].startswith("baseline   base  ")
    assert lines[1].endswith("  slow")
    assert "params    sampling.min_iterations 12 → 20" in outcome.out
    assert "code      2 commits" in outcome.out
    assert "1 file of hfbench, +1 −0 lines: hfbench/measure" in outcome.out
    (row,) = (line for line in lines if line.startswith("sdpa b4"))
    assert row.split()[-1] == "slower"
    assert "2 slower" in outcome.out
    assert max(map(len, lines)) <= 100


def test_without_names_the_workspace_is_compared_with_the_last_commit(project: Project) -> None:
    assert "not measured again" in project.compare().out
    project.measure(replace(BASELINE, seed=5, started=START + timedelta(days=2)))
    content = project.compare_json()
    assert (content["baseline"]["label"], content["candidate"]["label"]) == ("HEAD", "workspace")
    assert content["metrics"][0]["verdicts"]["faster"] == 2


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("base", "slow", "--fail-on", "slower"), 1),
        (("slow", "base", "--fail-on", "slower"), 0),
        (("base", "again", "--fail-on", "slower"), 0),
        (("base", "slow", "--fail-on", "slower", "--filter", 'attn_implementation == "eager"'), 0),
        (("base", "slow", "--fail-on", "slower", "--metric", "load"), 0),
        (("base", "slow", "--fail-on", "slower", "--threshold", "50%"), 0),
        (("base", "slow", "--fail-on", "slower", "--metric", "time_to_first_token_p95_seconds"), 1),
        (("base", "slow", "--fail-on", "slower", "--metric", "output_tokens_per_second"), 1),
        (("base", "slow", "--metric", "energy"), 2),
        (("base", "again", "slow", "--metric", "inter_token_gap_p99_seconds"), 0),
        (("base", "slow"), 0),
        (("base", "slo"), 2),
        (("base", "slow", "--filter", 'attn == "sdpa"'), 2),
        (("base", "slow", "--filter", "batch_size == 8"), 2),
        (("base", "slow", "--metric", "speed"), 2),
        (("base", "slow", "--reference", "sdpa"), 2),
        (("base", "slow", "--axis", "attn_implementation"), 2),
        (("base..slow", "--metric", "energy"), 2),
        (("--threshold", "3"), 2),
        (("--format", "html"), 2),
    ],
)
def test_the_exit_status(template: Project, words: tuple[str, ...], status: int) -> None:
    outcome = template.compare(*words)
    assert outcome.status == status
    assert outcome.err.startswith(("hfbench: ", "usage: hfbench compare")) == (status == 2)


def test_who_reads_the_first_lines_alone_changes_no_exit_status(template: Project) -> None:
    for words, status in ((("base", "again"), 0), (("base", "slow"), 1)):
        for more in ((), ("--format", "json")):
            command = shlex.join([sys.executable, "-m", "hfbench.cli", "compare", *words, *more, "--fail-on", "slower"])
            piped = f"{command} | true; exit ${{PIPESTATUS[0]}}"
            found = subprocess.run(["bash", "-c", piped], cwd=template.folder, env=HERE, capture_output=True, text=True)
            assert (found.returncode, found.stderr) == (status, "")


def test_points_without_twins_are_nothing_to_compare(project: Project) -> None:
    alone = [each for each in BASELINE.configurations if (each.attn_implementation == "sdpa") == (each.batch_size == 4)]
    project.measure(replace(BASELINE, configurations=alone))
    outcome = project.compare("--axis", "attn_implementation", "--fail-on", "slower")
    assert outcome.status == 2
    assert "no two points of workspace differ in it alone" in outcome.err


def test_a_point_that_fails_now_fails_the_job(project: Project) -> None:
    broken = replace(BASELINE, seed=3, fails=lambda each: "ImportError: no kernel" if each.batch_size == 4 else None)
    project.measure(broken)
    outcome = project.compare("base", "--fail-on", "slower")
    assert outcome.status == 1
    assert "sdpa b4: ok → failed: ImportError: no kernel" in outcome.out


def test_two_machines_are_incomparable_until_it_is_meant(project: Project) -> None:
    project.measure(replace(BASELINE, seed=3, effect=slow), environment={**MACHINE, "cpu": {"brand": "Other CPU"}})
    outcome = project.compare("base", "--fail-on", "slower")
    assert outcome.status == 0
    assert "4 incomparable" in outcome.out
    assert "cpu.brand Synthetic CPU → Other CPU" in outcome.out
    outcome = project.compare("base", "--fail-on", "slower", "--across-environments")
    assert outcome.status == 1
    assert "Two machines, compared on purpose" in outcome.out


def test_sides_without_a_point_in_common_are_an_error(project: Project) -> None:
    project.measure(replace(BASELINE, configurations=sweep(batch_size=[64])))
    outcome = project.compare("base", "--fail-on", "slower")
    assert outcome.status == 2
    assert "no point in common" in outcome.err


def test_the_threshold_of_the_params(project: Project) -> None:
    (project.folder / "params.yaml").write_text("compare:\n  threshold: 0.5\n")
    assert project.compare("base", "slow", "--fail-on", "slower").status == 0
    assert project.compare("base", "slow", "--fail-on", "slower", "--threshold", "0.02").status == 1
    (project.folder / "params.yaml").write_text("compare:\n  threshold: much\n")
    outcome = project.compare("base", "slow")
    assert outcome.status == 2
    assert "compare.threshold is 'much'" in outcome.err


def test_markdown_has_the_verdicts_first_and_the_rest_folded(template: Project) -> None:
    text = template.compare("base", "slow", "--format", "markdown").out
    summary, notable, folded = (
        text.index(part) for part in ("**end-to-end latency: 2 slower", "| end-to-end", "<details>")
    )
    assert summary < notable < folded
    assert text.count("<details>") == text.count("</details>") >= 5
    rows = [line for line in text[:folded].splitlines() if line.startswith("| ") and "slower" in line]
    assert len(rows) == 10  # five metrics of two points
    assert {line.count(" | ") for line in rows} == {6}


def test_json_has_everything_under_stable_keys(template: Project) -> None:
    content = template.compare_json("base", "slow")
    assert content["schema_version"] == 1
    assert content["slower"] is True
    pair = content["pairs"][-1]
    assert pair["configuration"]["attn_implementation"] == "sdpa"
    judged = pair["metrics"]["end_to_end_seconds"]
    assert judged["verdict"] == "slower"
    assert judged["low"] < judged["ratio"] < judged["high"]
    assert judged["ratio"] == pytest.approx(1.2, rel=0.05)
    assert judged["adjusted_p_value"] >= judged["p_value"]
    assert {change["kind"] for change in content["changes"]} == {"params", "code"}
    assert content["tests"] == 28


def test_an_axis_in_every_format(template: Project) -> None:
    words = ("base", "--axis", "attn_implementation", "--metric", "e2e")
    text = template.compare(*words).out
    assert "Best attn_implementation by end-to-end latency" in text
    assert "ahead of eager" in text
    assert "ahead of eager" in template.compare(*words, "--format", "markdown").out
    content = template.compare_json(*words)
    assert [winner["value"] for winner in content["winners"]] == ["sdpa", "sdpa"]
    assert content["comparisons"][0]["value"] == "sdpa"
    assert template.compare(*words, "--reference", "sdpa", "--fail-on", "slower").status == 1


def test_more_points_than_a_screen_are_cut_and_counted(project: Project) -> None:
    many = replace(BASELINE, configurations=sweep(batch_size=list(range(1, 61))), iterations=4, between=0.002)
    project.measure(many)
    project.commit("many")
    project.measure(replace(many, seed=4, effect=lambda each: 1.5 if each.batch_size > 55 else 1.0))
    outcome = project.compare()
    assert sum(line.startswith("b") and "slower" in line for line in outcome.out.splitlines()) == 5
    assert "Not shown:" in outcome.out
    assert project.compare("--format", "markdown").out.count("\n| b1 ") == 7
