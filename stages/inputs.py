"""Stage inputs@NAME: token batches of exact length from a model's tokenizer and a prompt."""

import argparse
from pathlib import Path

from hfbench.foundation.errors import run
from hfbench.foundation.params import load_params
from hfbench.foundation.records import Manifest
from hfbench.inputs.prepare import prepare_inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="the model's manifest")
    parser.add_argument("--params", type=Path, required=True, help="params.yaml: the sweep's shapes")
    parser.add_argument("--prompt", type=Path, required=True, help="a UTF-8 text file")
    parser.add_argument("--output", type=Path, required=True, help="the folder for b{batch}-s{length}.safetensors")
    arguments = parser.parse_args()
    prepare_inputs(
        Manifest.load(arguments.manifest), load_params(arguments.params).sweep, arguments.prompt, arguments.output
    )


if __name__ == "__main__":
    run(main)
