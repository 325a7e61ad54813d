"""The report's sections that are one chart each, and what they say where it cannot be drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from hfbench.report.charts.capacity import memory_chart, roofline_chart
from hfbench.report.charts.chart import Chart
from hfbench.report.charts.depth import depth_chart
from hfbench.report.charts.rounds import rounds_chart
from hfbench.report.charts.speed import frontier_chart
from hfbench.report.charts.startup import startup_chart
from hfbench.report.charts.tokens import token_latency_chart
from hfbench.report.frames import ReportData
from hfbench.report.html import element
from hfbench.report.sections.figures import figure


@dataclass(frozen=True)
class ChartSection:
    """A section: `draw` makes its chart, and `absent` says why there is none where it returns None.

    Where `absent` is None there is no section without a chart.
    """

    name: str
    heading: str
    draw: Callable[[ReportData], Chart | None]
    absent: str | None


CHART_SECTIONS = (
    ChartSection(
        "frontier",
        "Throughput against latency",
        frontier_chart,
        "No configuration was measured that generates more than one token.",
    ),
    ChartSection("depth", "Throughput by context depth", depth_chart, None),
    ChartSection(
        "roofline",
        "Decode and prefill beside the roofline",
        roofline_chart,
        "What the models need, or what the device can do, is not known, or the requests are of unequal lengths.",
    ),
    ChartSection("rounds", "Every sample, by round", rounds_chart, "There are no samples."),
    ChartSection(
        "tokens",
        "Between tokens, along the sequence",
        token_latency_chart,
        "No configuration was measured that generates more than one token.",
    ),
    ChartSection(
        "startup",
        "From process start to first token",
        startup_chart,
        "No record tells when its phases began.",
    ),
    ChartSection("memory", "Memory", memory_chart, "No record tells how much memory was used."),
)


def chart_section(section: ChartSection, chart: Chart | None, *below: ET.Element) -> ET.Element:
    """Return the section with its chart, or with the sentence that says why there is none; `below` ends it."""
    content = element("p", section.absent or "", class_="faint") if chart is None else figure(chart)
    return element("section", element("h2", section.heading), content, *below, id=section.name)
