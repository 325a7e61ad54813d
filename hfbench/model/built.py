"""Models that hfbench builds in its cache folder (pypi, random): each a folder with the manifest of what it holds."""

import dataclasses
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError
from hfbench.core.files import read_json, write_json
from hfbench.core.record import SCHEMA_VERSION, Manifest
from hfbench.core.results import manifest_path
from hfbench.model.architecture import read_architecture
from hfbench.model.cache import build_once, built_folder, key_of
from hfbench.model.folder import (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    describe_files,
    files_in,
    has_sizes,
    sha256_of,
)

_MANIFEST = "hfbench-manifest.json"
_FORMAT = 2  # of the folders: after a change of what is written into them, models are built anew
# transformers notes its version in the configs that it saves. With one fixed version, a model has the same hashes
# whichever transformers built it; with an older one or none, tokenizers of that folder load with a warning.
_NOTED_VERSION = "5.0.0"
# How the tokenizer was loaded before it was saved: an offline process notes other values.
_HOW_LOADED = ("is_local", "local_files_only")


def build(
    name: str,
    source: dict[str, Any],
    specification: dict[str, Any],
    provenance: dict[str, Any],
    make: Callable[[Path], dict[str, Any]],
) -> Manifest:
    """Return the manifest of a model that hfbench builds, building it where the cache does not hold it.

    `specification` is all that decides the bytes; the versions of the libraries are added to it. `make` writes the
    model into a folder and returns what it learnt of its provenance, beside the `provenance` known before. Raises what
    `make` raises, and `UserError` where the disk is full.
    """
    # Without the build (+cpu, +cu130): it changes nothing that runs on the CPU.
    versions = {library: version(library).split("+")[0] for library in ("torch", "transformers")}
    key = key_of({**specification, **versions, "format": _FORMAT})

    def make_with_manifest(folder: Path) -> None:
        learnt = make(folder)
        _normalise(folder)
        _manifest_of(folder, name, source, {**learnt, **versions, "build": key}).save(folder / _MANIFEST)

    folder = build_once(key, make_with_manifest, lambda folder: _stored_manifest(folder) is not None)
    stored = _stored_manifest(folder)
    assert stored is not None, f"{folder} was built and is not whole"
    # The folder may have been built for another project, with another name for the model and other paths.
    return dataclasses.replace(stored, name=name, source=source, provenance={**provenance, **stored.provenance})


def find_built(manifest: Manifest) -> Path | None:
    """Return the folder in the cache that holds the manifest's files, or None; only its own manifest is read."""
    folder = built_folder(str(manifest.provenance.get("build")))
    stored = _stored_manifest(folder)
    return folder if stored is not None and stored.files == manifest.files else None


def check_rebuilt(manifest: Manifest, rebuilt: Manifest) -> Path:
    """Return the folder of a model that was built again. Raises `UserError` where its files are not the manifest's."""
    if rebuilt.files == manifest.files:
        return built_folder(rebuilt.provenance["build"])
    names = ", ".join(sorted({file.path for file in set(rebuilt.files) ^ set(manifest.files)}))
    versions = "; ".join(
        f"{library} {manifest.provenance.get(library)} then, {rebuilt.provenance.get(library)} now"
        for library in ("torch", "transformers")
    )
    raise UserError(
        f"building {manifest.name!r} here gives other files than its manifest says ({names}; {versions}). Delete "
        f"{manifest_path(manifest.name)} and run `dvc repro` to measure what is built here."
    )


def _stored_manifest(folder: Path) -> Manifest | None:
    """Return the manifest in a built folder, or None where the folder is missing or a file lacks its size."""
    try:
        stored = Manifest.load(folder / _MANIFEST)
    except (UserError, OSError):  # missing, or of another version of hfbench
        return None
    return stored if has_sizes(folder, stored.files) else None


def _manifest_of(folder: Path, name: str, source: dict[str, Any], provenance: dict[str, Any]) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        source=source,
        provenance=provenance,
        files=describe_files(folder, files_in(folder), sha256_of),
        **dataclasses.asdict(read_architecture(folder, name, trust_remote_code=False)),
    )


def _normalise(folder: Path) -> None:
    """Take out what differs from one building process to another, so that all build the same bytes."""
    tokenizer_config = folder / TOKENIZER_CONFIG
    if tokenizer_config.is_file():
        content = read_json(tokenizer_config)
        write_json(tokenizer_config, {key: value for key, value in content.items() if key not in _HOW_LOADED})
    for path in (folder / CONFIG, folder / GENERATION_CONFIG):
        if path.is_file():
            write_json(path, {**read_json(path), "transformers_version": _NOTED_VERSION})
