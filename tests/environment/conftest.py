"""Trees of files as Linux shows them in /proc and /sys, and packages as pip installs them, in temporary folders."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NAME, MODULE = "hfb-sample", "hfb_sample"  # a package that is installed nowhere else


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, as a user without any configuration."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=variables).stdout.strip()


def commit_all(repository: Path) -> str:
    """Commit everything in a repository, which is made where there is none, and return the commit."""
    if not (repository / ".git").exists():
        git(repository, "init", "--quiet")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "Change")
    return git(repository, "rev-parse", "HEAD")


def write_metadata(
    site: Path,
    name: str = NAME,
    *,
    version: str = "1.0",
    direct_url: dict[str, Any] | None = None,
    record: str | None = None,
) -> Path:
    """Write the `.dist-info` folder that an installer leaves for a package, and return it."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n")
    if direct_url is not None:
        (folder / "direct_url.json").write_text(json.dumps(direct_url))
    if record is not None:
        (folder / "RECORD").write_text(record)
    return folder


def write_project(folder: Path) -> Path:
    """A checkout of the sample package, not yet in git; returns the package's folder."""
    package = folder / "src" / MODULE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("scale = 1\n")
    (folder / ".gitignore").write_text("*.log\n")
    return package


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for site-packages."""
    folder = tmp_path / "venv" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def install(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Return what makes a project in a folder and installs it as `pip install -e` does; it returns the package.

    The .pth file is stood in for by sys.path.
    """

    def editable(folder: Path) -> Path:
        package = write_project(folder)
        write_metadata(site, direct_url={"url": folder.as_uri(), "dir_info": {"editable": True}})
        monkeypatch.syspath_prepend(str(package.parent))
        return package

    return editable


@pytest.fixture
def project(tmp_path: Path, install: Callable[[Path], Path]) -> Path:
    """The folder of a project that is installed so."""
    install(tmp_path / "project")
    return tmp_path / "project"
