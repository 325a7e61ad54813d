"""Stage model@NAME: resolves an entry of `models` to its manifest; where nothing changed, leaves the file as it is.

A model that cannot be had does not end the run: the manifest says why, and so does each of its points.
"""

import sys

from hfbench.core.errors import run, say
from hfbench.core.files import read_json
from hfbench.core.results import manifest_path, source_path
from hfbench.model.manifest import made_available, read_previous


def main() -> None:
    name = sys.argv[1]
    previous = read_previous(manifest_path(name))
    manifest = made_available(name, read_json(source_path(name)), previous)
    if manifest.unavailable is not None:
        say(f"hfbench: the model {name} cannot be had now: {manifest.unavailable}")
    if manifest != previous or not manifest_path(name).exists():
        manifest.save(manifest_path(name))


if __name__ == "__main__":
    run(main)
