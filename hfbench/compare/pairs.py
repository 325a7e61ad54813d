"""Pairing the points of two sides by their axes, and what stands against comparing a pair."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any, TypeAlias

import polars as pl

from hfbench.compare.side import Side
from hfbench.core.errors import UserError
from hfbench.core.point import CONFIGURATION_AXES
from hfbench.core.record import OK
from hfbench.report.frames import Rounds, values_by_round
from hfbench.report.words import MISSING, memory_unit
from hfbench.statistics.bootstrap import Interval
from hfbench.tables.facts import start_time
from hfbench.tables.metrics import METRICS, Metric

_SAYS_NOTHING = 10  # times the baseline, or a share of it as small
_BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class ComparedMetric:
    """A metric, the short names by which it may be asked for, and its label.

    `better` and `worse` are the words for a candidate that has less or more of it.
    """

    name: str
    aliases: tuple[str, ...]
    label: str
    better: str = "faster"
    worse: str = "slower"

    @property
    def metric(self) -> Metric:
        """The unit and direction."""
        return _BY_NAME[self.name]

    def word(self, verdict: str) -> str:
        """Return a verdict in the metric's words: `less` and `more` of memory and energy."""
        return {"faster": self.better, "slower": self.worse}.get(verdict, verdict)

    def unit_of(self, values: Iterable[float | None]) -> tuple[str, float]:
        """Return the unit in which these values are short, and its size in the unit of the metric."""
        largest = max((value for value in values if value is not None), default=0.0)
        unit = self.metric.unit
        if unit == "bytes":
            return memory_unit(largest)
        if unit == "s":
            return ("s", 1.0) if largest >= 1 else ("ms", 1e-3)
        return {"tokens/s": "tok/s", "J/token": "J/tok"}.get(unit, unit), 1.0


def _words_of(metric: Metric) -> tuple[str, ...]:
    """Return the words for better and worse, where they are not those of speed."""
    if metric.unit in {"s", "tokens/s"}:
        return ()
    return ("more", "less") if metric.higher_is_better else ("less", "more")


COMPARED = (
    ComparedMetric("end_to_end_seconds", ("e2e", "end_to_end", "latency"), "end-to-end latency"),
    ComparedMetric("time_to_first_token_seconds", ("ttft", "time_to_first_token"), "time to first token"),
    ComparedMetric("inter_token_seconds", ("itl", "inter_token"), "inter-token latency"),
    ComparedMetric("decode_tokens_per_second", ("decode",), "decode throughput"),
    ComparedMetric("prefill_tokens_per_second", ("prefill",), "prefill throughput"),
    ComparedMetric("load_seconds", ("load",), "load time"),
    ComparedMetric("compile_seconds", ("compile",), "compile time"),
    ComparedMetric("peak_memory_bytes", ("memory", "peak_memory"), "peak memory", "less", "more"),
    ComparedMetric("energy_joules_per_token", ("energy",), "energy per token", "less", "more"),
)
HEADLINE = COMPARED[0]
# Compared where they are asked for by their full names.
_FURTHER = tuple(
    ComparedMetric(each.name, (each.name,), each.name.removesuffix("_seconds").replace("_", " "), *_words_of(each))
    for each in METRICS
    if each.name not in {each.name for each in COMPARED}
)
METRIC_BY_NAME = {metric.name: metric for metric in (*COMPARED, *_FURTHER)}
_BY_ANY_NAME = {name: metric for metric in (*COMPARED, *_FURTHER) for name in (metric.name, *metric.aliases)}


def choose_metrics(names: Sequence[str]) -> tuple[ComparedMetric, ...]:
    """Return the metrics of these names, in the order asked for; all of them where none is asked for.

    Raises `UserError` for a name that is none.
    """
    chosen = []
    for name in names:
        key = name.strip().lower().replace("-", "_")
        if key not in _BY_ANY_NAME:
            close = difflib.get_close_matches(key, _BY_ANY_NAME, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise UserError(
                f"--metric {name}: expected one of {', '.join(metric.aliases[0] for metric in COMPARED)}, or the full "
                f"name of one, such as {HEADLINE.name}.{hint}"
            )
        chosen.append(_BY_ANY_NAME[key])
    return tuple(dict.fromkeys(chosen)) or COMPARED


def headline(metrics: Sequence[ComparedMetric]) -> tuple[ComparedMetric, ...]:
    """Return the metrics that are shown in full: those asked for, or the end-to-end latency where all are."""
    return (HEADLINE,) if tuple(metrics) == COMPARED else tuple(metrics)


def percent(ratio: float) -> str:
    """Return a ratio as a change: +4.6%, −0.3%, +120%."""
    change = 100 * (ratio - 1)
    text = f"{abs(change):.{0 if abs(change) >= 99.95 else 1}f}"
    sign = "" if not float(text) else "+" if change > 0 else "−"
    return f"{sign}{text}%"


def limits(interval: Interval | None) -> str:
    """Return the limits of a ratio's interval as changes, −1.3 … +0.8%, unless they say nothing; a dash for none."""
    if interval is None:
        return MISSING
    if interval.high > _SAYS_NOTHING or interval.low * _SAYS_NOTHING < 1:
        return "not known"
    return f"{percent(interval.low).removesuffix('%')} … {percent(interval.high)}"


Axes: TypeAlias = tuple[Any, ...]  # a value for each of CONFIGURATION_AXES
Values: TypeAlias = dict[Axes, dict[str, Rounds]]


def values_of(side: Side, metrics: Iterable[ComparedMetric]) -> Values:
    """Return the values of each configuration, for each of these metrics that has some.

    Of rounds that are ok, and as in the summary: of each sample iteration with the token observer, or one value a
    round. Null is no value.
    """
    iterations = side.samples.filter(pl.col("status") == OK, pl.col("phase") == "sample", "observed")
    points = side.points.filter(pl.col("status") == OK)
    values: Values = {}
    for metric in metrics:
        for axes, rounds in _rounds_of(metric.name, iterations, points, side.summary).items():
            values.setdefault(axes, {})[metric.name] = rounds
    return values


def _rounds_of(
    metric: str, iterations: pl.DataFrame, points: pl.DataFrame, summary: pl.DataFrame
) -> dict[Axes, Rounds]:
    """Return the values of a metric by configuration, from the table that has them."""
    for table in (points, iterations):
        if metric in table.columns:
            return values_by_round(table, metric, *CONFIGURATION_AXES)
    medians = summary.filter(pl.col("metric").cast(pl.String) == metric).select(*CONFIGURATION_AXES, "round_medians")
    numbers = points.group_by(CONFIGURATION_AXES).agg(numbers=pl.col("round").sort())
    # A configuration of which a round has no value is left out: the summary does not tell which one.
    rounds = medians.join(numbers, on=CONFIGURATION_AXES, maintain_order="left").filter(
        pl.col("numbers").list.len() == pl.col("round_medians").list.len()
    )
    singles = rounds.explode("numbers", "round_medians").rename({"numbers": "round"})
    return values_by_round(singles, "round_medians", *CONFIGURATION_AXES)


@dataclass(frozen=True)
class ComparedPoint:
    """A configuration on one side.

    `statuses` are by round; `reason` is that of the first round that is not ok. `started` has the rounds that are ok
    and say when they started. `devices`, `threads` and `inputs` are what those rounds ran on; empty where none tells.
    `nll_change` is that of `hfbench.tables.agreement`.
    """

    axes: dict[str, Any]
    statuses: dict[int, str]
    reason: str | None
    started: dict[int, datetime]
    devices: frozenset[str]
    threads: frozenset[int]
    inputs: frozenset[str]
    kernels: frozenset[str]
    libraries: frozenset[str]
    clock_mhz: float | None  # the device's, the median over the rounds
    output_differs: bool
    nll_change: float | None

    @property
    def rounds_ok(self) -> int:
        """How many rounds are ok."""
        return sum(status == OK for status in self.statuses.values())

    @property
    def share_ok(self) -> float:
        """The share of its rounds that are ok."""
        return self.rounds_ok / len(self.statuses)

    @property
    def status(self) -> str:
        """`ok` where any round is, else the most frequent status."""
        return OK if self.rounds_ok else Counter(self.statuses.values()).most_common(1)[0][0]

    def __str__(self) -> str:
        some_ok = f"{self.rounds_ok} of {len(self.statuses)} rounds ok"
        return some_ok if 0 < self.share_ok < 1 else self.status


def named(axes: Axes) -> dict[str, Any]:
    """Return axes by name."""
    return dict(zip(CONFIGURATION_AXES, axes, strict=True))


def points_of(side: Side) -> dict[Axes, ComparedPoint]:
    """Return the points of a side by their axes, in the order of its table."""
    columns = ["round", "status", "reason", "started_at", "device_name", "intra_op_threads", "input_tensors_sha256"]
    columns += ["kernels", "libraries", "clock_mhz"]
    rounds = side.points.select(*CONFIGURATION_AXES, *columns).rows_by_key(CONFIGURATION_AXES, named=True)
    told = [name for name in ("output_differs", "nll_change") if name in side.configurations.columns]
    outputs = side.configurations.select(*CONFIGURATION_AXES, *told)
    known = outputs.rows_by_key(CONFIGURATION_AXES, named=True, unique=True)
    return {axes: _point(axes, some, known.get(axes, {})) for axes, some in rounds.items()}


def _point(axes: Axes, rounds: list[dict[str, Any]], known: Mapping[str, Any]) -> ComparedPoint:
    ok = [each for each in rounds if each["status"] == OK]
    clocks = [each["clock_mhz"] for each in ok if each["clock_mhz"] is not None]
    started = {each["round"]: start_time(each["started_at"]) for each in ok}
    devices, threads, inputs = (
        frozenset(each[column] for each in ok if each[column] is not None)
        for column in ("device_name", "intra_op_threads", "input_tensors_sha256")
    )
    return ComparedPoint(
        axes=named(axes),
        statuses={each["round"]: each["status"] for each in rounds},
        reason=next((each["reason"] for each in rounds if each["status"] != OK), None),
        started={number: time for number, time in started.items() if time is not None},
        devices=devices,
        threads=threads,
        inputs=inputs,
        kernels=frozenset(kernel for each in ok for kernel in each["kernels"] or ()),
        libraries=frozenset(library for each in ok for library in each["libraries"] or ()),
        clock_mhz=median(clocks) if clocks else None,
        output_differs=bool(known.get("output_differs")),
        nll_change=known.get("nll_change"),
    )


_SHOWN_DIGEST = 7
# Of a manifest: what no other revision of the same model would change. Its provenance and files may differ.
ARCHITECTURE = ("architecture", "model_type", "vocab_size")


@dataclass(frozen=True)
class Pair:
    """The same configuration on both sides."""

    axes: Axes
    baseline: ComparedPoint
    candidate: ComparedPoint

    @property
    def output_differs(self) -> tuple[str, ...]:
        """The sides on which the output is not that of its reference."""
        sides = {"baseline": self.baseline, "candidate": self.candidate}
        return tuple(name for name, point in sides.items() if point.output_differs)

    @property
    def is_regression(self) -> bool:
        """Whether it fails in more of its rounds than before: also one in seven that fails now is a finding."""
        return self.candidate.share_ok < self.baseline.share_ok

    @property
    def status_change(self) -> str:
        """How it fails otherwise than before, or in more or fewer rounds, with the reason; empty where it does not."""
        old, new = self.baseline, self.candidate
        if (old.share_ok, old.status) == (new.share_ok, new.status):
            return ""
        reason = (new if self.is_regression else old).reason
        return f"{old} → {new}" + (f": {reason}" if reason else "")


@dataclass(frozen=True)
class Pairing:
    """The pairs, and the points that only one side has."""

    pairs: tuple[Pair, ...]
    only_baseline: tuple[ComparedPoint, ...]
    only_candidate: tuple[ComparedPoint, ...]

    @property
    def compared(self) -> tuple[Pair, ...]:
        """The pairs that are ok on both sides."""
        return tuple(pair for pair in self.pairs if pair.baseline.status == OK and pair.candidate.status == OK)

    @property
    def changed(self) -> tuple[Pair, ...]:
        """The pairs whose status changed."""
        return tuple(pair for pair in self.pairs if pair.status_change)


def pair_points(baseline: Mapping[Axes, ComparedPoint], candidate: Mapping[Axes, ComparedPoint]) -> Pairing:
    """Return the pairs in the baseline's order."""
    return Pairing(
        pairs=tuple(Pair(axes, point, candidate[axes]) for axes, point in baseline.items() if axes in candidate),
        only_baseline=tuple(point for axes, point in baseline.items() if axes not in candidate),
        only_candidate=tuple(point for axes, point in candidate.items() if axes not in baseline),
    )


def obstacles(pair: Pair, baseline: Side, candidate: Side, *, across_environments: bool) -> list[str]:
    """Return in words what differs between the two points that no comparison can look through.

    That is their device and its threads, unless two environments are compared on purpose, and always what they were
    given to do: the model's architecture and the token ids of the prompt. What a side does not tell is no difference.
    """
    old, new = pair.baseline, pair.candidate
    found = []
    facts = {} if across_environments else {"device": (old.devices, new.devices), "threads": (old.threads, new.threads)}
    for name, both in facts.items():
        if all(both) and both[0] != both[1]:
            found.append(f"{name} {' → '.join(', '.join(sorted(map(str, values))) for values in both)}")
    if old.inputs and new.inputs and old.inputs != new.inputs:
        digests = (min(point.inputs)[:_SHOWN_DIGEST] for point in (old, new))
        found.append(f"the prompt's token ids differ (inputs {' → '.join(digests)})")
    manifests = [side.manifests.get(str(pair.baseline.axes["model"]), {}) for side in (baseline, candidate)]
    for name in ARCHITECTURE:
        before, after = (manifest.get(name) for manifest in manifests)
        if None not in (before, after) and before != after:
            found.append(f"the model's {name} {before} → {after}")
    return found
