"""Stage `environment`: checks params.yaml, then describes the machine and what models and points depend on."""

import argparse
import os
from pathlib import Path

from hfbench.core.errors import run
from hfbench.core.files import read_json, write_json
from hfbench.core.results import DTYPES, ENVIRONMENT, PARAMS, STANDS_FOR, source_path, workloads_path
from hfbench.environment.describe import describe, require_usable
from hfbench.environment.settings import write_settings
from hfbench.model.manifest import fingerprint
from hfbench.params.schema import load_params
from hfbench.retry import forget_unavailable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="only describe the machine, into this file")
    output = parser.parse_args().output
    # The first stage of every run: a bad value ends it before anything is measured.
    params = load_params(PARAMS)
    stands_for = os.environ.get(STANDS_FOR)
    environment = read_json(Path(stands_for)) if stands_for else describe(params.device)
    require_usable(params.device, environment)
    write_json(output or ENVIRONMENT, environment)
    if output is not None:
        return
    forget_unavailable(params.stages())
    write_json(DTYPES, params.dtypes())
    for name in (*params.sweep.model, *params.sweep.assistant):
        write_json(source_path(name), fingerprint(name, params.models))
    for name in params.sweep.model:
        write_json(workloads_path(name), params.workloads(name).model_dump())
    write_settings(params, environment)


if __name__ == "__main__":
    run(main)
