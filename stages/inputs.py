"""Stage inputs@NAME: token batches of exact length from a model's tokenizer and a prompt."""

import dataclasses
import sys
from pathlib import Path

from hfbench.core.errors import run
from hfbench.core.files import read_json
from hfbench.core.record import Manifest
from hfbench.core.results import INPUTS, manifest_path, workloads_path
from hfbench.inputs.prepare import prepare_inputs
from hfbench.model.manifest import why_not_here
from hfbench.params.sections import Workloads
from hfbench.workers.forked import run_stage


def main() -> None:
    name, prompt, *unavailable = sys.argv[1:]
    manifest = Manifest.load(manifest_path(name))
    if unavailable:
        manifest = dataclasses.replace(manifest, unavailable=unavailable[0])
    workloads = read_json(workloads_path(name), Workloads.model_validate_json)
    prepare_inputs(manifest, workloads, Path(prompt), INPUTS / name)


def fetch_model() -> None:
    """Have the model's files here, or tell `main` in one more word why they cannot be had."""
    reason = why_not_here(Manifest.load(manifest_path(sys.argv[1])))
    sys.argv += [] if reason is None else [reason]


if __name__ == "__main__":
    run(fetch_model)
    run_stage(main)
