"""Stage inputs@NAME: token batches of exact length from a model's tokenizer and a prompt."""

import sys
from pathlib import Path

from hfbench.core.errors import run
from hfbench.core.record import Manifest
from hfbench.core.results import INPUTS, PARAMS, manifest_path
from hfbench.inputs.prepare import prepare_inputs
from hfbench.params.schema import load_params


def main() -> None:
    name = sys.argv[1]
    manifest, params = Manifest.load(manifest_path(name)), load_params(PARAMS)
    prepare_inputs(manifest, params.workloads(name), Path(params.prompt), INPUTS / name, params.request_lengths)


if __name__ == "__main__":
    run(main)
