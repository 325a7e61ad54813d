"""Stage inputs@NAME: token batches of exact length from a model's tokenizer and a prompt."""

import sys
from pathlib import Path

from hfbench.core.files import read_json
from hfbench.core.record import Manifest
from hfbench.core.results import INPUTS, manifest_path, workloads_path
from hfbench.inputs.prepare import prepare_inputs
from hfbench.params.sections import Workloads
from hfbench.workers.forked import run_stage


def main() -> None:
    name, prompt = sys.argv[1:]
    workloads = read_json(workloads_path(name), Workloads.model_validate_json)
    prepare_inputs(Manifest.load(manifest_path(name)), workloads, Path(prompt), INPUTS / name)


if __name__ == "__main__":
    run_stage(main)
