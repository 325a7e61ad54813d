"""From an entry of `models` to its manifest, and from that to a folder that loads without any network.

A `local` source is a folder that transformers can load, used where it is; the others are in hub.py, built.py (`pypi`)
and random.py.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError
from hfbench.core.point import NOT_MODELS
from hfbench.core.record import SCHEMA_VERSION, Manifest, ModelFile
from hfbench.core.sources import LocalSource, RandomSource, Source, source_from
from hfbench.model.architecture import read_architecture, read_architecture_file
from hfbench.model.built import build_pypi, materialise_pypi
from hfbench.model.folder import (
    WEIGHTS_INDEX,
    describe_files,
    existing_folder,
    files_in,
    support_files,
    to_json,
    weight_files,
)
from hfbench.model.hub import materialise_hub, resolve_hub
from hfbench.model.random import find_tokenizer, materialise_random, resolve_random


def resolve(name: str, made_from: Mapping[str, Any], previous: Manifest | None) -> Manifest:
    """Return the manifest of the model `name`; it is `previous` itself where source and inputs are unchanged.

    `made_from` is its `fingerprint`. When a new manifest is returned, the weights are on this machine. A branch of the
    hub is followed once: to take its newer commit, delete the manifest. Raises `UserError` where the source gives no
    model.
    """
    source = source_from(made_from["source"])
    if isinstance(source, LocalSource):
        return resolve_local(name, source, previous)
    if isinstance(source, RandomSource):
        return resolve_random(name, source, made_from["tokenizer"], previous)
    if previous is not None and (previous.name, previous.source) == (name, source.model_dump()):
        return previous
    return build_pypi(name, source) if source.source == "pypi" else resolve_hub(name, source)


def fingerprint(name: str, models: Mapping[str, Source]) -> dict[str, Any]:
    """Return what the manifest of the model `name` depends on, ready for JSON: its entry, and the local files in it.

    `models` are the entries of `models:`, among which a random model may have its tokenizer. DVC does not see a local
    folder or an architecture file being edited; this changes with their content. Raises `UserError` where one is
    missing, or names no tokenizer; a folder that holds no model has its `trouble` in place of `files`. What drafts
    tokens without being a model depends on nothing.
    """
    if name in NOT_MODELS:
        return {}
    source = models[name]
    content: dict[str, Any] = {"source": source.model_dump()}
    if isinstance(source, LocalSource):
        try:
            content["files"] = to_json(scan(source))
        except UserError as error:
            if not Path(source.path).expanduser().is_dir():  # bad input, and not a model
                raise
            content["trouble"] = str(error)  # which `resolve` meets too
    if isinstance(source, RandomSource):
        content["architecture"] = read_architecture_file(source.config)
        content["tokenizer"] = find_tokenizer(name, source.tokenizer, models)
    return content


def read_previous(path: Path) -> Manifest | None:
    """Return what an earlier run found, as its manifest at `path` tells, or None where there is none that can be read.

    Why the model could not be had then is left out.
    """
    try:
        manifest = Manifest.load(path)
    except UserError:
        return None
    return dataclasses.replace(manifest, unavailable=None) if manifest.files else None


def made_available(name: str, made_from: Mapping[str, Any], previous: Manifest | None) -> Manifest:
    """Return what `resolve` does, with the model on this machine, or a manifest that says why it cannot be had.

    What was known of it stays: a branch of the hub means the same commit when it can be had again.
    """
    known = previous
    try:
        known = resolve(name, made_from, previous)
        materialise(known)  # the weights are on this machine before anything is measured
    except UserError as error:
        nothing = Manifest(SCHEMA_VERSION, name, dict(made_from["source"]), {}, "", "", 0, None, ())
        is_of_source = known is not None and known.source == made_from["source"]
        return dataclasses.replace(known if known and is_of_source else nothing, unavailable=str(error))
    return known


def forget_trouble(path: Path) -> None:
    """Have the manifest at `path` say no more why its model could not be had, so that it is looked for again."""
    if path.exists() and Manifest.load(path).unavailable is not None:
        previous = read_previous(path)
        path.unlink() if previous is None else previous.save(path)


def why_not_here(manifest: Manifest) -> str | None:
    """Have the model's files on this machine, and return why that cannot be; None where they are.

    A worker has no network: who starts one asks this first. By then the model may have been found elsewhere, as where
    the results of another machine are taken up, or its files may have been deleted.
    """
    if manifest.unavailable is not None:
        return manifest.unavailable
    try:
        materialise(manifest)
    except UserError as error:
        return str(error)
    return None


def resolve_local(name: str, source: LocalSource, previous: Manifest | None) -> Manifest:
    """Return the manifest of a folder, `previous` itself where nothing changed.

    Raises `UserError` where the folder is missing or lacks config.json, safetensors weights or a tokenizer.
    """
    files = scan(source)
    if previous is not None and (previous.name, previous.source, previous.files) == (name, source.model_dump(), files):
        return previous
    architecture = read_architecture(existing_folder(source.path), source.path, source.trust_remote_code)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        source=source.model_dump(),
        provenance={},
        files=files,
        **dataclasses.asdict(architecture),
    )


def materialise_local(manifest: Manifest) -> Path:
    """Return the folder of a local model. Raises `UserError` where it is no longer what the manifest says."""
    source = LocalSource.model_validate(manifest.source)
    now = {file.path: file for file in scan(source)}
    then = {file.path: file for file in manifest.files}
    if now != then:
        name = next(path for path in sorted(now.keys() | then.keys()) if now.get(path) != then.get(path))
        raise UserError(
            f"{source.path}/{name} changed since the manifest of {manifest.name!r} was written; run `dvc repro`."
        )
    return existing_folder(source.path)


def scan(source: LocalSource) -> tuple[ModelFile, ...]:
    """Return the model's files in the folder, hashed; big ones only where they changed."""
    folder = existing_folder(source.path)
    names = files_in(folder, source.trust_remote_code)
    support = support_files(names, source.path, source.trust_remote_code)
    weights = weight_files(names, source.path, lambda: folder / WEIGHTS_INDEX)
    return describe_files(folder, [*support, *weights])


_BY_SOURCE = {
    "hub": materialise_hub,
    "local": materialise_local,
    "pypi": materialise_pypi,
    "random": materialise_random,
}


def materialise(manifest: Manifest) -> Path:
    """Return the model's folder: config.json, safetensors, generation_config.json where it has one, tokenizer files.

    Where it is on this machine, only names and sizes are looked at (for `local`, also the hashes of changed files);
    otherwise it is made again from the manifest's source and provenance. Raises `UserError` where that is not possible,
    or gives other files than the manifest says.
    """
    return _BY_SOURCE[manifest.source["source"]](manifest)
