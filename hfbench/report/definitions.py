"""The report's section on how its numbers are defined."""

from statistics import median
from xml.etree import ElementTree as ET

import polars as pl

from hfbench.report.html import element
from hfbench.report.words import significant
from hfbench.tables.metrics import METRICS

_PARAGRAPHS = (
    "A number in the table of results is the median of the medians of the rounds that are ok. A round is a fresh "
    "process. Samples are the iterations after the first call and the warm-up; samples.parquet keeps these too, and "
    "summary.parquet has mean, standard deviation, extremes and percentiles of every metric.",
    "The 95% interval counts what differs between rounds and what differs between iterations of one: a hierarchical "
    "bootstrap with Student's t. ± is half of it over the number. One round has no interval. A mark says which median "
    "is best among the configurations with the same work whose output is not flagged as different, and not that the "
    "difference is more than noise.",
    "The output is compared with that of eager attention, not compiled, without kernels and continuous batching: "
    "configurations.parquet has the share of the prompt's positions with the same top-1 token, the difference of the "
    "prompt's negative log-likelihood, and the first generated token that differs.",
    "MBU is model bandwidth utilisation: the weights and the cache that a decoding step has to read, over the time of "
    "a step and the bandwidth measured for reading as much. MFU is model FLOPs utilisation: the FLOPs that a prefill "
    "needs, over its time and the rate measured for matrix products.",
    "Break-even is the number of new tokens, of all rows together, after which compiling has paid for itself against "
    "the same configuration uncompiled, with the cache that it has by itself: what the first call takes beyond a "
    "steady iteration, less the same of the uncompiled one, over what a steady iteration saves, times its tokens. The "
    "first call is that of a fresh process with empty caches. Break-even is not known where the 95% interval of the "
    "saving includes none or there is one round, and never where compiled iterations are slower. Its range is that of "
    "the saving alone.",
    "TTFT is the time to the first token.",
    "Requests of unequal lengths all arrive when an iteration starts; as many run at a time as the batch size says, "
    "and the others wait. Continuous batching begins one where another ended. Plain generate runs them in batches, "
    "padded to their longest prompt, until the request with the most new tokens has them; a request's own tokens "
    "and times count, and the rest is padding waste. MBU and MFU are of steps that are all alike, and are not given "
    "for these.",
)


_COLOPHON = (
    "The charts are Vega-Lite specifications that Altair checked; Vega, Vega-Lite and Vega-Embed (University of "
    "Washington Interactive Data Lab and contributors, BSD 3-Clause License) stand in this page and draw them. Nothing "
    "is loaded from elsewhere."
)


def definitions(points: pl.DataFrame) -> ET.Element:
    """Return the section; the cost of observing is that of these points."""
    entries = [
        node
        for metric in METRICS
        for node in (
            element("dt", metric.name, " ", element("span", f"({metric.unit})", class_="unit")),
            element("dd", metric.definition),
        )
    ]
    paragraphs = [*_PARAGRAPHS, _observer_cost(points)]
    return element(
        "section",
        element("h2", "How the numbers are defined"),
        *(element("p", paragraph) for paragraph in paragraphs if paragraph),
        element("dl", *entries, class_="definitions"),
        element("p", _COLOPHON, class_="faint"),
        id="definitions",
    )


def _observer_cost(points: pl.DataFrame) -> str:
    """Return the observer's cost over all records; a record's own ratio is mostly chance where its samples are few."""
    ratios = points["observer_cost_ratio"].drop_nulls().to_list()
    if not ratios:
        return ""
    middle, lowest, highest = map(significant, (median(ratios), min(ratios), max(ratios)))
    return (
        f"The median with the token observer over the median without it is {middle} in the middle record, "
        f"{lowest} in the lowest and {highest} in the highest. Beside the cost of observing, this holds whatever else "
        "differed between the iterations."
    )
