"""A checkout and a workspace that are lent, and come back as they were; the names of points."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hfbench.checkouts.processes import stage_variables
from hfbench.checkouts.workspace import require_measured
from hfbench.core.errors import UserError
from hfbench.git import Repository, uninterrupted
from tests.environment.conftest import commit_all, git


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "package"
    folder.mkdir()
    for content in ("one", "two"):
        (folder / "code.py").write_text(f"{content} = 1\n")
        commit_all(folder)
    git(folder, "branch", "--quiet", "--move", "work")
    return Repository(folder)


@pytest.mark.parametrize("start", ["work", "HEAD~1"])
def test_a_checkout_comes_back_after_an_error(repository: Repository, start: str) -> None:
    git(repository.folder, "checkout", "--quiet", start)
    before = (repository.folder / ".git" / "HEAD").read_text()
    other = repository.commit("work~1" if start == "work" else "work")

    def use() -> None:
        with repository.borrowed():
            repository.switch(other)
            assert git(repository.folder, "rev-parse", "HEAD") == other.sha
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert (repository.folder / ".git" / "HEAD").read_text() == before
    assert git(repository.folder, "status", "--porcelain") == ""


def test_what_is_in_no_commit_is_refused_and_named(repository: Repository) -> None:
    (repository.folder / "code.py").write_text("three = 1\n")
    (repository.folder / "new file.py").write_text("x = 1\n")
    with pytest.raises(UserError, match=r"(?s)M code\.py.*new file\.py.*git stash"), repository.borrowed():
        raise AssertionError
    assert (repository.folder / "code.py").read_text() == "three = 1\n"


def test_a_checkout_that_is_being_bisected_is_refused(repository: Repository) -> None:
    git(repository.folder, "bisect", "start")
    with pytest.raises(UserError, match="git bisect reset"), repository.borrowed():
        raise AssertionError


def test_what_is_no_checkout_or_no_commit(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no git checkout"):
        Repository(tmp_path / "nowhere")
    for name in ("nowhere", "-h", "--all"):
        with pytest.raises(UserError, match="no commit"):
            repository.commit(name)


def test_an_interruption_waits_until_all_is_put_back() -> None:
    done = []

    def put_back() -> None:
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            subprocess.run(["sh", "-c", "kill -INT $$; true"], check=True)  # as in a terminal, where all get it
            done.append("put back")

    with pytest.raises(KeyboardInterrupt):
        put_back()
    assert done == ["put back"]


def test_variables_of_git_do_not_reach_what_is_measured() -> None:
    variables = stage_variables({"GIT_DIR": "elsewhere", "PATH": "somewhere", "OMP_NUM_THREADS": "1"})
    assert "GIT_DIR" not in variables
    assert variables["OMP_NUM_THREADS"] == "1"
    assert variables["PATH"].endswith(f"{os.pathsep}somewhere")


def described(*commits: str) -> dict[str, dict[str, Any]]:
    torch = {"version": "2.0"}
    return {
        f"side {number}": {"packages": {"torch": torch, "transformers": {"version": "5.0", "commit": commit}}}
        for number, commit in enumerate(commits)
    }


def test_sides_must_differ_in_what_is_measured() -> None:
    assert require_measured(described("a", "b"), "Install it.") == ["transformers"]
    with pytest.raises(UserError, match=r"side 0 and side 1 are the same.*Install it\.$"):
        require_measured(described("a", "a"), "Install it.")
