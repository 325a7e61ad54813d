"""The source `local`: a folder that transformers can load, used where it is."""

import dataclasses
from pathlib import Path

from hfbench.core.errors import UserError
from hfbench.core.record import SCHEMA_VERSION, Manifest, ModelFile
from hfbench.core.sources import LocalSource
from hfbench.model.architecture import read_architecture
from hfbench.model.folder import (
    WEIGHTS_INDEX,
    check_tokenizer,
    describe_files,
    files_in,
    support_files,
    tokenizer_files,
    weight_files,
)


def resolve_local(name: str, source: LocalSource, previous: Manifest | None) -> Manifest:
    """Return the manifest of a folder, `previous` itself where nothing changed.

    Raises `UserError` where the folder is missing or lacks config.json, safetensors weights or a tokenizer.
    """
    files = scan(source)
    if previous is not None and (previous.name, previous.source, previous.files) == (name, source.model_dump(), files):
        return previous
    architecture = read_architecture(_existing(source.path), source.path, source.trust_remote_code)
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
    return _existing(source.path)


def scan(source: LocalSource) -> tuple[ModelFile, ...]:
    """Return the model's files in the folder, hashed; big ones only where they changed."""
    folder = _existing(source.path)
    names = files_in(folder, source.trust_remote_code)
    support = support_files(names, source.path, source.trust_remote_code)
    weights = weight_files(names, source.path, lambda: folder / WEIGHTS_INDEX)
    return describe_files(folder, [*support, *weights])


def scan_tokenizer(path: str) -> tuple[ModelFile, ...]:
    """Return the tokenizer's files in a folder, hashed. Raises `UserError` where there are none."""
    folder = _existing(path)
    names = tokenizer_files(files_in(folder))
    check_tokenizer(names, path)
    return describe_files(folder, names)


def _existing(path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"the folder {path} does not exist. Set it in params.yaml to a model's folder as save_pretrained writes it."
        )
    return folder
