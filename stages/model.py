"""Stages model@NAME and assistant@NAME: resolve an entry of `models` to its manifest.

Where nothing changed, they leave the file as it is.

A model that cannot be had does not end the run: the manifest says why, and so does each of its points.
"""

import argparse

from hfbench.core.errors import run, say
from hfbench.core.files import read_json, write_json
from hfbench.core.point import NOT_MODELS
from hfbench.core.results import assistant_path, manifest_path, source_path
from hfbench.model.manifest import made_available, read_previous


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--assistant", action="store_true", help="as what drafts tokens")
    name, is_assistant = vars(parser.parse_args()).values()
    path = assistant_path(name) if is_assistant else manifest_path(name)
    if is_assistant and name in NOT_MODELS:
        write_json(path, {"name": name})
        return
    previous = read_previous(path)
    manifest = made_available(name, read_json(source_path(name)), previous)
    if manifest.unavailable is not None:
        say(f"hfbench: the model {name} cannot be had now: {manifest.unavailable}")
    if manifest != previous or not path.exists():
        manifest.save(path)


if __name__ == "__main__":
    run(main)
