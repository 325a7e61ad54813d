"""The Python packages that can change a measurement: versions and, for source checkouts, what is in them."""

import csv
import hashlib
import importlib.util
import json
import os
import re
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import translate
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.utils import canonicalize_name
from packaging.version import Version

from hfbench.core.system import installed_packages, read_text
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
    return version_line([variables.get("CXX", "clang++" if sys.platform == "darwin" else "g++")])


def version_line(command: Sequence[str], *, last: bool = False) -> str | None:
    """Return the first or last line that a command prints for --version; None where it cannot be run."""
    try:
        output = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    lines = output.splitlines()
    return lines[-1 if last else 0] if lines else None


# What can change a number: what loads and runs a model, what torch or transformers pick up by themselves where it is
# installed, and the vendors' libraries below them. Whatever else is installed stands in each record, and measures
# nothing again.
MEASURED = tuple(
    """
    torch transformers kernels accelerate safetensors tokenizers numpy sympy einops scikit-learn
    triton triton-* pytorch-triton* torch-xla torch-tensorrt* torch-npu torch-neuronx torch-mlu torch-musa torchao
    torch-directml bitsandbytes optimum optimum-* auto-gptq autoawq* gptqmodel compressed-tensors hqq eetq fbgemm-gpu*
    flash-attn flash-attn-* flash-linear-attention fla-core xformers sageattention flashinfer-* aiter amd-aiter
    liger-kernel deepspeed apex transformer-engine* mamba-ssm causal-conv1d quack-kernels tilelang apache-tvm-ffi
    cutlass-dsl nvidia-* cuda-* cupy-* tensorrt* libtpu jaxlib neuronx-* libneuronxla openvino habana-torch-plugin
    intel-* mkl mkl-* onemkl-* dnnl oneccl* dpcpp-cpp-rt tbb tcmlib umf impi-rt rocm rocm-* amd-torch-*
    """.split()  # noqa: SIM905 (quotes would hide the names)
)
# They fit a pattern, and only look at devices or at Python.
_WATCHING = frozenset({"nvidia-ml-py", "nvidia-smi", "nvidia-nvtx", "cuda-pathfinder"})
# With an entry point of one of these, a package adds itself to torch when torch is imported or compiles.
_PLUGINS = ("torch.backends", "torch_dynamo_backends")


def describe_packages(measured: Iterable[str] = MEASURED) -> dict[str, dict[str, Any]]:
    """Return each installed package that fits one of the patterns or adds itself to torch, by its normalised name.

    A package has its `version`. One that does not come from an index, or that a folder on PYTHONPATH hides, also has
    `commit` and `uncommitted`; see `hfbench.environment.packages.source_state`.
    """
    is_measured = re.compile("|".join(map(translate, measured))).match
    names = {name for name in map(canonicalize_name, installed_packages()) if is_measured(name)}
    entry_points = metadata.entry_points()
    plugins = (each.dist for group in _PLUGINS for each in entry_points.select(group=group))
    names |= {canonicalize_name(each.name) for each in plugins if each is not None}
    found = {name: metadata.distribution(name) for name in sorted(names - _WATCHING)}
    return {name: {"version": each.version, **source_state(name, each)} for name, each in found.items()}


def torch_build() -> dict[str, str]:
    """Return what torch is built for, by `cuda`, `hip` and `xpu`, with the version of each; empty for the CPU alone.

    The version of torch does not tell: that of PyPI for CUDA, a vendor's and one from source have names of their own.
    torch's file of it is read and nothing imported.
    """
    folder = _imported_path("torch")
    text = read_text(folder / "version.py") if folder else None
    return dict(re.findall(r"^(cuda|hip|xpu)\b[^=\n]*= *'([^']+)'", text or "", re.MULTILINE))


def differing_versions(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Return, in words, which packages are here and on a node in different versions.

    Both are `packages` of environment.json. What one has alone belongs to its hardware, and so does what a version says
    of its build, after the +.
    """
    return [
        f"{name} {theirs[name]['version']}, and here is {ours[name]['version']}"
        for name in sorted(theirs.keys() & ours.keys())
        if Version(theirs[name]["version"]).public != Version(ours[name]["version"]).public
    ]
