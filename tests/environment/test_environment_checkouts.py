"""Editable installs of real git checkouts in temporary folders."""

import shutil
from pathlib import Path

import pytest

from tests.environment.conftest import MODULE, NAME, commit_all, describe_sample, git, write_metadata, write_project


def test_editable_checkout_is_told_by_its_commit(project: Path) -> None:
    first = commit_all(project)
    assert describe_sample() == {"version": "1.0", "commit": first, "uncommitted": None}
    (project / "src" / MODULE / "__init__.py").write_text("scale = 2\n")
    second = commit_all(project)
    assert second != first
    assert describe_sample() == {"version": "1.0", "commit": second, "uncommitted": None}


def test_uncommitted_edit_counts_by_its_content(project: Path) -> None:
    commit = commit_all(project)
    source = project / "src" / MODULE / "__init__.py"
    seen = []
    for content in ("scale = 2\n", "scale = 3\n"):
        source.write_text(content)
        seen.append(describe_sample())
    git(project, "add", "--all")
    assert describe_sample() == seen[1], "staging changes nothing that runs"
    assert [entry["commit"] for entry in seen] == [commit, commit]
    assert seen[0]["uncommitted"] != seen[1]["uncommitted"]
    source.unlink()
    assert describe_sample()["uncommitted"] not in (None, *(entry["uncommitted"] for entry in seen))
    source.write_text("scale = 1\n")
    git(project, "reset", "--quiet")
    assert describe_sample() == {"version": "1.0", "commit": commit, "uncommitted": None}


def test_untracked_file_counts_and_an_ignored_one_does_not(project: Path) -> None:
    commit_all(project)
    clean = describe_sample()
    (project / "src" / MODULE / "run.log").write_text("noise")
    cache = project / "src" / MODULE / "__pycache__"
    cache.mkdir()
    (cache / "__init__.cpython-311.pyc").write_bytes(b"not ignored by this repository, and made by Python itself")
    assert describe_sample() == clean
    (project / "src" / MODULE / "extra.py").write_text("x = 1\n")
    with_file = describe_sample()
    assert with_file["uncommitted"] is not None
    (project / "src" / MODULE / "extra.py").write_text("x = 2\n")
    assert describe_sample()["uncommitted"] not in (None, with_file["uncommitted"])


def test_change_in_a_submodule_counts(project: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "kernel.cu").write_text("v1\n")
    commit_all(library)
    git(project, "init", "--quiet")
    git(project, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "csrc")
    git(project, "config", "diff.ignoreSubmodules", "all")
    commit_all(project)
    assert describe_sample()["uncommitted"] is None
    seen = set()
    for content in ("v2\n", "v3\n"):
        (project / "csrc" / "kernel.cu").write_text(content)
        seen.add(describe_sample()["uncommitted"])
    assert None not in seen
    assert len(seen) == 2


def test_equal_checkouts_in_different_places_are_equal(project: Path, site: Path, tmp_path: Path) -> None:
    commit_all(project)
    (project / "src" / MODULE / "__init__.py").write_text("scale = 2\n")
    (project / "src" / MODULE / "extra.py").write_text("x = 1\n")
    original = describe_sample()
    elsewhere = tmp_path / "elsewhere" / "other name"
    shutil.copytree(project, elsewhere)
    shutil.rmtree(project)
    write_metadata(site, NAME, direct_url={"url": elsewhere.as_uri(), "dir_info": {"editable": True}})
    assert describe_sample() == original


def test_git_configuration_and_an_outer_git_dir_change_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_all(project)
    (project / "src" / MODULE / "ä file.py").write_text("x = 1\n")
    before = describe_sample()
    configuration = tmp_path / "gitconfig"
    configuration.write_text("[status]\nshowUntrackedFiles = no\nrelativePaths = false\n[core]\nquotePath = false\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(configuration, tmp_path / ".gitconfig")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert before["uncommitted"] is not None
    assert describe_sample() == before


def test_commit_elsewhere_in_the_repository_changes_nothing(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    write_project(repository / "third_party")
    write_metadata(
        site, NAME, direct_url={"url": (repository / "third_party").as_uri(), "dir_info": {"editable": True}}
    )
    monkeypatch.syspath_prepend(str(repository / "third_party" / "src"))
    commit = commit_all(repository)
    (repository / "notes.txt").write_text("unrelated")
    assert commit_all(repository) != commit
    (repository / "draft.txt").write_text("unrelated, and untracked")
    assert describe_sample() == {"version": "1.0", "commit": commit, "uncommitted": None}


def test_folder_that_an_outer_repository_ignores_is_no_checkout_of_it(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = tmp_path / "outer"
    package = write_project(outer / "vendor")
    (outer / ".gitignore").write_text("vendor/\n")
    commit_all(outer)
    write_metadata(site, NAME, direct_url={"url": (outer / "vendor").as_uri(), "dir_info": {"editable": True}})
    monkeypatch.syspath_prepend(str(package.parent))
    before = describe_sample()
    assert before["commit"] is None
    assert before["uncommitted"] is not None
    (package / "__init__.py").write_text("scale = 2\n")
    assert describe_sample()["uncommitted"] != before["uncommitted"]


def test_folder_outside_git_is_told_by_its_python_files(project: Path) -> None:
    before = describe_sample()
    assert before["commit"] is None
    (project / "notes.txt").write_text("no code")
    assert describe_sample() == before
    (project / "src" / MODULE / "extra.py").write_text("x = 1\n")
    assert describe_sample()["uncommitted"] not in (None, before["uncommitted"])
