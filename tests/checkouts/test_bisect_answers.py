"""What is said of a bisection, from the log of a real one on a repository whose commits hold their own verdict."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from hfbench.checkouts.bisect import Marks, _run_git_bisect, answer, failures, unfit
from hfbench.checkouts.plan import EXIT_STATUSES, FAILED, CommitVerdict, Plan, Rule
from hfbench.checkouts.workspace import what_changed
from hfbench.core.errors import UserError
from hfbench.core.point import Configuration
from hfbench.git import Commit, Repository
from hfbench.statistics.bootstrap import Interval
from hfbench.statistics.verdicts import FAST, SLOW, UNDECIDED
from tests.environment.conftest import git

POINT = Configuration(
    round=1, model="m", attn_implementation="sdpa", batch_size=1, sequence_length=16, max_new_tokens=4
)
GOOD = Commit("0" * 40, "Start")
BAD = Commit("f" * 40, "End")
RATIO = Interval(1.5, 1.4, 1.6)
WORDS = {
    FAST: CommitVerdict(FAST, "", 4, Interval(1.0, 0.99, 1.01)),
    SLOW: CommitVerdict(SLOW, "", 4, RATIO),
    UNDECIDED: CommitVerdict(UNDECIDED, "", 12, Interval(1.1, 0.9, 1.3)),
    FAILED: CommitVerdict(FAILED, "", 1, reason="it failed: no memory"),
}


def plan(folder: Path, good: Commit = GOOD, checkout: Path = Path()) -> Plan:
    rule = Rule(threshold=0.05, rounds=4, max_rounds=12, decisions=4)
    return Plan(
        checkout=str(checkout),
        folder=str(folder),
        good=good,
        point=POINT,
        command="",
        metric="end_to_end_seconds",
        higher_is_better=False,
        unit="s",
        rule=rule,
        owner=os.getpid(),
    )


def bisected(folder: Path, words: Sequence[str]) -> tuple[Marks, dict[str, CommitVerdict], Plan, list[Commit]]:
    """Bisect a history of commits with these verdicts, the first one good; as `git bisect` in `hfbench bisect` does."""
    repository = folder / "repository"
    repository.mkdir()
    git(repository, "init", "--quiet")
    for number, word in enumerate(words):
        (repository / "word").write_text(f"{word} {number}\n")
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "--message", f"Commit [{number}], {word}")
    commits = [Repository(repository).commit(f"HEAD~{len(words) - 1 - number}") for number in range(len(words))]
    verdicts = {commit.sha: WORDS[word] for commit, word in zip(commits, words, strict=True)}
    asked = "".join(f"{word}) exit {status};; " for word, status in EXIT_STATUSES.items())
    step = f"set -- $(git show BISECT_HEAD:word); case $1 in {asked}esac"
    git(repository, "bisect", "start", "--no-checkout", "--term-old=fast", "--term-new=slow", "HEAD", commits[0].sha)
    subprocess.run(["git", "bisect", "run", "sh", "-c", step], cwd=repository, capture_output=True, check=False)
    marks = Marks.read(git(repository, "bisect", "log"))
    return marks, verdicts, plan(folder, commits[0], repository), commits


@pytest.mark.parametrize("first", range(1, 8))
def test_the_first_slower_commit_among_eight(tmp_path: Path, first: int) -> None:
    marks, verdicts, asked, commits = bisected(tmp_path, [FAST] * first + [SLOW] * (8 - first))
    assert marks.first == commits[first]
    text = answer(marks, verdicts, asked)
    assert text.startswith(f"The first slower commit is {commits[first].short} (Commit [{first}], slow).")
    assert "1.500 times" in text
    assert "1.400 to 1.600, 4 rounds" in text


def test_commits_that_cannot_be_told_apart_are_all_named(tmp_path: Path) -> None:
    marks, verdicts, asked, commits = bisected(tmp_path, [FAST, FAST, FAILED, UNDECIDED, SLOW, SLOW])
    assert marks.first is None
    text, _, remedy = answer(marks, verdicts, asked).rpartition("\n")
    assert text.startswith("undecided: the first slower commit is one of\n")
    assert [commit.short in text for commit in commits[1:]] == [False, True, True, True, False]
    assert "it failed: no memory" in text
    assert "0.900 to 1.300, 12 rounds" in text
    assert remedy.endswith(f"--good {commits[1].short} --bad {commits[4].short} --max-rounds 24.")


def test_more_rounds_are_no_remedy_for_a_commit_that_fails(tmp_path: Path) -> None:
    marks, verdicts, asked, _ = bisected(tmp_path, [FAST, FAST, FAILED, SLOW, SLOW])
    assert "--max-rounds" not in answer(marks, verdicts, asked)


def test_a_failed_commit_elsewhere_does_not_hide_the_answer(tmp_path: Path) -> None:
    marks, verdicts, asked, commits = bisected(tmp_path, [FAST, FAST, FAST, SLOW, FAILED, FAILED, SLOW])
    assert marks.first == commits[3]
    named = {commit: verdicts[commit.sha] for commit in commits}
    assert [commits[4].short in line or commits[5].short in line for line in failures(named)] == [True, True]
    assert answer(marks, verdicts, asked)


def test_unless_the_bad_commit_is_slower_nothing_is_bisected(tmp_path: Path) -> None:
    asked = plan(tmp_path)
    assert unfit(WORDS[SLOW], asked, BAD) is None
    for word, expected in (
        (FAST, r"nothing to bisect: ffffffffff \(End\) is not slower than 0000000000 \(Start\) by more than 5\.0%"),
        (UNDECIDED, r"undecided whether .* 0\.900 to 1\.300"),
        (FAILED, "no memory"),
    ):
        with pytest.raises(UserError, match=expected):
            raise unfit(WORDS[word], asked, BAD) or AssertionError


def test_a_step_that_cannot_start_gives_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python exits with 1 where it cannot import a module, and to git that means a slow commit."""
    _, _, asked, commits = bisected(tmp_path, [FAST] * 4 + [SLOW])
    repository = Repository(Path(asked.checkout))
    repository.git("bisect", "reset")
    monkeypatch.chdir(tmp_path)
    WORDS[SLOW].save(asked.verdict(commits[-1].sha))
    command = ["false"]
    monkeypatch.setattr("hfbench.checkouts.bisect._step_command", lambda _: command)
    with pytest.raises(RuntimeError, match="which no step found"):
        _run_git_bisect(repository, asked, commits[-1])
    assert "BISECT" not in git(repository.folder, "for-each-ref")


def test_a_changed_environment_is_told_by_what_changed() -> None:
    before, after = ({"memory": {"swap_gib": size}, "packages": {}} for size in (0, 8))
    assert what_changed(json.dumps(before).encode(), json.dumps(after).encode()) == "memory.swap_gib 0 → 8"
