"""Where the code of an installed package really comes from: an index, a checkout, or a folder on PYTHONPATH."""

import csv
import hashlib
import importlib.util
import json
import site
import sysconfig
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from hfbench.environment.checkouts import checkout_state

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
