"""The command `hfbench`: what a person asks of the results beside `dvc`. Each command with its arguments, and its run.

What a command needs is imported when it runs, so that `hfbench --help` takes no time.
"""

import argparse
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hfbench.core.errors import UserError, run
from hfbench.core.results import MEASUREMENTS, PARAMS, REPORT, RESULTS, TABLES

_Argument = tuple[tuple[str, ...], dict[str, Any]]
_Run = Callable[[Namespace], None]
_PARSER = argparse.ArgumentParser(prog="hfbench", description="Ask for the results of an hfbench pipeline.")
_COMMANDS = _PARSER.add_subparsers(required=True, metavar="COMMAND")  # --help lists them in the order of this page


def _argument(*names: str, **options: Any) -> _Argument:
    """Return what `ArgumentParser.add_argument` takes."""
    return names, options


def _command(name: str, summary: str, *arguments: _Argument) -> Callable[[_Run], _Run]:
    """Return what makes a function the command `name`, whose --help shows its docstring, or else the summary."""

    def register(function: _Run) -> _Run:
        description = function.__doc__ or f"{summary[0].upper()}{summary[1:]}."
        parser = _COMMANDS.add_parser(name, help=summary, description=description)
        for names, options in arguments:
            parser.add_argument(*names, **options)
        parser.set_defaults(run=function)
        return function

    return register


def parse_arguments(words: Sequence[str] | None = None) -> Namespace:
    """Return the arguments; `run` is the function of the chosen command, which takes them."""
    return _PARSER.parse_args(words)


def main() -> None:
    """Run the command that the command line asks for."""
    arguments = parse_arguments()
    run(lambda: arguments.run(arguments))


def _share(text: str) -> float:
    """Return a share from 0.02 or 2%."""
    value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, such as 0.02 or 2%, not {text}")
    return value


def _params(purpose: str) -> _Argument:
    return _argument("--params", type=Path, default=PARAMS, help=f"{purpose} (%(default)s)")


def _say_way_back(command: str | None) -> None:
    if command:
        print(f"Back to what it was: {command}")


_RESULTS = _argument("--results", type=Path, default=RESULTS, help="folder of the results (%(default)s)")
_CHECKOUT = _argument(
    "--checkout", type=Path, required=True, help="git checkout of a package that is installed with pip install -e"
)


@_command("check", "check params.yaml, and whether DVC can start, and name whatever is wrong", _params("file to check"))
def _check(arguments: Namespace) -> None:
    from hfbench.core.files import require_readable_lock
    from hfbench.params.schema import load_params

    load_params(arguments.params)
    require_readable_lock()


@_command(
    "level",
    "write a coverage preset, 0 to 4, into params.yaml",
    _argument("level", metavar="N", help="0 to 4, more at each; see docs/levels.md"),
    _params("file to write to"),
)
def _level(arguments: Namespace) -> None:
    """Write a coverage preset into params.yaml, as transformers' own benchmark has them.

    0: one main configuration; 1: a few important ones; 2: one for each attention and option; 3: the cross product;
    4: the cross product with all compile modes. Model, rounds, batch sizes, lengths and all other axes stay as they
    are.
    """
    from hfbench.params.levels import LEVELS, way_back, write_level

    if arguments.level not in map(str, LEVELS):
        raise UserError(f"level {arguments.level!r} is none. Expected one of: {', '.join(map(str, LEVELS))}.")
    back = way_back(arguments.params)
    count = write_level(int(arguments.level), arguments.params)
    print(f"{arguments.params}: level {arguments.level}, {count} configuration{'s' * (count != 1)} in each round")
    _say_way_back(back)


@_command(
    "doctor",
    "check whether this machine is fit to measure, and say what to do",
    _params("what is to be measured"),
    _RESULTS,
    _argument("--strict", action="store_true", help="exit with status 1 where there is a warning"),
)
def _doctor(arguments: Namespace) -> None:
    from hfbench.doctor.checks import doctor

    sys.exit(doctor(arguments.params, arguments.results, strict=arguments.strict))


@_command(
    "show",
    "print the results of the last `dvc repro`, or all that is known of one point",
    _argument("--sort", metavar="COLUMN[:desc]", help="by a metric or an axis, such as decode:desc"),
    _argument("--filter", metavar="CONDITION", help="such as 'attn_implementation == \"sdpa\" and batch_size >= 4'"),
    _argument("--columns", metavar="A,B,C", help="axes and metrics, by their full names or those displayed"),
    _argument(
        "--format",
        choices=("table", "markdown", "csv", "json"),
        default="table",
        help="csv and json have full precision (%(default)s)",
    ),
    _argument(
        "--point",
        metavar="KEY",
        help="one point: its key in metrics_by_point.json, its stage or record, or a part that fits no other",
    ),
    _argument("--tables", type=Path, default=TABLES, help="folder of the tables (%(default)s)"),
    _argument("--measurements", type=Path, default=MEASUREMENTS, help="folder of the records (%(default)s)"),
    _argument("--report", type=Path, default=REPORT, help="HTML report (%(default)s)"),
)
def _show(arguments: Namespace) -> None:
    from hfbench.report.show import Choice, show_point, show_results

    names = tuple(filter(None, (name.strip() for name in (arguments.columns or "").split(","))))
    choice = Choice(arguments.filter, arguments.sort, names)
    if arguments.point is None:
        show_results(arguments.tables, choice, arguments.format, arguments.report)
    elif choice != Choice() or arguments.format != "table":
        raise UserError("--point shows one point whole; it goes with none of --sort, --filter, --columns and --format.")
    else:
        show_point(arguments.tables, arguments.measurements, arguments.point)


@_command(
    "report",
    "write the HTML report of what is measured so far",
    _argument("--output", type=Path, default=REPORT, metavar="FILE", help="%(default)s unless given"),
)
def _report(arguments: Namespace) -> None:
    """Write the HTML report of what is measured so far: during a run, or after one that was interrupted.

    A run that ends writes it by itself.
    """
    from hfbench.report.html import write_report
    from hfbench.report.so_far import read_so_far

    so_far = read_so_far()
    write_report(so_far.results, so_far.samples, arguments.output, so_far.note)
    print(so_far.note + "\n" if so_far.note else "", f"report: {arguments.output}", sep="")


@_command(
    "compare",
    "compare commits, experiments, machines, or values of an axis",
    _argument("names", nargs="*", metavar="REVISION", help="baseline and candidate (HEAD, workspace)"),
    _argument(
        "--metric",
        action="append",
        default=[],
        help="e2e, ttft, itl, decode, prefill, load, compile, memory or energy; may be repeated (all)",
    ),
    _argument("--filter", help="only these points: 'attn_implementation == \"sdpa\" and batch_size >= 4'"),
    _argument(
        "--threshold", type=_share, help="share of change that counts as none (compare.threshold in params.yaml)"
    ),
    _argument("--format", choices=("table", "markdown", "json"), default="table", help="%(default)s unless given"),
    _argument(
        "--fail-on", choices=["slower"], help="exit with 1 where a verdict is slower, or a point that was ok fails"
    ),
    _argument(
        "--across-environments", action="store_true", help="compare two machines, or two set-ups of one, on purpose"
    ),
    _argument("--axis", help="compare the values of this axis within one side, such as attn_implementation"),
    _argument("--reference", help="with --axis: the value that the others stand against"),
)
def _compare(arguments: Namespace) -> None:
    """Say whether the candidate is faster than the baseline, by how much, and how sure that is.

    A side is a git revision, the name of a DVC experiment, `workspace`, or a folder with tables. Without names HEAD is
    compared with the workspace, one name with the workspace, and three or more, or a range A..B, give the history. The
    exit status is 0, with --fail-on slower 1 where anything got slower or fails now, and 2 where there is nothing to
    compare.
    """
    from hfbench.compare.answer import compare_command

    try:
        sys.exit(compare_command(arguments))
    except UserError as error:
        print(f"hfbench: {error}", file=sys.stderr)
        sys.exit(2)  # not 1, which --fail-on gives a meaning


@_command(
    "profile",
    "trace one iteration of a point, and print the operators that take longest",
    _argument(
        "point",
        metavar="POINT",
        help="a point of params.yaml, measured or not: its key, words of it, its stage, or a part that fits no other",
    ),
    _argument("--output", type=Path, metavar="FILE", help="the trace, gzipped (results/profiles/NAME.json.gz)"),
)
def _profile(arguments: Namespace) -> None:
    """Trace one iteration of a point with torch.profiler, and print the operators that take longest."""
    from hfbench.profile.profiling import profile_point

    profile_point(arguments.point, arguments.output)


@_command(
    "retry",
    "measure again what failed, then bring the pipeline up to date",
    _argument(
        "names", nargs="*", metavar="NAME", help="stage of a point, a part of it, or a pattern (all that failed)"
    ),
    _argument("--status", action="append", default=[], help="only points of this status; may be repeated"),
    _argument("--dry", action="store_true", help="only say what would be measured again"),
)
def _retry(arguments: Namespace) -> None:
    from hfbench.retry import retry

    retry(arguments.names, arguments.status, dry=arguments.dry)


@_command(
    "interleave",
    "measure commits of an editable checkout, or environments, in interleaved rounds",
    _argument("--checkout", type=Path, help="git checkout of a package that is installed with pip install -e"),
    _argument("revisions", nargs="*", metavar="REVISION", help="two commits, tags or branches of it, or more"),
    _argument(
        "--python",
        type=Path,
        action="append",
        default=[],
        metavar="ENVIRONMENT/bin/python",
        help="in place of revisions: the interpreter of an environment, baseline first; twice or more",
    ),
    _argument("--rounds", type=int, help="how many, in place of sweep.round of params.yaml"),
    _argument("--names", nargs="+", default=[], metavar="NAME", help="experiment of each (CHECKOUT-COMMIT)"),
)
def _interleave(arguments: Namespace) -> None:
    """Measure commits of an editable checkout, or environments, in interleaved rounds; each becomes an experiment."""
    from hfbench.checkouts.interleave import interleave, interleave_interpreters

    sides = arguments.python or arguments.revisions
    if arguments.python and (arguments.revisions or arguments.checkout):
        raise UserError("--python measures environments, and --checkout commits of one. Give one of the two.")
    if not arguments.python and arguments.checkout is None:
        raise UserError("nothing to measure was given. Give --checkout and its revisions, or --python for each side.")
    if len(sides) < 2:
        raise UserError(f"{len(sides)} side was given. Give two or more to compare, the baseline first.")
    if arguments.rounds is not None and arguments.rounds < 1:
        raise UserError(f"--rounds is {arguments.rounds}; expected 2 or more.")
    options = {"rounds": arguments.rounds, "experiments": arguments.names}
    if arguments.python:
        measured = interleave_interpreters(sides, **options)
    else:
        measured = interleave(arguments.checkout, sides, **options)
    for side in measured:
        print(f"experiment {side.experiment}: {side.name}")
    print(f"To compare them: hfbench compare {' '.join(side.experiment for side in measured)}")


@_command(
    "fleet",
    "measure the sweep on the machines of a Ray cluster",
    _argument("action", nargs="?", choices=("list", "run", "status", "report"), default="list", help="(%(default)s)"),
    _argument("kinds", nargs="*", metavar="KIND", help="of `report`: experiments (those of the last run)"),
    _argument("--address", default="auto", help="of a cluster that exists, such as HOST:6379 (that of this machine)"),
    _argument("--per-node", type=int, default=1, metavar="N", help="points at a time on a node (%(default)s)"),
    _argument("--install", action="store_true", help="have Ray install the versions of constraints.txt on each node"),
    _argument("--push", action="store_true", help="share the results by `dvc push --run-cache`"),
)
def _fleet(arguments: Namespace) -> None:
    """Measure the sweep on the nodes of a Ray cluster that exists: each kind of machine among them, once.

    `list` tells the kinds, their nodes, and what each has still to measure; `run` measures it, and makes a DVC
    experiment of each kind; `status` tells, in another terminal, how far it is; `report` has the kinds beside each
    other. See docs/fleet.md.
    """
    from hfbench.fleet.driver import fleet

    fleet(arguments)


@_command(
    "bisect",
    "find the commit of an editable checkout that made a point slower",
    _CHECKOUT,
    _argument("--good", required=True, metavar="COMMIT", help="a commit before it became slower"),
    _argument("--bad", required=True, metavar="COMMIT", help="a later commit that is slower"),
    _argument("--point", required=True, metavar="KEY", help="a point: its key, words of it, its stage, or a part"),
    _argument("--metric", default="end_to_end_seconds", help="what became slower (%(default)s)"),
    _argument("--threshold", type=float, default=0.05, help="by more than which share (%(default)s)"),
    _argument("--rounds", type=int, default=4, help="after how many to look first (%(default)s)"),
    _argument("--max-rounds", type=int, default=16, help="after how many to give a commit up (%(default)s)"),
    _argument("--records", type=Path, metavar="FOLDER", help="keep what is measured in an empty folder"),
)
def _bisect(arguments: Namespace) -> None:
    """Find the first commit of an editable checkout that made a point slower, by `git bisect`."""
    from hfbench.checkouts.bisect import bisect
    from hfbench.tables.metrics import METRIC_NAMES

    if arguments.metric not in METRIC_NAMES:
        raise UserError(f"--metric {arguments.metric!r} is none. Expected one of: {', '.join(METRIC_NAMES)}.")
    if not 0 < arguments.threshold < 1:
        raise UserError(f"--threshold is {arguments.threshold:g}; expected a share between 0 and 1, such as 0.05.")
    if not 2 <= arguments.rounds <= arguments.max_rounds:
        raise UserError(
            f"--rounds is {arguments.rounds} and --max-rounds {arguments.max_rounds}; expected at least 2 rounds, and "
            "no more than --max-rounds."
        )
    asked = ("point", "metric", "threshold", "rounds", "max_rounds", "records")
    options = {name: getattr(arguments, name) for name in asked}
    text, commit = bisect(arguments.checkout, (arguments.good, arguments.bad), **options)
    print(text)
    if commit is None:
        sys.exit(1)


@_command(
    "export",
    "write the results in the layout of benchmark_v2, as CSV or as parquet",
    _argument("--format", choices=("benchmark-v2", "csv", "parquet"), required=True),
    _argument("--output", type=Path, default=RESULTS / "exported", help="folder, or a .json file (%(default)s)"),
    _RESULTS,
)
def _export(arguments: Namespace) -> None:
    """Write the results for other programs: benchmark_v2's dashboards, spreadsheets, data frames."""
    from hfbench.exchange.export import export_benchmark_v2, export_flat

    if arguments.format == "benchmark-v2":
        written = export_benchmark_v2(arguments.results, arguments.output)
    else:
        written = export_flat(arguments.results / TABLES.name, arguments.output, arguments.format)
    for path in written:
        print(path)


@_command(
    "import",
    "take over what other programs made",
    _argument("kind", choices=("configs",), help="configurations, as what params.yaml measures"),
    _argument(
        "file", type=Path, metavar="FILE", help="what run_benchmarks.py --config-file takes (.json, .jsonl), or results"
    ),
    _argument("--model", metavar="NAME", help="of models: in params.yaml (those of sweep.model)"),
    _params("file to write to"),
)
def _import(arguments: Namespace) -> None:
    """Have params.yaml measure the configurations of a file of transformers' own benchmark_v2, and nothing else."""
    from hfbench.exchange.configs import import_configs
    from hfbench.params.levels import way_back

    back = way_back(arguments.params)
    imported = import_configs(arguments.file, arguments.params, arguments.model)
    count = len(imported.entries)
    print(f"{arguments.params}: {count} configuration{'s' * (count != 1)} in each round, and none of the sweep")
    for note in imported.notes:
        print(f"- {note}")
    _say_way_back(back)


if __name__ == "__main__":
    main()
