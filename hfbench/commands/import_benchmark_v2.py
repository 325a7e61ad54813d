"""Make a baseline for `hfbench compare` of results that transformers' own benchmark_v2 wrote."""

import argparse
from pathlib import Path

HELP = "results of transformers' own benchmark_v2, as a baseline for `hfbench compare`"
_IMPORTED = Path("results/imported")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this kind of import."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="what run_benchmarks.py wrote; several are as many rounds"
    )
    parser.add_argument("--output", type=Path, help=f"folder ({_IMPORTED}/FILE without its suffix)")
    parser.add_argument("--model", help="name of the model in params.yaml (that of its repository, in lower case)")
    parser.add_argument(
        "--prompt-tokens", type=int, metavar="N", help="how many tokens benchmark_v2's prompt has with this model"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the folder, and say what to know of it. Raises `UserError` for a file of another layout."""
    from hfbench.exchange.import_results import import_benchmark_v2

    folder = arguments.output or _IMPORTED / arguments.files[0].stem
    imported = import_benchmark_v2(
        arguments.files, folder, model=arguments.model, whole_prompt_tokens=arguments.prompt_tokens
    )
    counts = {"configuration": imported.configurations, "round": imported.rounds}
    told = ", ".join(f"{count} {noun}{'s' * (count != 1)}" for noun, count in counts.items())
    print(f"{imported.folder}: {told} in all")
    for note in imported.notes:
        print(f"- {note}")
    print(f"Compare with them: hfbench compare {imported.folder} workspace --across-environments")
