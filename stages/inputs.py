"""Stage inputs@NAME: token batches of exact length from a model's tokenizer and a prompt."""

import argparse
from pathlib import Path

from hfbench.core.errors import run
from hfbench.core.record import Manifest
from hfbench.inputs.prepare import prepare_inputs
from hfbench.params.schema import load_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="the model's manifest")
    parser.add_argument("--params", type=Path, required=True, help="params.yaml: the shapes of its points")
    parser.add_argument("--prompt", type=Path, required=True, help="a UTF-8 text file")
    parser.add_argument("--output", type=Path, required=True, help="the folder for the batches")
    arguments = parser.parse_args()
    manifest, params = Manifest.load(arguments.manifest), load_params(arguments.params)
    prepare_inputs(
        manifest, params.workloads(manifest.name), arguments.prompt, arguments.output, params.request_lengths
    )


if __name__ == "__main__":
    run(main)
