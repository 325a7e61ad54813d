"""Have params.yaml measure the configurations of a file of transformers' own benchmark_v2, and nothing else."""

import argparse
from pathlib import Path

HELP = "configurations of transformers' own benchmark_v2, as what params.yaml measures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this kind of import."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="what run_benchmarks.py --config-file takes (.json, .jsonl), or results"
    )
    parser.add_argument("--model", metavar="NAME", help="of models: in params.yaml (those of sweep.model)")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="file to write to (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Write the configurations into params.yaml. Raises `UserError` for what cannot be measured, and writes nothing."""
    from hfbench.exchange.configs import import_configs
    from hfbench.params.levels import way_back

    back = way_back(arguments.params)
    imported = import_configs(arguments.file, arguments.params, arguments.model)
    count = len(imported.entries)
    print(f"{arguments.params}: {count} configuration{'s' * (count != 1)} in each round, and none of the sweep")
    for note in imported.notes:
        print(f"- {note}")
    if back:
        print(f"Back to what it was: {back}")
