"""From an entry of `models` to its manifest; where nothing changed, without heavy imports and without the network."""

from pathlib import Path
from typing import Any

from hfbench.foundation.errors import UserError
from hfbench.foundation.params import Params
from hfbench.foundation.records import Manifest
from hfbench.foundation.sources import LocalSource, RandomSource, Source
from hfbench.models.architecture_file import read_architecture_file
from hfbench.models.folder import to_json
from hfbench.models.hub import resolve_hub
from hfbench.models.local import resolve_local, scan, scan_tokenizer
from hfbench.models.pypi import build_pypi
from hfbench.models.random_weights import resolve_random


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
