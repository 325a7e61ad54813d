"""From a manifest to a folder that `from_pretrained(folder, use_safetensors=True)` loads without any network."""

from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError
from hfbench.core.record import Manifest
from hfbench.core.sources import LocalSource, RandomSource, Source
from hfbench.model.architecture import read_architecture_file
from hfbench.model.folder import to_json
from hfbench.model.hub import materialise_hub, resolve_hub
from hfbench.model.local import materialise_local, resolve_local, scan, scan_tokenizer
from hfbench.model.pypi import build_pypi, materialise_pypi
from hfbench.model.random import materialise_random, resolve_random
from hfbench.params.schema import Params


def resolve(name: str, source: Source, previous: Manifest | None, params: Path) -> Manifest:
    """Return the manifest of the model `name`; it is `previous` itself where source and inputs are unchanged.

    `params` is looked at for the tokenizer of a random model. When a new manifest is returned, the weights are on this
    machine. A branch of the hub is followed once: to take its newer commit, delete the manifest. Raises `UserError`
    where the source gives no model.
    """
    if isinstance(source, LocalSource):
        return resolve_local(name, source, previous)
    if isinstance(source, RandomSource):
        return resolve_random(name, source, previous, params)
    if previous is not None and (previous.name, previous.source) == (name, source.model_dump()):
        return previous
    return build_pypi(name, source) if source.source == "pypi" else resolve_hub(name, source)


def fingerprint(name: str, params: Params) -> dict[str, Any]:
    """Return what the manifest of the model `name` depends on, ready for JSON: its entry, and the local files in it.

    DVC does not see a local folder or an architecture file being edited; this changes with their content. Raises
    `UserError` where one is missing.
    """
    source = params.models[name]
    content: dict[str, Any] = {"source": source.model_dump()}
    if isinstance(source, LocalSource):
        content["files"] = to_json(scan(source))
    if isinstance(source, RandomSource):
        content["architecture"] = read_architecture_file(source.config)
        tokenizer = params.models.get(source.tokenizer)
        if isinstance(tokenizer, LocalSource) or (tokenizer is None and Path(source.tokenizer).expanduser().is_dir()):
            content["tokenizer"] = to_json(scan_tokenizer(getattr(tokenizer, "path", source.tokenizer)))
        elif tokenizer is not None:
            content["tokenizer"] = tokenizer.model_dump()
    return content


def read_previous(path: Path) -> Manifest | None:
    """Return the manifest that an earlier run left at `path`, or None where there is none that this hfbench reads."""
    try:
        return Manifest.load(path)
    except (UserError, TypeError, LookupError, AttributeError):
        return None


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
