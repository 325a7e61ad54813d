"""What `hfbench compare` does with its arguments."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from hfbench.compare.axis import compare_axis
from hfbench.compare.compare import DEFAULT_THRESHOLD, Options, check_has_points, compare_sides, filtered
from hfbench.compare.history_commits import is_history
from hfbench.compare.pairs import choose_metrics
from hfbench.compare.render import (
    axis_json,
    axis_markdown,
    comparison_json,
    comparison_markdown,
    print_axis,
    print_comparison,
    standard_output,
)
from hfbench.compare.side import WORKSPACE, Side, read_side
from hfbench.core.errors import UserError
from hfbench.params.schema import read_yaml

_PARAMS = Path("params.yaml")


def compare_command(arguments: argparse.Namespace) -> int:
    """Print what the arguments ask for (see `hfbench.cli`) and return the exit status.

    Raises `UserError` for unknown names, metrics, axes and filters, for sides without results, and where no point is on
    both sides: that nothing is slower would be said of nothing.
    """
    console = standard_output()  # first: DVC puts something else in the place of the standard output
    threshold = _threshold(arguments)
    if arguments.axis is not None:
        return _axis(arguments, threshold, console)
    if arguments.reference is not None:
        raise UserError("--reference says which value of --axis the others stand against. Add --axis.")
    if is_history(arguments.names):
        return _history(arguments, threshold, console)
    names = {0: ["HEAD", WORKSPACE], 1: [*arguments.names, WORKSPACE]}.get(len(arguments.names), arguments.names)
    baseline, candidate = (_side(name, arguments.filter) for name in names)
    comparison = compare_sides(baseline, candidate, _options(arguments, threshold))
    if not comparison.pairing.pairs:
        raise UserError(
            f"{baseline.label} and {candidate.label} have no point in common: {baseline.configurations.height} and "
            f"{candidate.configurations.height} points that differ in an axis. Compare results of the same sweep."
        )
    if arguments.format == "json":
        print(comparison_json(comparison))
    elif arguments.format == "markdown":
        print(comparison_markdown(comparison), end="")
    else:
        print_comparison(comparison, console)
    return _status(arguments, comparison.is_slower)


def _axis(arguments: argparse.Namespace, threshold: float, console: Console) -> int:
    if len(arguments.names) > 1:
        raise UserError(f"--axis compares within one side, and {len(arguments.names)} were named. Name one.")
    side = _side(arguments.names[0] if arguments.names else WORKSPACE, arguments.filter)
    comparison = compare_axis(side, arguments.axis, arguments.reference, _options(arguments, threshold))
    if arguments.format == "json":
        print(axis_json(comparison))
    elif arguments.format == "markdown":
        print(axis_markdown(comparison), end="")
    else:
        print_axis(comparison, console)
    return _status(arguments, any(each.is_slower for _, each in comparison.comparisons))


def _history(arguments: argparse.Namespace, threshold: float, console: Console) -> int:
    from hfbench.compare.history import HistoryOptions, history_command

    if arguments.across_environments:
        raise UserError("A history never mixes machines. Compare two revisions with --across-environments instead.")
    options = HistoryOptions(
        metrics=tuple(arguments.metric),
        condition=arguments.filter,
        threshold=threshold,
        format=arguments.format,
        fail_on_slower=arguments.fail_on is not None,
        width=console.width,
        color=console.color_system is not None and console.is_terminal,
    )
    text, status = history_command(arguments.names, options)
    print(text, end="")
    return status


def _side(name: str, condition: str | None) -> Side:
    side = read_side(name)
    if condition is not None:
        side = filtered(side, condition)
    check_has_points(side, condition)
    return side


def _options(arguments: argparse.Namespace, threshold: float) -> Options:
    return Options(choose_metrics(arguments.metric), threshold, arguments.across_environments)


def _threshold(arguments: argparse.Namespace) -> float:
    """Return the threshold asked for, or that of params.yaml, or else the default."""
    if arguments.threshold is not None:
        return float(arguments.threshold)
    params: Any = read_yaml(_PARAMS) if _PARAMS.exists() else {}
    section = params.get("compare") if isinstance(params, Mapping) else None
    value = section.get("threshold", DEFAULT_THRESHOLD) if isinstance(section, Mapping) else DEFAULT_THRESHOLD
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError(f"{_PARAMS}: compare.threshold is {value!r}; expected a share between 0 and 1, such as 0.02.")
    return float(value)


def _status(arguments: argparse.Namespace, is_slower: bool) -> int:
    return 1 if arguments.fail_on == "slower" and is_slower else 0
