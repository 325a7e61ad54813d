"""The Python packages that can change a measurement: versions and, for source checkouts, what is in them."""

import csv
import hashlib
import importlib.util
import json
import os
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from hfbench.git import run_git

# Of a larger file only the size counts: it is data or weights, and would be read at every `dvc repro`.
_LARGE_BYTES = 64 * 2**20
# All that a user's git configuration could change is set.
_STATUS_OPTIONS = ("--porcelain=v1", "-z", "--untracked-files=all", "--ignore-submodules=none", "--no-renames")


def checkout_state(path: Path) -> dict[str, str | None]:
    """Return the `commit` and `uncommitted` of a folder or a file.

    `commit` is the last commit that changed it: commits elsewhere in a repository do not count. `uncommitted` is a
    sha256 over the content of each file that differs from the commit or is neither committed nor ignored, or None
    where there is no such file. Outside git, `commit` is None and `uncommitted` is over all Python files.
    """
    folder, name = (path, ".") if path.is_dir() else (path.parent, path.name)
    commit = _git(folder, "rev-list", "-1", "HEAD", "--", name)
    top = _git(folder, "rev-parse", "--show-toplevel")
    changes = _git(folder, "status", *_STATUS_OPTIONS, "--", name)
    if not commit or top is None or changes is None:  # no git, no repository, or one that does not hold this folder
        base = path if path.is_dir() else path.parent
        return {"commit": None, "uncommitted": _digest(base, _python_files(path))}
    root = Path(top.rstrip("\n"))
    changed = [root / entry[3:] for entry in changes.split("\0") if entry]
    return {"commit": commit.strip(), "uncommitted": _digest(root, changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output, or None where git is missing or fails."""
    try:
        result = run_git(folder, "--no-optional-locks", "--literal-pathspecs", *arguments)
    except OSError:
        return None
    return result.stdout if result.returncode == 0 else None


def _python_files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for folder, folders, files in os.walk(path):
        # Virtual environments and build folders within a project are not its code.
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("build", "site-packages")]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _digest(base: Path, paths: Iterable[Path]) -> str | None:
    """Return a sha256 over names (relative to `base`) and contents, in the order of names; None without any file."""
    lines = sorted(
        f"{path.relative_to(base).as_posix()} {_content(path)}\n"
        for path in paths
        # Python makes these by itself, even in a repository that does not ignore them.
        if path.suffix != ".pyc" and "__pycache__" not in path.parts
    )
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest() if lines else None


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link {path.readlink()}"
    if path.is_dir():  # a submodule, or a repository within this one
        return str(checkout_state(path))
    if not path.is_file():
        return "deleted"
    if path.stat().st_size > _LARGE_BYTES:
        return f"{path.stat().st_size} bytes"
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Where the name that is imported differs from the name that is installed.
_IMPORT_NAMES = {"flash-attn-3": "flash_attn_interface", "flash-linear-attention": "fla", "pyyaml": "yaml"}


def source_state(name: str, distribution: metadata.Distribution) -> dict[str, Any]:
    """Return `commit` and `uncommitted` where a version alone does not say which code runs, else an empty dictionary.

    `commit` is the last git commit that changed the code, or None; `uncommitted` is a sha256 over what differs from it
    (over all of the code where there is no commit), or None where nothing does. The origin of an installed package is
    in its `direct_url.json` (PEP 610); nothing is imported to find out which folder an import would take.
    """
    direct = _direct_url(distribution)
    project = _local_folder(direct) if direct.get("dir_info", {}).get("editable") else None
    imported = _imported_path(_IMPORT_NAMES.get(name, name.replace("-", "_")))
    if imported is not None and not _is_installed(imported, distribution):
        # The whole project where the code is in it: its compiled parts have their sources beside the package.
        return checkout_state(project if project and imported.is_relative_to(project) else imported)
    if project is not None:
        return checkout_state(project)
    if "vcs_info" in direct:
        return {"commit": direct["vcs_info"].get("commit_id"), "uncommitted": None}
    return {"commit": None, "uncommitted": _record_digest(distribution)} if direct else {}


def _direct_url(distribution: metadata.Distribution) -> dict[str, Any]:
    text = distribution.read_text("direct_url.json")
    content = json.loads(text) if text else {}
    return content if isinstance(content, dict) else {}


def _local_folder(direct: dict[str, Any]) -> Path | None:
    url = urlsplit(direct.get("url", ""))
    folder = Path(url2pathname(url.path)) if url.scheme == "file" else None
    return folder.resolve() if folder and folder.is_dir() else None


def _imported_path(module: str) -> Path | None:
    """Return the folder of a package or the file of a module that `import` would take, or None where it is neither."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.has_location or not spec.origin:
        return None
    path = Path(spec.origin).resolve()
    path = path.parent if spec.submodule_search_locations else path
    return path if path.exists() else None


def _is_installed(path: Path, distribution: metadata.Distribution) -> bool:
    """Whether the code lies where an installer put it; a virtual environment often lies within a git checkout."""
    if path.parent in _installation_folders():
        return True
    beside_metadata = path.parent == Path(str(distribution.locate_file(""))).resolve()
    return beside_metadata and distribution.read_text("RECORD") is not None


@cache
def _installation_folders() -> frozenset[Path]:
    paths = [sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib", "platstdlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    return frozenset(Path(path).resolve() for path in paths)


def _record_digest(distribution: metadata.Distribution) -> str | None:
    """Return a sha256 over the hashes of the installed files, or None without a list of them.

    Left out is what the installation itself makes: scripts, which hold the path of Python, and its own records.
    """
    rows = csv.reader((distribution.read_text("RECORD") or "").splitlines())
    code = sorted((row[0], row[1]) for row in rows if len(row) > 1 and row[1] and not row[0].startswith(".."))
    lines = [f"{path},{digest}\n" for path, digest in code if ".dist-info/" not in path]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None


def describe_compiler(variables: Mapping[str, str]) -> str | None:
    """Return the compiler's own version line, or None where there is none.

    The choice is that of `torch._inductor.config.cpp.cxx` (torch 2.13): CXX, else clang++ on macOS and g++ elsewhere;
    CXX is one command without arguments, and no other compiler is tried.
    """
    command = variables.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    try:
        output = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(output.splitlines()), None)


# What loads and runs a model, and what torch or transformers pick up by themselves where it is installed.
ROOTS = tuple(
    """
    torch transformers kernels accelerate safetensors tokenizers numpy triton
    flash-attn flash-attn-3 flash-attn-4 xformers torchao bitsandbytes liger-kernel optimum optimum-quanto deepspeed
    mamba-ssm causal-conv1d flash-linear-attention einops intel-extension-for-pytorch
    autoawq compressed-tensors gptqmodel hqq
    """.split()  # noqa: SIM905 (quotes would hide the names)
)


def describe_packages(roots: Iterable[str] = ROOTS) -> dict[str, dict[str, Any]]:
    """Return each installed package of the roots and of all that they require, by its normalised name, sorted.

    A package has its `version`. One that does not come from an index, or that a folder on PYTHONPATH hides, also has
    `commit` and `uncommitted`; see `hfbench.environment.packages.source_state`.
    """
    found = _required(roots)
    return {name: {"version": found[name].version, **source_state(name, found[name])} for name in sorted(found)}


def _required(roots: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions that the roots reach through their requirements, the roots included."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset()) for root in roots]
    while waiting:
        name, extras = waiting.pop()
        name = canonicalize_name(name)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found.setdefault(name, metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue
        for line in found[name].requires or []:
            with suppress(InvalidRequirement):  # metadata older than the rules; pip ignores it too
                requirement = Requirement(line)
                if _applies(requirement, extras):
                    waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    """Whether it is required here, where these extras are asked for (torch asks so for its CUDA libraries)."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))
