"""The metrics that are compared, their short names, and how a person calls them."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from hfbench.foundation.errors import UserError
from hfbench.tables.metrics import METRICS, Metric

_BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class ComparedMetric:
    """A metric, the short names by which it may be asked for, and its label.

    `better` and `worse` are the words for a candidate that has less or more of it. `is_sampled`: has a value for each
    iteration, and not one for each round.
    """

    name: str
    aliases: tuple[str, ...]
    label: str
    is_sampled: bool
    better: str = "faster"
    worse: str = "slower"

    @property
    def metric(self) -> Metric:
        """The unit and direction."""
        return _BY_NAME[self.name]


COMPARED = (
    ComparedMetric("end_to_end_seconds", ("e2e", "end_to_end", "latency"), "end-to-end latency", True),
    ComparedMetric("time_to_first_token_seconds", ("ttft", "time_to_first_token"), "time to first token", True),
    ComparedMetric("inter_token_seconds", ("itl", "inter_token"), "inter-token latency", True),
    ComparedMetric("decode_tokens_per_second", ("decode",), "decode throughput", True),
    ComparedMetric("prefill_tokens_per_second", ("prefill",), "prefill throughput", True),
    ComparedMetric("load_seconds", ("load",), "load time", False),
    ComparedMetric("compile_seconds", ("compile",), "compile time", False),
    ComparedMetric("peak_memory_bytes", ("memory", "peak_memory"), "peak memory", False, "less", "more"),
    ComparedMetric("energy_joules_per_token", ("energy",), "energy per token", False, "less", "more"),
)
HEADLINE = COMPARED[0]
_BY_ANY_NAME = {name: metric for metric in COMPARED for name in (metric.name, *metric.aliases)}


def choose_metrics(names: Sequence[str]) -> tuple[ComparedMetric, ...]:
    """Return the metrics of these names, in the order asked for; all of them where none is asked for.

    Raises `UserError` for a name that is none.
    """
    return tuple(dict.fromkeys(_by_name(name) for name in names)) or COMPARED


def headline(metrics: Sequence[ComparedMetric]) -> tuple[ComparedMetric, ...]:
    """Return the metrics that are shown in full: those asked for, or the end-to-end latency where all are."""
    return (HEADLINE,) if tuple(metrics) == COMPARED else tuple(metrics)


def _by_name(name: str) -> ComparedMetric:
    key = name.strip().lower().replace("-", "_")
    if key not in _BY_ANY_NAME:
        close = difflib.get_close_matches(key, _BY_ANY_NAME, n=1)
        hint = f"Did you mean {close[0]}?" if close else ""
        raise UserError(
            f"--metric {name}: expected one of {', '.join(metric.aliases[0] for metric in COMPARED)}, or the full name "
            f"of one, such as {HEADLINE.name}. {hint}".strip()
        )
    return _BY_ANY_NAME[key]
