"""Stage model@NAME: resolves an entry of `models` to its manifest; where nothing changed, leaves the file as it is."""

import sys

from hfbench.core.errors import run
from hfbench.core.files import read_json
from hfbench.core.results import manifest_path, source_path
from hfbench.model.manifest import materialise, read_previous, resolve


def main() -> None:
    name = sys.argv[1]
    previous = read_previous(manifest_path(name))
    manifest = resolve(name, read_json(source_path(name)), previous)
    materialise(manifest)  # the weights are on this machine before anything is measured
    if manifest is not previous:
        manifest.save(manifest_path(name))


if __name__ == "__main__":
    run(main)
