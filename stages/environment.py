"""Stage `environment`: checks params.yaml, then describes the machine that the measurements run on."""

import argparse
from pathlib import Path

from hfbench.environment.describe import describe
from hfbench.errors import run
from hfbench.files import write_json
from hfbench.params import load_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    load_params(arguments.params)  # the first stage of every run: a bad value ends it before anything is measured
    write_json(arguments.output, describe())


if __name__ == "__main__":
    run(main)
