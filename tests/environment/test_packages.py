"""Packages by how they were installed and what hides them, checkouts that are real ones, and the compiler."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfbench.environment.packages import describe_compiler, describe_packages
from tests.conftest import ROOT
from tests.environment.conftest import MODULE, NAME, commit_all, git, write_metadata, write_project

Install = Callable[[Path], Path]


def describe_sample() -> dict[str, Any]:
    return describe_packages([NAME])[NAME]


def test_editable_checkout_is_told_by_its_commit_and_by_the_content_of_what_is_not_committed(project: Path) -> None:
    source = project / "src" / MODULE / "__init__.py"
    first = commit_all(project)
    assert describe_sample() == {"version": "1.0", "commit": first, "uncommitted": None}
    source.write_text("scale = 4\n")
    commit = commit_all(project)
    assert commit != first
    assert describe_sample() == {"version": "1.0", "commit": commit, "uncommitted": None}
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
    source.write_text("scale = 4\n")
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
    write_metadata(site, direct_url={"url": elsewhere.as_uri(), "dir_info": {"editable": True}})
    assert describe_sample() == original


def test_git_configuration_and_an_outer_git_dir_change_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_all(project)
    (project / "src" / MODULE / "ä file.py").write_text("x = 1\n")
    before = describe_sample()
    configuration = "[status]\nshowUntrackedFiles = no\nrelativePaths = false\n[core]\nquotePath = false\n"
    (tmp_path / ".gitconfig").write_text(configuration)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert before["uncommitted"] is not None
    assert describe_sample() == before


def test_commit_elsewhere_in_the_repository_changes_nothing(tmp_path: Path, install: Install) -> None:
    repository = tmp_path / "repository"
    install(repository / "third_party")
    commit = commit_all(repository)
    (repository / "notes.txt").write_text("unrelated")
    assert commit_all(repository) != commit
    (repository / "draft.txt").write_text("unrelated, and untracked")
    assert describe_sample() == {"version": "1.0", "commit": commit, "uncommitted": None}


def test_folder_that_an_outer_repository_ignores_is_no_checkout_of_it(tmp_path: Path, install: Install) -> None:
    package = install(tmp_path / "vendor")
    (tmp_path / ".gitignore").write_text("vendor/\n")
    commit_all(tmp_path)
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


def test_folder_on_the_path_hides_what_is_installed(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site / MODULE).mkdir()
    (site / MODULE / "__init__.py").write_text("")
    write_metadata(site, record=f"{MODULE}/__init__.py,sha256=abc,0\n")
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

    def answer(program: str) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=variables, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    folder = Path(answer("import site; print(site.getusersitepackages())").strip())
    (folder / MODULE).mkdir(parents=True)
    (folder / MODULE / "__init__.py").write_text("")
    write_metadata(folder)
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(folder)])
    program = f"from hfbench.environment.packages import describe_packages; print(describe_packages([{NAME!r}]))"
    assert answer(program).strip() == str({NAME: {"version": "1.0"}})


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
    write_metadata(site, direct_url={"url": "https://example.org/sample.git", "vcs_info": vcs})
    assert describe_sample() == {"version": "1.0", "commit": "0123456789abcdef", "uncommitted": None}


def test_copy_of_a_local_folder_is_told_by_what_was_installed(site: Path, tmp_path: Path) -> None:
    direct_url = {"url": tmp_path.as_uri(), "dir_info": {}}
    own = f"{MODULE}-1.0.dist-info/direct_url.json,sha256=PLACE,9\n../../../bin/tool,sha256=SHEBANG,9\n"
    seen = []
    for content, records in (("a", own), ("b", own), ("b", own.replace("PLACE", "X").replace("SHEBANG", "Y"))):
        write_metadata(site, direct_url=direct_url, record=f"{MODULE}/__init__.py,sha256={content},10\n{records}")
        seen.append(describe_sample())
    assert seen[0]["commit"] is None
    assert seen[0]["uncommitted"] not in (None, seen[1]["uncommitted"])
    assert seen[1] == seen[2], "where it was installed from and to makes no difference"


@pytest.mark.parametrize(
    ("name", "is_measured"),
    [
        *(
            (name, True)
            for name in ("numpy", "tokenizers", "triton", "pytorch-triton-rocm", "torch_xla", "torch-tensorrt")
        ),
        *((name, True) for name in ("nvidia_cublas", "nvidia-cudnn-cu13", "nvidia-cutlass-dsl", "intel-openmp", "mkl")),
        *((name, True) for name in ("flash-attn-4", "quack-kernels", "flash_linear_attention", "bitsandbytes")),
        *((name, False) for name in ("certifi", "rich", "sigstore", "huggingface-hub", "nvidia-ml-py", "torchvision")),
    ],
)
def test_a_release_of_what_can_change_a_number_changes_the_description_and_of_nothing_else(
    site: Path, name: str, is_measured: bool
) -> None:
    """The folder hides what is installed by this name: the path of the test comes first."""
    seen = []
    for version in ("1.0", "2.0"):
        folder = write_metadata(site, name, version=version)
        seen.append(describe_packages())
        shutil.rmtree(folder)
    assert (seen[0] != seen[1]) is is_measured


def test_a_package_that_adds_itself_to_torch_is_described(site: Path) -> None:
    folder = write_metadata(site)
    assert NAME not in describe_packages()
    (folder / "entry_points.txt").write_text(f"[torch.backends]\ndevice = {MODULE}:load\n")
    assert describe_packages()[NAME]["version"] == "1.0"


@pytest.mark.parametrize(
    ("lines", "build"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\nxpu: Optional[str] = None", {}),
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None", {"cuda": "13.0"}),
        ("cuda = '12.9'\nhip = None", {"cuda": "12.9"}),  # of a vendor's container
        (
            "cuda: Optional[str] = None\nhip: Optional[str] = '7.2.53150'\nrocm: Optional[str] = '7.2'",
            {"hip": "7.2.53150"},
        ),
    ],
)
def test_what_torch_is_built_for_is_in_its_own_file(site: Path, lines: str, build: dict[str, str]) -> None:
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").touch()
    (site / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\n{lines}\n")
    program = "from hfbench.environment.packages import torch_build; print(torch_build())"  # torch is loaded in here
    variables = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    found = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(build)


def test_compiler_is_the_one_that_cxx_names(tmp_path: Path) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho 'c++ (Sample) 15.1.0'\necho 'Copyright'\n")
    compiler.chmod(0o755)
    assert describe_compiler({"CXX": str(compiler)}) == "c++ (Sample) 15.1.0"
    assert describe_compiler({"CXX": f"ccache {compiler}"}) is None, "torch takes CXX for one command, too"
    compiler.write_text("#!/bin/sh\necho broken\nexit 1\n")
    assert describe_compiler({"CXX": str(compiler)}) is None
    assert describe_compiler({"CXX": str(tmp_path / "absent")}) is None


def test_compiler_choice_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    monkeypatch.delenv("CXX", raising=False)
    try:
        chosen = get_cpp_compiler()
    except InvalidCxxCompiler:
        chosen = "there is none"
    assert describe_compiler({}) == describe_compiler({"CXX": chosen})
