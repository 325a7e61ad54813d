"""Stage model@NAME: resolves an entry of `models` to its manifest; where nothing changed, leaves the file as it is."""

import argparse
from pathlib import Path

from hfbench.core.errors import run
from hfbench.model.manifest import materialise, read_previous, resolve
from hfbench.params.schema import load_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True, help="params.yaml: the entries of models")
    parser.add_argument("--name", required=True, help="the entry to resolve")
    parser.add_argument("--output", type=Path, required=True, help="the manifest, and the previous one if there is one")
    arguments = parser.parse_args()
    previous = read_previous(arguments.output)
    manifest = resolve(arguments.name, load_source(arguments.params, arguments.name), previous, arguments.params)
    materialise(manifest)  # the weights are on this machine before anything is measured
    if manifest is not previous:
        manifest.save(arguments.output)


if __name__ == "__main__":
    run(main)
