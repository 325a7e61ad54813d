"""Stage `ceilings`: what the device can do at most."""

import argparse
from pathlib import Path

from hfbench.errors import run
from hfbench.files import write_json
from hfbench.params import load_params
from hfbench.roofline.ceilings import measure_ceilings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    params = load_params(arguments.params)
    write_json(arguments.output, measure_ceilings(params.device, params.sweep.dtype))


if __name__ == "__main__":
    run(main)
