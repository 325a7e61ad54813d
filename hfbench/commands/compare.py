"""Say whether the candidate is faster than the baseline, by how much, and how sure that is.

A side is a git revision, the name of a DVC experiment, `workspace`, or a folder with tables. Without names HEAD is
compared with the workspace, one name with the workspace, and three or more, or a range A..B, give the history. The exit
status is 0, with --fail-on slower 1 where anything got slower or fails now, and 2 where there is nothing to compare.
"""

import argparse

HELP = "compare commits, experiments, machines, or values of an axis"
_FORMATS = ("table", "markdown", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("names", nargs="*", metavar="REVISION", help="baseline and candidate (HEAD, workspace)")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        help="e2e, ttft, itl, decode, prefill, load, compile, memory or energy; may be repeated (all)",
    )
    parser.add_argument("--filter", help="only these points: 'attn_implementation == \"sdpa\" and batch_size >= 4'")
    parser.add_argument(
        "--threshold", type=_share, help="share of change that counts as none (compare.threshold in params.yaml)"
    )
    parser.add_argument("--format", choices=_FORMATS, default=_FORMATS[0], help="%(default)s unless given")
    parser.add_argument(
        "--fail-on", choices=["slower"], help="exit with 1 where a verdict is slower, or a point that was ok fails"
    )
    parser.add_argument(
        "--across-environments", action="store_true", help="compare two machines, or two set-ups of one, on purpose"
    )
    parser.add_argument("--axis", help="compare the values of this axis within one side, such as attn_implementation")
    parser.add_argument("--reference", help="with --axis: the value that the others stand against")


def run(arguments: argparse.Namespace) -> None:
    """Print the comparison, and exit with the status that it asks for."""
    import sys

    from hfbench.compare.command import compare_command
    from hfbench.core.errors import UserError

    try:
        status = compare_command(arguments)
    except UserError as error:
        # Not 1, which --fail-on gives a meaning.
        print(f"hfbench: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status)


def _share(text: str) -> float:
    """Return a share from 0.02 or 2%."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, such as 0.02 or 2%, not {text}")
    return value
