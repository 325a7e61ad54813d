"""huggingface_hub's cache on this machine: where it keeps a commit, and what it holds without the hub."""

import re
from pathlib import Path

from hfbench.foundation.errors import UserError
from hfbench.foundation.records import ModelFile
from hfbench.foundation.sources import HubSource
from hfbench.models.folder import CONFIG, WEIGHTS_INDEX, files_in, support_files, weight_files
from hfbench.models.hashing import remembered_sha256
from hfbench.models.progress import say


def snapshot_folder(source: HubSource, commit: str) -> Path:
    """Return where huggingface_hub keeps the files of a commit, there or not."""
    from huggingface_hub import constants  # alone, it imports in milliseconds

    return Path(constants.HF_HUB_CACHE) / f"models--{source.repository.replace('/', '--')}" / "snapshots" / commit


def find_cached(source: HubSource, with_weights: bool, reason: str) -> tuple[str, tuple[ModelFile, ...]]:
    """Return the commit that the cache has for the source's revision, and its files.

    `reason` says why the hub is not asked. Raises `UserError` where the cache lacks the revision, or files of it.
    """
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source.repository, CONFIG, revision=source.revision)
    nothing = (
        f"the hub cannot be reached ({reason}), and {source.repository} at {source.revision} is not whole in its cache"
    )
    if not isinstance(config, str):
        raise UserError(f"{nothing} on this machine. Run again when it can, or name a local model.")
    folder = Path(config).parent
    names = files_in(folder, source.trust_remote_code)
    try:
        files = support_files(names, source.repository, source.trust_remote_code)
        files += weight_files(names, source.repository, lambda: folder / WEIGHTS_INDEX) if with_weights else []
    except UserError as error:
        raise UserError(f"{nothing} on this machine: {error} Run again when the hub can be reached.") from None
    say(f"the hub cannot be reached ({reason}): taking {source.repository} from its cache, commit {folder.name[:12]}")
    return folder.name, tuple(
        ModelFile(name, (folder / name).stat().st_size, _blob_sha256(folder / name)) for name in sorted(files)
    )


def _blob_sha256(path: Path) -> str:
    """Return the sha256 of a cached file: a large file's is the name of the blob that it links to."""
    blob = path.readlink().name if path.is_symlink() else ""
    return blob if re.fullmatch(r"[0-9a-f]{64}", blob) else remembered_sha256(path)
