"""`hfbench bisect` on real git histories, of a stand-in for transformers too; and when a commit is slower, by hand."""

import re
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from hfbench.checkouts.bisect import (
    FAILED,
    CommitVerdict,
    Marks,
    Rule,
    Trial,
    answer,
    decide,
    decisions_among,
    find_first_slow,
    require_slower,
)
from hfbench.checkouts.workspace import require_same_environment
from hfbench.core.errors import UserError
from hfbench.git import Commit, Repository
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.verdicts import FAST, SLOW, UNDECIDED
from hfbench.tables.metrics import METRICS
from tests.checkouts.conftest import SLOW_SECONDS, Bench
from tests.environment.conftest import git
from tests.pipeline.checkout import processes_in, tiny_point


def words(bench: Bench, good: str, bad: str, *more: str) -> list[str]:
    between = ["--good", bench.commits.get(good, good), "--bad", bench.commits.get(bad, bad)]
    rule = ["--threshold", "0.3", "--rounds", "3", "--max-rounds", "9"]
    return ["bisect", "--checkout", str(bench.repository), *between, "--point", "tiny sdpa", *rule, *more]


def test_the_planted_commit_is_found(bench: Bench) -> None:
    before = bench.state()[:3]
    result = bench.hfbench(*words(bench, "Start", "Notes 4"))
    planted = bench.commits["Rework the mask"][:10]
    assert f"The first slower commit is {planted} (Rework the mask)." in result.stdout
    assert "Its end_to_end_seconds is 2." in result.stdout
    assert bench.state()[:3] == before
    measured = set(re.findall(r"round 1: .* s  (\w+)", result.stderr))
    # Between them, commits that differ in nothing that is measured; their verdicts cost no measurement.
    assert measured == {bench.commits[name][:10] for name in ("Start", "Notes 4", "Tidy up")}


def test_a_bad_commit_that_fails_is_no_slower_one(bench: Bench, tmp_path: Path) -> None:
    bench.git("checkout", "--quiet", "-b", "broken", bench.commits["Notes 1"])
    broken = bench.commit("Break", SLOW_SECONDS, "time = None")  # imports, and fails when it computes
    bench.git("checkout", "--quiet", "main")
    before = bench.state()[:3]
    records = tmp_path / "records"
    result = bench.hfbench(*words(bench, "Start", broken, "--records", str(records)), check=False)
    assert result.returncode == 1
    assert [path.name for path in (records / "records").iterdir()] == [broken]
    assert f"{broken[:10]} (Break) failed: " in result.stderr
    assert "'NoneType' object has no attribute 'sleep'" in result.stderr
    assert "Traceback" not in result.stderr
    assert bench.state()[:3] == before
    # A verdict is kept with what it rests on.
    assert CommitVerdict.load(records / "verdicts" / f"{broken}.json").word == FAILED


def test_an_interruption_leaves_the_checkout_as_it_was(bench: Bench, tmp_path: Path) -> None:
    before = bench.state()[:3]
    running = bench.start(tmp_path / "log", *words(bench, "Start", "Notes 4"))
    running.wait_for(r"round 1: ")
    running.worker()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=30) == 130
    assert bench.state()[:3] == before
    assert not processes_in(bench.pipeline.folder)
    assert "Traceback" not in running.stderr.read_text()


@pytest.mark.parametrize(
    ("between", "more", "expected"),
    [
        (("Rework the mask", "Notes 4"), (), r"To a measurement.* are the same"),
        (("Notes 4", "Start"), (), "is no ancestor"),
        (("Start", "nowhere"), (), "no commit 'nowhere'"),
        (("Start", "Notes 4"), ("--metric", "speed"), "--metric 'speed'"),
        (("Start", "Notes 4"), ("--point", "gpt2"), "--point 'gpt2' fits no point"),
        (("Start", "Notes 4"), ("--rounds", "1"), "at least 2 rounds"),
    ],
)
def test_what_cannot_be_bisected_is_told_before_anything_runs(
    bench: Bench, between: tuple[str, str], more: tuple[str, ...], expected: str
) -> None:
    result = bench.hfbench(*words(bench, *between, *more), check=False)
    assert result.returncode == 1
    assert re.search(expected, result.stderr)
    assert "round 1" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_changed_checkout_is_refused(bench: Bench) -> None:
    extra = bench.repository / "extra.py"
    extra.write_text("x = 1\n")
    try:
        result = bench.hfbench(*words(bench, "Start", "Notes 4"), check=False)
    finally:
        extra.unlink()
    assert result.returncode == 1
    assert "extra.py" in result.stderr
    assert "git stash" in result.stderr


GOOD = Commit("0" * 40, "Start")
BAD = Commit("f" * 40, "End")
WORDS = {
    FAST: CommitVerdict(FAST, "", 4, Interval(1.0, 0.99, 1.01)),
    SLOW: CommitVerdict(SLOW, "", 4, Interval(1.5, 1.4, 1.6)),
    UNDECIDED: CommitVerdict(UNDECIDED, "", 12, Interval(1.1, 0.9, 1.3)),
    FAILED: CommitVerdict(FAILED, "", 1, reason="it failed: no memory"),
}


def trial(good: Commit = GOOD) -> Trial:
    """What needs no checkout, since nothing is measured."""
    rule = Rule(threshold=0.05, rounds=4, max_rounds=12, decisions=4)
    return Trial(cast(Repository, None), Path(), good, tiny_point("sdpa"), "", METRICS[0], rule)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    git(tmp_path, "init", "--quiet")
    return Repository(tmp_path)


def history(repository: Repository, words: Sequence[str]) -> list[Commit]:
    """Make a commit for each word."""
    for number, word in enumerate(words):
        git(repository.folder, "commit", "--quiet", "--allow-empty", "--message", f"Commit [{number}], {word}")
    return [repository.commit(f"HEAD~{len(words) - 1 - number}") for number in range(len(words))]


def bisected(repository: Repository, words: Sequence[str]) -> tuple[Marks, str, list[Commit]]:
    """Bisect a history of commits with these verdicts, the first one good, and return what is said of it."""
    commits = history(repository, words)
    asked = trial(commits[0])
    verdicts = {commit: WORDS[word] for commit, word in zip(commits, words, strict=True)}

    def judge(commit: Commit) -> CommitVerdict:
        return asked.verdicts.setdefault(commit, verdicts[commit])

    judge(commits[-1])
    marks = find_first_slow(repository, commits[0], commits[-1], judge)
    assert "BISECT" not in git(repository.folder, "for-each-ref")
    return marks, answer(marks, asked), commits


@pytest.mark.parametrize(("first", "count"), [(1, 2), *((first, 8) for first in range(1, 8))])
def test_the_first_slower_commit_of_two_and_among_eight(repository: Repository, first: int, count: int) -> None:
    marks, text, commits = bisected(repository, [FAST] * first + [SLOW] * (count - first))
    assert marks.first == commits[first]
    assert text.startswith(f"The first slower commit is {commits[first].short} (Commit [{first}], slow).")
    assert "1.500 times" in text
    assert "1.400 to 1.600, 4 rounds" in text


def test_commits_that_cannot_be_told_apart_are_all_named(repository: Repository) -> None:
    marks, text, commits = bisected(repository, [FAST, FAST, FAILED, UNDECIDED, SLOW, SLOW])
    assert marks.first is None
    assert text.startswith("undecided: the first slower commit is one of\n")
    doubts, remedy, failed = text.partition("\nMore rounds")[0], *text.split("\n")[-2:]
    assert [commit.short in doubts for commit in commits[1:]] == [False, True, True, True, False]
    assert "0.900 to 1.300, 12 rounds" in doubts
    assert remedy.endswith(f"--good {commits[1].short} --bad {commits[4].short} --max-rounds 24.")
    assert failed == f"{commits[2]} was left out: it failed: no memory"


def test_more_rounds_are_no_remedy_for_a_commit_that_fails(repository: Repository) -> None:
    assert "--max-rounds" not in bisected(repository, [FAST, FAST, FAILED, SLOW, SLOW])[1]


def test_a_failed_commit_elsewhere_does_not_hide_the_answer(repository: Repository) -> None:
    marks, text, commits = bisected(repository, [FAST] * 3 + [SLOW, FAILED] + [SLOW] * 4)
    assert marks.first == commits[3]
    assert text.endswith(f"\n{commits[4]} was left out: it failed: no memory")


def test_unless_the_bad_commit_is_slower_nothing_is_bisected() -> None:
    require_slower(WORDS[SLOW], trial(), BAD)
    for word, expected in (
        (FAST, r"nothing to bisect: ffffffffff \(End\) is not slower than 0000000000 \(Start\) by more than 5\.0%"),
        (UNDECIDED, r"undecided whether .* 0\.900 to 1\.300"),
        (FAILED, "no memory"),
    ):
        with pytest.raises(UserError, match=expected):
            require_slower(WORDS[word], trial(), BAD)


def test_an_error_ends_the_bisection_and_is_no_verdict(repository: Repository) -> None:
    commits = history(repository, [FAST] * 4 + [SLOW])

    def judge(_: Commit) -> CommitVerdict:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        find_first_slow(repository, commits[0], commits[-1], judge)
    assert "BISECT" not in git(repository.folder, "for-each-ref")
    with repository.borrowed():  # which no checkout is that is being bisected
        pass
    with pytest.raises(UserError, match="`git bisect` failed"):
        find_first_slow(repository, commits[-1], commits[0], judge)


def test_a_changed_environment_is_told_by_what_changed() -> None:
    require_same_environment(GOOD, b"{}", b"{}", "Bisect again.")
    with pytest.raises(UserError, match=r"changed while .* \(memory\.swap_gib 0 → 8\): .* Bisect again\."):
        require_same_environment(GOOD, b'{"memory": {"swap_gib": 0}}', b'{"memory": {"swap_gib": 8}}', "Bisect again.")


RULE = Rule(threshold=0.05, rounds=4, max_rounds=16, decisions=4)


def test_more_of_a_throughput_is_faster() -> None:
    good = [1.0, 1.3, 0.8]  # the machine drifts, and both sides with it
    assert decide(good, [0.95 * x for x in good], higher_is_better=True, rule=RULE)[0] == SLOW


@pytest.mark.parametrize(("commits", "decisions"), [(1, 1), (2, 2), (3, 3), (4, 3), (8, 4), (9, 5), (1000, 11)])
def test_decisions_of_a_bisection(commits: int, decisions: int) -> None:
    assert decisions_among(commits) == decisions


def judged(effect: float, seed: int) -> Counter[str]:
    """The verdicts on 200 commits, looked at after every round; noise of 2% on each side, and drift that both share."""
    generator = np.random.default_rng(seed)
    words: Counter[str] = Counter()
    for _ in range(200):
        drift = np.exp(generator.normal(0, 0.2, RULE.max_rounds))
        good, candidate = drift * np.exp(generator.normal(0, 0.02, (2, RULE.max_rounds)))
        word = UNDECIDED
        for rounds in range(RULE.rounds, RULE.max_rounds + 1):
            word, _ = decide(list(good[:rounds]), list(effect * candidate[:rounds]), higher_is_better=False, rule=RULE)
            if word != UNDECIDED:
                break
        words[word] += 1
    return words


@pytest.mark.parametrize(("effect", "wrong", "right"), [(1.0, SLOW, FAST), (1.15, FAST, SLOW)])
def test_verdicts_on_synthetic_rounds(effect: float, wrong: str, right: str) -> None:
    words = judged(effect, seed=1)
    assert words[wrong] <= 200 * 0.05 / RULE.decisions
    assert words[right] >= 180


def test_at_the_threshold_verdicts_are_rare() -> None:
    """The hardest case: the truth is the threshold itself, where each verdict would be a matter of luck."""
    words = judged(1 + RULE.threshold, seed=2)
    # Either word counts as wrong here, each at 5% / 4 decisions: 5 of 200, and as much again for chance.
    assert words[SLOW] + words[FAST] <= 10
