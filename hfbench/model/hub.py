"""The source `hub`: a repository of the Hugging Face hub at one commit, in huggingface_hub's own cache.

Its files are fetched one by one. `snapshot_download` (huggingface_hub 2.4) hands out an older snapshot where the hub
answers 403 or 503, and takes a file whose sha256 is not the hub's.
"""

import dataclasses
import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any, cast

from hfbench.core.errors import UserError, say
from hfbench.core.record import SCHEMA_VERSION, Manifest, ModelFile
from hfbench.core.sources import HubSource
from hfbench.model.architecture import Architecture, read_architecture, read_content
from hfbench.model.cache import DownloadLines, one_line, size_text
from hfbench.model.folder import (
    CONFIG,
    TOKENIZER_CONFIG,
    WEIGHTS_INDEX,
    files_in,
    has_sizes,
    remembered_sha256,
    support_files,
    weight_files,
)


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


class HubUnreachableError(Exception):
    """The hub gave no answer, or none of its own; the message is the reason."""


@contextmanager
def hub_errors(source: HubSource) -> Iterator[None]:
    """Turn what huggingface_hub raises into `UserError`, or `HubUnreachableError` where the hub could not be asked."""
    from huggingface_hub import errors

    # Of the library that it asks with: httpx in its version 1, httpx2 in version 2.
    http_error: type[Exception] = next(
        each for each in errors.HfHubHTTPError.__mro__ if each.__module__.startswith("httpx")
    )

    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"the hub's repository {source.repository} is gated. Accept its conditions on its page with your account, "
            "and set HF_TOKEN to a token of that account."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no model {source.repository} that can be seen from here. Check the name in params.yaml; if "
            "the repository is private, set HF_TOKEN to a token that may read it."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"the hub's repository {source.repository} has no revision {source.revision!r}. Set revision to one of its "
            "branches, tags or commits."
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnreachableError("HF_HUB_OFFLINE is set") from error
    except errors.LocalEntryNotFoundError as error:  # a download whose connection broke before its first byte
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _of_status(error.__cause__.response.status_code, source) from error
        raise HubUnreachableError(one_line(error.__cause__ or error)) from error
    except errors.HFValidationError as error:
        raise UserError(f"{source.repository!r} is no name of a repository on the hub ({one_line(error)})") from error
    except errors.HfHubHTTPError as error:
        raise _of_status(error.response.status_code, source) from error
    except (http_error, JSONDecodeError, errors.FileMetadataError) as error:  # no connection, or not the hub's answer
        raise HubUnreachableError(f"{type(error).__name__}: {one_line(error)}") from error
    except OSError as error:
        raise _of_disk(error, source) from error


def _of_status(status: int, source: HubSource) -> UserError | HubUnreachableError:
    if status in (401, 403):
        return UserError(
            f"the hub refused access to {source.repository} ({status}). Set HF_TOKEN to a valid token that may read it."
        )
    if status == 429 or status >= 500:
        return HubUnreachableError(f"it answered {status}")
    return UserError(
        f"the hub answered {status} where {source.repository} was asked for. If HF_ENDPOINT is set, check that "
        "a hub is there."
    )


def _of_disk(error: OSError, source: HubSource) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk is full: {source.repository} could not be downloaded. Free some space, or set HF_HOME to a "
            "folder on another disk."
        )
    if error.errno in (errno.EACCES, errno.EROFS):
        return UserError(f"{error.filename} cannot be written ({error.strerror}). Set HF_HOME to a folder that can.")
    if "Consistency check failed" in str(error):
        return HubUnreachableError("the connection broke during a download")
    return error


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
            architecture, files = _fetch_listed(source, listing, with_weights)
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


_READ_WITH_CODE = (".py", TOKENIZER_CONFIG)  # beside the config, what an architecture with code of its own is read from


def _fetch_listed(
    source: HubSource, listing: _Listing, with_weights: bool
) -> tuple[Architecture, tuple[ModelFile, ...]]:
    """Download the model's files, its weights when its config is known to give a model; return what both say.

    The hub's sha256 of a file is checked where it is downloaded, else believed.
    """

    def fetch(name: str) -> Path:
        return _fetch(source, listing.commit, name, listing.sizes[name], listing.sha256s.get(name))

    names = support_files(listing.sizes, source.repository, source.trust_remote_code)
    # By its revision once, so that huggingface_hub's cache knows it too, for when the hub cannot be reached.
    _download(source, CONFIG, source.revision)
    read_content(fetch(CONFIG).read_bytes(), f"{source.repository}: {CONFIG}")
    if with_weights:
        names += weight_files(listing.sizes, source.repository, lambda: fetch(WEIGHTS_INDEX))
    for name in names if source.trust_remote_code else ():
        if name.endswith(_READ_WITH_CODE):
            fetch(name)
    folder = snapshot_folder(source, listing.commit)
    architecture = read_architecture(folder, source.repository, source.trust_remote_code)
    missing = sum(listing.sizes[name] for name in names if not (folder / name).exists())
    if missing:
        say(f"downloading {source.repository} at {listing.commit[:12]}: {size_text(missing)}")
    paths = {name: fetch(name) for name in sorted(names)}
    return architecture, tuple(
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
