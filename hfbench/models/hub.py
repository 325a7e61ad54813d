"""The source `hub`: a repository of the Hugging Face hub at one commit, in huggingface_hub's own cache."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, cast

from hfbench.foundation.errors import UserError
from hfbench.foundation.records import SCHEMA_VERSION, Manifest, ModelFile
from hfbench.foundation.sources import HubSource
from hfbench.models.architecture import read_architecture
from hfbench.models.folder import CONFIG, WEIGHTS_INDEX, has_sizes, support_files, weight_files
from hfbench.models.hashing import remembered_sha256
from hfbench.models.hub_cache import find_cached, snapshot_folder
from hfbench.models.hub_errors import HubUnreachableError, hub_errors
from hfbench.models.progress import DownloadLines, say, size_text

_ANSWER_SECONDS = 8.0  # a hub that takes longer to say what a repository holds counts as unreachable


@dataclasses.dataclass(frozen=True)
class _Listing:
    """A repository at a commit: the size of each file, and the sha256 of those in large-file storage."""

    commit: str
    sizes: dict[str, int]
    sha256s: dict[str, str]


def resolve_hub(name: str, source: HubSource, with_weights: bool = True) -> Manifest:
    """Return the manifest of a repository at the commit its revision is at now, downloading what is not cached.

    Without the hub, what its cache holds of that revision must do. Raises `UserError` for a repository or revision that
    is unknown, gated or without safetensors, and where neither hub nor cache has it.
    """
    try:
        with hub_errors(source):
            listing = _list(source, source.revision)
            files = _fetch_listed(source, listing, with_weights)
            commit = listing.commit
    except HubUnreachableError as error:
        commit, files = find_cached(source, with_weights, str(error))
    architecture = read_architecture(snapshot_folder(source, commit), source.repository, source.trust_remote_code)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        source=source.model_dump(),
        provenance={"commit": commit},
        files=files,
        **dataclasses.asdict(architecture),
    )


def materialise_hub(manifest: Manifest) -> Path:
    """Return the folder of a repository at the manifest's commit, downloading what is missing.

    Raises `UserError` where the hub cannot give it, or what it gives differs from the manifest.
    """
    source, commit = HubSource.model_validate(manifest.source), str(manifest.provenance["commit"])
    folder = snapshot_folder(source, commit)
    if has_sizes(folder, manifest.files):
        return folder
    try:
        with hub_errors(source):
            _list(source, commit)  # a download that finds no hub retries for half a minute; this says so at once
            say(f"downloading what is missing of {source.repository} at {commit[:12]}")
            for file in manifest.files:
                _fetch(source, commit, file.path, file.size_bytes, file.sha256)
    except HubUnreachableError as error:
        raise UserError(
            f"the files of {manifest.name!r} are not all on this machine, and the hub cannot be reached ({error}). "
            "Run again when it can."
        ) from error
    return folder


def _list(source: HubSource, revision: str) -> _Listing:
    from huggingface_hub import HfApi

    info = HfApi().model_info(source.repository, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS)
    siblings = [
        file
        for file in info.siblings or []
        if "/" not in file.rfilename or (source.trust_remote_code and file.rfilename.endswith(".py"))
    ]
    return _Listing(
        commit=str(info.sha),
        sizes={file.rfilename: int(file.size or 0) for file in siblings},
        sha256s={file.rfilename: file.lfs.sha256 for file in siblings if file.lfs is not None},
    )


def _fetch_listed(source: HubSource, listing: _Listing, with_weights: bool) -> tuple[ModelFile, ...]:
    """Download the model's files. The hub's sha256 of a file is checked where it is downloaded, else believed."""

    def fetch(name: str) -> Path:
        return _fetch(source, listing.commit, name, listing.sizes[name], listing.sha256s.get(name))

    names = support_files(listing.sizes, source.repository, source.trust_remote_code)
    if with_weights:
        names += weight_files(listing.sizes, source.repository, lambda: fetch(WEIGHTS_INDEX))
    missing = sum(
        listing.sizes[name] for name in names if not (snapshot_folder(source, listing.commit) / name).exists()
    )
    if missing:
        say(f"downloading {source.repository} at {listing.commit[:12]}: {size_text(missing)}")
    # By its revision once, so that huggingface_hub's cache knows it too, for when the hub cannot be reached.
    _download(source, CONFIG, source.revision)
    paths = {name: fetch(name) for name in sorted(names)}
    return tuple(
        ModelFile(name, listing.sizes[name], listing.sha256s.get(name) or remembered_sha256(path))
        for name, path in paths.items()
    )


def _fetch(source: HubSource, commit: str, name: str, size_bytes: int, sha256: str | None) -> Path:
    """Return a file of the commit, downloaded and checked where the cache has none of that size."""
    path = snapshot_folder(source, commit) / name
    if path.is_file() and path.stat().st_size == size_bytes:
        return path
    if path.exists():  # cut short: huggingface_hub would take it for whole
        _remove(path)
    _download(source, name, commit)
    if path.stat().st_size != size_bytes or (sha256 is not None and remembered_sha256(path) != sha256):
        _remove(path)
        raise UserError(
            f"{name} of {source.repository} arrived with other content than expected, and was removed. Run again."
        )
    return path


def _remove(path: Path) -> None:
    """Remove a file from huggingface_hub's cache: the blob, and the snapshot's link to it."""
    path.resolve().unlink()
    path.unlink(missing_ok=True)


def _download(source: HubSource, name: str, revision: str) -> None:
    from huggingface_hub import hf_hub_download

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    hf_hub_download(
        source.repository,
        name,
        revision=revision,
        etag_timeout=_ANSWER_SECONDS,
        tqdm_class=cast(Any, DownloadLines),
    )
