"""Stage `environment`: checks params.yaml, then describes the machine and where the models come from."""

import argparse
from pathlib import Path

from hfbench.core.errors import run
from hfbench.core.files import write_json
from hfbench.environment.describe import describe
from hfbench.environment.settings import settings_name, settings_of
from hfbench.model.manifest import fingerprint
from hfbench.params.schema import load_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sources", type=Path, required=True, help="folder for what each model's manifest depends on")
    parser.add_argument("--settings", type=Path, required=True, help="folder for what points depend on")
    arguments = parser.parse_args()
    # The first stage of every run: a bad value ends it before anything is measured.
    params = load_params(arguments.params)
    write_json(arguments.output, describe())
    for name in params.sweep.model:
        write_json(arguments.sources / f"{name}.json", fingerprint(name, params))
    for name, point in {settings_name(point): point for point in params.points()}.items():
        settings_of(point, params).save(arguments.settings / name)


if __name__ == "__main__":
    run(main)
