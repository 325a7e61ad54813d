"""The command `hfbench`: what a person asks of the results beside `dvc`. Each command is a module of its own."""

import argparse
from collections.abc import Sequence

from hfbench.commands import (
    bisect,
    check,
    compare,
    doctor,
    export,
    import_results,
    interleave,
    level,
    profile,
    retry,
    show,
)
from hfbench.core.errors import run

# In the order in which --help lists them. Importing all of them takes no time: they import what they need when run.
_COMMANDS = {
    "check": check,
    "level": level,
    "doctor": doctor,
    "show": show,
    "compare": compare,
    "profile": profile,
    "retry": retry,
    "interleave": interleave,
    "bisect": bisect,
    "export": export,
    "import": import_results,
}


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments; `run` is the function of the chosen command, which takes them."""
    parser = argparse.ArgumentParser(prog="hfbench", description="Ask for the results of an hfbench pipeline.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        command_parser = commands.add_parser(name, help=command.HELP, description=command.__doc__)
        command.add_arguments(command_parser)
        command_parser.set_defaults(run=command.run)
    return parser.parse_args(words)


def main() -> None:
    """Run the command that the command line asks for."""
    arguments = parse_arguments()
    run(lambda: arguments.run(arguments))


if __name__ == "__main__":
    main()
