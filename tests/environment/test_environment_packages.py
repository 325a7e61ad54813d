"""Packages by how they were installed, what hides them, and what they require."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfbench.environment.packages import describe_packages
from tests.environment.conftest import MODULE, NAME, commit_all, describe_sample, write_metadata, write_project

ROOT = Path(__file__).resolve().parents[2]


def test_folder_on_the_path_hides_what_is_installed(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / MODULE).mkdir()
    (site / MODULE / "__init__.py").write_text("")
    write_metadata(site, NAME, record=f"{MODULE}/__init__.py,sha256=abc,0\n")
    commit_all(tmp_path)  # the virtual environment itself lies in a git checkout
    assert describe_sample() == {"version": "1.0"}
    package = write_project(tmp_path / "checkout")
    commit = commit_all(tmp_path / "checkout")
    monkeypatch.syspath_prepend(str(package.parent))
    assert describe_sample() == {"version": "1.0", "commit": commit, "uncommitted": None}
    (package / "__init__.py").write_text("scale = 2\n")
    assert describe_sample()["uncommitted"] is not None


def test_package_of_the_system_without_a_list_of_its_files_is_no_checkout(tmp_path: Path) -> None:
    """As Linux distributions install packages; the user's own folder stands for theirs."""
    variables = {"PATH": os.environ["PATH"], "PYTHONUSERBASE": str(tmp_path)}
    program = "import site; print(site.getusersitepackages())"
    command = [sys.executable, "-c", program]
    folder = Path(subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.strip())
    (folder / MODULE).mkdir(parents=True)
    (folder / MODULE / "__init__.py").write_text("")
    write_metadata(folder, NAME)
    program = f"from hfbench.environment.packages import describe_packages; print(describe_packages([{NAME!r}]))"
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(folder)])
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, env=variables, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert result.stdout.strip() == str({NAME: {"version": "1.0"}})


def test_folder_on_the_path_hides_an_editable_install(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_all(project)
    package = write_project(tmp_path / "other")
    (package / "__init__.py").write_text("scale = 5\n")
    commit = commit_all(tmp_path / "other")
    monkeypatch.syspath_prepend(str(package.parent))
    assert describe_sample()["commit"] == commit


def test_install_from_a_repository_is_told_by_the_commit_that_pip_recorded(site: Path) -> None:
    vcs = {"vcs": "git", "requested_revision": "main", "commit_id": "0123456789abcdef"}
    write_metadata(site, NAME, direct_url={"url": "https://example.org/sample.git", "vcs_info": vcs})
    assert describe_sample() == {"version": "1.0", "commit": "0123456789abcdef", "uncommitted": None}


def test_copy_of_a_local_folder_is_told_by_what_was_installed(site: Path, tmp_path: Path) -> None:
    direct_url = {"url": tmp_path.as_uri(), "dir_info": {}}
    own = f"{MODULE}-1.0.dist-info/direct_url.json,sha256=PLACE,9\n../../../bin/tool,sha256=SHEBANG,9\n"
    seen = []
    for content, records in (("a", own), ("b", own), ("b", own.replace("PLACE", "X").replace("SHEBANG", "Y"))):
        write_metadata(site, NAME, direct_url=direct_url, record=f"{MODULE}/__init__.py,sha256={content},10\n{records}")
        seen.append(describe_sample())
    assert seen[0]["commit"] is None
    assert seen[0]["uncommitted"] not in (None, seen[1]["uncommitted"])
    assert seen[1] == seen[2], "where it was installed from and to makes no difference"


def test_requirements_are_followed_as_they_apply_here(site: Path) -> None:
    requires = ("hfb-library[gpu]>=1", 'hfb-old; python_version < "3"', 'hfb-docs; extra == "docs"', "hfb-absent")
    write_metadata(site, NAME, requires=requires)
    gpu = ('hfb.Driver; extra == "gpu"', 'hfb-other; extra == "tpu"', f"{NAME}>=1")
    write_metadata(site, "hfb-library", requires=gpu)
    for name in ("hfb-old", "hfb-docs", "hfb-driver", "hfb-other"):
        write_metadata(site, name)
    assert list(describe_packages([NAME])) == ["hfb-driver", "hfb-library", NAME]
