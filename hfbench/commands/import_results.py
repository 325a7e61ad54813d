"""Take over what other programs made."""

import argparse

from hfbench.commands import import_benchmark_v2, import_configs

HELP = "take over what other programs made"

# In the order in which --help lists them: a kind is a module like a command.
_KINDS = {"benchmark-v2": import_benchmark_v2, "configs": import_configs}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the kinds of import, each with its own arguments."""
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    for name, kind in _KINDS.items():
        kind_parser = kinds.add_parser(name, help=kind.HELP, description=kind.__doc__)
        kind.add_arguments(kind_parser)
        kind_parser.set_defaults(run_import=kind.run)


def run(arguments: argparse.Namespace) -> None:
    """Run the import that was asked for."""
    arguments.run_import(arguments)
