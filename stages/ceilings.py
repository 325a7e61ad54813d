"""Stage `ceilings`: what the device can do at most."""

import argparse
import os
from pathlib import Path

from hfbench.core.errors import run
from hfbench.core.files import write_json
from hfbench.core.system import openmp_threads
from hfbench.params.schema import load_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", required=True, type=Path)
    parser.add_argument("--output", required=True, type=Path)
    arguments = parser.parse_args()
    params = load_params(arguments.params)
    os.environ["OMP_NUM_THREADS"] = openmp_threads()
    from hfbench.ceilings.rates import measure_ceilings  # only now: torch reads the variable when it is imported

    write_json(arguments.output, measure_ceilings(params.device, params.dtypes()))


if __name__ == "__main__":
    run(main)
