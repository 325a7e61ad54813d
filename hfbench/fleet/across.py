"""One page on all kinds of machines of a fleet: which way is fastest on each, and how they stand beside each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from hfbench.compare.side import Side, read_side
from hfbench.core.files import write_text
from hfbench.core.results import RESULTS
from hfbench.params.schema import threshold_of
from hfbench.report.charts.throughput import kinds_chart
from hfbench.report.frames import ReportData, report_data, values_by_round
from hfbench.report.pages import Bullets, Column, Heading, Table, bullets, markdown, number, print_page, standard_output
from hfbench.report.speedups import judge_ways
from hfbench.report.templates import Figure, page_of_blocks
from hfbench.report.words import END_TO_END, MISSING, counted, significant, span_text
from hfbench.statistics.ratios import independent_ratio
from hfbench.statistics.spread import node_effects
from hfbench.statistics.verdicts import interval

PAGE, MARKDOWN_PAGE = RESULTS / "fleet.html", RESULTS / "fleet.md"
_TOKENS, _JOULES = "output_tokens_per_second", "energy_joules_per_token"
_TITLE = "Kinds of machines"


def show_kinds(names: Sequence[str]) -> None:
    """Print the page on the kinds of these names, which are those of their experiments, and write it."""
    found = {side.label: side_data(side) for side in map(read_side, names)}
    page = list(kinds_page(found))
    print_page(page, standard_output())
    write_text(MARKDOWN_PAGE, markdown(page) + "\n")
    write_html(found, page, PAGE)


def side_data(side: Side) -> ReportData:
    """Return the frames that the page is made from."""
    return report_data(side.samples, side.summary, side.points, side.configurations, threshold_of(side.params))


def kinds_page(found: Mapping[str, ReportData]) -> Iterator[Heading | Table | Bullets]:
    """Yield, for each workload, the fastest way of each kind with what it gives, then every way beside each other."""
    yield Heading("The fastest way on each kind of machine", level=2)
    yield _winners(found)
    yield Heading("Every way on each kind of machine", level=2)
    for title, cell in _BESIDE.items():
        yield replace(_beside_each_other(found, cell), title=title)
    yield _times_the_first(found)
    yield Heading("Between the nodes of a kind", level=2)
    yield bullets(_between_nodes(kind, data) for kind, data in found.items())


def write_html(found: Mapping[str, ReportData], page: Sequence[Heading | Table | Bullets], output: Path) -> None:
    """Write the page of `kinds_page` as HTML, with a chart."""
    facts = [(kind, ", ".join(data.points["device_name"].drop_nulls().unique().sort())) for kind, data in found.items()]
    chart = kinds_chart(found)
    blocks: list[Heading | Table | Bullets | Figure] = list(page)
    place = 1 + next(index for index, block in enumerate(blocks) if isinstance(block, Heading) and index)
    if chart is not None:
        alternative = (
            "For each way a dot for each kind of machine on an axis of tokens a second, with its 95% interval."
        )
        note = "Medians over rounds, end to end, with 95% intervals over rounds, which hold for all nodes of a kind."
        blocks.insert(place, Figure("kinds", chart, alternative, note))
    write_text(output, page_of_blocks(_TITLE, facts, blocks))


def _winners(found: Mapping[str, ReportData]) -> Table:
    rows = []
    for kind, data in found.items():
        for winner in judge_ways(data).winners:
            row = winner.configuration
            clear = "" if winner.is_clear or not winner.rivals else f"not told apart from {', '.join(winner.rivals)}"
            rows.append([row["workload"], kind, row["way"], *(cell(row) for cell in _BESIDE.values()), clear])
    rows.sort(key=lambda row: row[0])
    heads = [
        *(Column("workload"), Column("kind"), Column("fastest")),
        *(number("tokens", "1/s"), number("tokens", "1/J"), number("MBU"), number("MFU"), Column("")),
    ]
    return _without_empty(Table.of_rows(heads, rows))


def _without_empty(table: Table) -> Table:
    """Return the table without columns that say nothing, as the workload where there is one."""
    kept = tuple(column for column in table.columns if any(text not in ("", MISSING) for text in column.texts))
    return replace(table, columns=kept)


def _tokens(row: Mapping[str, Any]) -> str:
    return significant(row.get(_TOKENS))


def _tokens_a_joule(row: Mapping[str, Any]) -> str:
    joules = row.get(_JOULES)
    return significant(1 / joules) if joules else MISSING


def _mbu(row: Mapping[str, Any]) -> str:
    return _percent(row.get("mbu"))


def _mfu(row: Mapping[str, Any]) -> str:
    return _percent(row.get("mfu"))


def _percent(value: float | None) -> str:
    return f"{value:.0%}" if value is not None else MISSING


# What kinds are held beside each other in, in the order of the winners' columns.
_BESIDE = {
    "Tokens a second, end to end": _tokens,
    "Tokens a joule": _tokens_a_joule,
    "MBU, of each kind's own measured read bandwidth": _mbu,
    "MFU, of each kind's own measured rate of matrix products": _mfu,
}


def _beside_each_other(found: Mapping[str, ReportData], cell: Any) -> Table:
    """Return a table of what the cell says of each way on each kind; without rows where it says nothing."""
    values: dict[tuple[str, str], dict[str, str]] = {}
    for kind, data in found.items():
        for row in data.rows.iter_rows(named=True):
            if (text := cell(row)) != MISSING:
                values.setdefault((row["workload"], row["way"]), {})[kind] = text
    heads = [Column("workload"), Column("way"), *(number(kind) for kind in found)]
    return _without_empty(
        Table.of_rows(heads, ([*key, *(cells.get(kind, MISSING) for kind in found)] for key, cells in values.items()))
    )


def _times_the_first(found: Mapping[str, ReportData]) -> Table:
    """Return how many times as fast each way is on each kind as on the first one, with 95% intervals."""
    first, *others = found
    keys = ("workload", "way")
    by_kind = {kind: values_by_round(data.samples, END_TO_END, *keys) for kind, data in found.items()}
    rows = []
    for key in found[first].rows.select(keys).iter_rows():
        cells = []
        for kind in others:
            sides = (by_kind[each].get(key, {}).values() for each in (kind, first))
            ratio = independent_ratio(*([list(seconds) for seconds in rounds] for rounds in sides))
            known = None if ratio is None else interval(ratio)
            cells.append(MISSING if known is None else f"{significant(known.estimate)} ({span_text(*known[1:])})")
        rows.append([*map(str, key), *cells])
    heads = [Column("workload"), Column("way"), *(number(kind) for kind in others)]
    title = f"How many times as fast as on {first}, end to end, with 95% intervals"
    return _without_empty(Table.of_rows(heads, rows if others else (), title=title))


def _between_nodes(kind: str, data: ReportData) -> str:
    """Return how far the nodes of a kind are apart, and which is out of line."""
    nodes = {
        number: node
        for number, node in data.points.select("round", "node").unique().sort("round").iter_rows()
        if node is not None
    }
    by_round = values_by_round(data.samples, END_TO_END, "name")
    seconds = {str(key): {number: float(median(each)) for number, each in its.items()} for key, its in by_round.items()}
    spread, effects = node_effects(seconds, nodes)
    if not effects:
        few = "" if len(set(nodes.values())) < 2 else ", and too few rounds to tell them from each other"
        return f"{kind}: {counted(len(set(nodes.values())), 'node')}{few}"
    named = [
        f"{each.node} takes {each.ratio:.3f} times as long as the others ({each.low:.3f} to {each.high:.3f})"
        for each in effects
        if each.is_out_of_line
    ]
    apart = "; ".join(named) if named else "none is out of line"
    return f"{kind}: {len(effects)} nodes differ by {spread:.1%} (standard deviation); {apart}"
