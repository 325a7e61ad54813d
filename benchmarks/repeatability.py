"""Does hfbench call noise a change, and does it find a real one? Planted slowdowns and A/A, on this machine.

`python -m benchmarks.repeatability [--experiments 20] [--rounds 7] [--max-rounds 28] [--arms a b] [--records FOLDER]
[--workers forked fresh]`

Each experiment measures five arms of one configuration in interleaved rounds, every measurement a process of its own:
`a` and `b` are the same; `5%` and `20%` wait for that share of what each forward pass took; `unmonitored` runs without
the monitor. `a` stands in the middle of a round, and every second round runs the other way round, so that what is
compared ran close together and in both orders. With two kinds of workers each arm is measured by one and the other, and
each kind has its own answers of the same minutes. Records are kept in FOLDER, where an interrupted run goes on.

Two answers are printed. One is what `--rounds` rounds show. The other is what is found when an undecided arm gets more
rounds, up to `--max-rounds`: the noise of the machine decides how many of them a change of 5% takes. The rule is that
of `hfbench bisect`, whose looks after every round share the 5% of error.
"""

import argparse
import statistics
import sys
import tempfile
from math import log
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.arms import ARMS, decision, latencies, measure_all, record_path
from hfbench.checkouts.bisect import Rule
from hfbench.core.files import read_json
from hfbench.statistics.ratios import Ratio, independent_ratio, paired_ratio
from hfbench.statistics.verdicts import FAST, SLOW, UNDECIDED, interval, paired_ratio_interval
from hfbench.workers.forked import FORKED, FRESH

_WANTED = {"b": "at most 10% differ", "5%": "at least 80% slower", "20%": "100% slower"}


def _verdict(ratio: Ratio) -> str:
    """Return what the interval of candidate over baseline shows."""
    _, low, high = interval(ratio)
    return SLOW if low > 1 else FAST if high < 1 else UNDECIDED


def _judged(arm: str, words: list[str]) -> list[str]:
    """Return the shares of slow, fast and undecided among an arm's verdicts, what is wanted, and whether it is met."""
    shares = [words.count(word) / len(words) for word in (SLOW, FAST, UNDECIDED)]
    slow, _, undecided = shares
    is_met = {"b": undecided >= 0.9, "5%": slow >= 0.8, "20%": slow == 1}[arm]
    return [*(f"{share:.0%}" for share in shares), _WANTED[arm], "✓" if is_met else "✗"]


def _print_results(folder: Path, experiments: int, names: list[str], rule: Rule) -> None:
    """Print what one kind of workers measured."""
    console = Console()
    console.rule(f"{folder.name} workers")
    console.print(_fixed(folder, experiments, rule.rounds, names))
    console.print(_as_many_as_it_takes(folder, experiments, names, rule))
    if "unmonitored" in names:
        _print_monitor(console, folder, experiments, rule.rounds)
    if "b" in names:
        _print_scatter(console, folder, experiments, rule.rounds)
    _print_machine(console, folder, experiments, rule.rounds)


def _fixed(folder: Path, experiments: int, rounds: int, names: list[str]) -> Table:
    """Return what the 95% intervals of so many rounds show."""
    columns = ("candidate", "intervals", "median ratio", SLOW, FAST, UNDECIDED, "wanted", "")
    table = Table(*columns, title=f"{rounds} rounds")
    for arm in (arm for arm in names if arm in _WANTED):
        for kind, function in (("paired rounds", paired_ratio), ("unpaired", independent_ratio)):
            sides = (
                (latencies(folder, experiment, "a", rounds), latencies(folder, experiment, arm, rounds))
                for experiment in range(experiments)
            )
            found = [ratio for pair in sides if (ratio := function(*pair))]
            estimate = statistics.median(ratio.estimate for ratio in found)
            table.add_row(arm, kind, f"{estimate:.4f}", *_judged(arm, list(map(_verdict, found))))
    return table


def _as_many_as_it_takes(folder: Path, experiments: int, names: list[str], rule: Rule) -> Table:
    """Return the verdicts when an undecided arm gets more rounds."""
    title = f"as many rounds as it takes, from {rule.rounds} to {rule.max_rounds}, at {1 - rule.error:.1%} confidence"
    table = Table("candidate", "rounds", SLOW, FAST, UNDECIDED, "wanted", "", title=title)
    for arm in (arm for arm in names if arm in _WANTED):
        found = [decision(folder, experiment, arm, rule, rule.max_rounds) for experiment in range(experiments)]
        rounds = ", ".join(map(str, sorted(rounds for _, rounds in found)))
        table.add_row(arm, rounds, *_judged(arm, [word for word, _ in found]))
    return table


def _print_monitor(console: Console, folder: Path, experiments: int, rounds: int) -> None:
    """Print the effect of the monitor over all rounds of all experiments."""
    every = range(experiments)
    bare, watched = (
        [values for experiment in every for values in latencies(folder, experiment, arm, rounds)]
        for arm in ("unmonitored", "a")
    )
    effect = paired_ratio_interval(bare, watched)
    assert effect is not None
    text = f"{effect.estimate:.4f} ({effect.low:.4f} to {effect.high:.4f})"
    console.print(f"monitored over unmonitored, {len(bare)} pairs of rounds: {text}, at most 1.01")


def _print_scatter(console: Console, folder: Path, experiments: int, rounds: int) -> None:
    """Print how much equal arms of a round differ, which decides how many rounds a change takes."""
    every = range(experiments)
    a, b = (
        [statistics.median(values) for experiment in every for values in latencies(folder, experiment, arm, rounds)]
        for arm in ("a", "b")
    )
    scatter = statistics.stdev(log(y / x) for x, y in zip(a, b, strict=True))
    console.print(f"b over a of one round: standard deviation {scatter:.1%}, {len(a)} rounds")


def _print_machine(console: Console, folder: Path, experiments: int, rounds: int) -> None:
    """Print what the machine was like: noise without a machine's state says nothing."""
    records = [
        read_json(record_path(folder, experiment, "a", number))
        for experiment in range(experiments)
        for number in range(1, rounds + 1)
    ]
    medians = [
        statistics.median(values)
        for experiment in range(experiments)
        for values in latencies(folder, experiment, "a", rounds)
    ]
    before = [record["machine_before"] for record in records]
    console.print(
        f"rounds of a: median {statistics.median(medians):.4f} s, from {min(medians):.4f} to {max(medians):.4f} s; "
        f"{records[0]['effective']['device_name']}, {records[0]['effective']['intra_op_threads']} threads"
    )
    for name in ("cpu_percent", "steal_percent"):
        values = sorted(state[name] for state in before if state.get(name) is not None)
        if values:
            console.print(f"{name} before a round: median {statistics.median(values):.2f}, most {values[-1]:.2f}")
    console.print(f"measured {records[0]['started_at']} to {records[-1]['started_at']}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--max-rounds", type=int, default=28, help="of an arm that is undecided")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="a, and what to hold against it")
    parser.add_argument("--workers", nargs="+", choices=(FORKED, FRESH), default=[FORKED], help="kinds of workers")
    parser.add_argument("--records", type=Path, help="folder to keep the records in (a temporary one)")
    arguments = parser.parse_args()
    if "a" not in arguments.arms:
        parser.error("--arms needs a, which the others are compared with")
    with tempfile.TemporaryDirectory(prefix="hfbench-repeatability-") as temporary:
        folder = arguments.records or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        max_rounds = max(arguments.rounds, arguments.max_rounds)
        # Without a threshold either side of 1 is a wrong verdict for equal arms: two that share the 5% of error.
        rule = Rule(threshold=0, rounds=arguments.rounds, max_rounds=max_rounds, decisions=2)
        for experiment in measure_all(folder, arguments.experiments, arguments.arms, arguments.workers, rule):
            print(f"experiment {experiment + 1} of {arguments.experiments} measured", file=sys.stderr)
        for kind in arguments.workers:
            _print_results(folder / kind, arguments.experiments, arguments.arms, rule)


if __name__ == "__main__":
    main()
