"""One page on all kinds of machines of a fleet: which way is fastest on each, and how they stand beside each other."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from hfbench.compare.side import Side, read_side
from hfbench.core.files import write_text
from hfbench.core.results import RESULTS
from hfbench.report.frames import ReportData, report_data, values_by_round
from hfbench.report.pages import Block, Column, Heading, Table, bullets, markdown, number, print_page, standard_output
from hfbench.report.speedups import speedups_and_winners
from hfbench.report.words import END_TO_END, MISSING, significant
from hfbench.statistics.spread import node_effects

PAGE = RESULTS / "fleet.md"


def show_kinds(names: Sequence[str], output: Path = PAGE) -> None:
    """Print the page on the kinds of these names, which are those of their experiments, and write it as Markdown."""
    sides = [read_side(name) for name in names]
    page = list(kinds_page(sides))
    print_page(page, standard_output())
    write_text(output, markdown(page) + "\n")


def kinds_page(sides: Sequence[Side]) -> Iterator[Block]:
    """Yield, for each workload, the fastest way of each kind with what it gives, then every way beside each other."""
    found = {side.label: report_data(side.samples, side.summary, side.points, side.configurations) for side in sides}
    yield Heading("The fastest way on each kind of machine", level=2)
    yield _winners(found)
    yield Heading("Every way on each kind: tokens a second, end to end", level=2)
    yield _beside_each_other(found)
    yield Heading("Between the nodes of a kind", level=2)
    yield bullets(_between_nodes(kind, data) for kind, data in found.items())


def _winners(found: dict[str, ReportData]) -> Table:
    rows = []
    for kind, data in found.items():
        for winner in speedups_and_winners(data)[1]:
            row = winner.configuration
            clear = "" if winner.is_clear or not winner.rivals else f"not told apart from {', '.join(winner.rivals)}"
            joules = row.get("energy_joules_per_token")
            rows.append(
                [
                    row["workload"],
                    kind,
                    row["way"],
                    significant(row.get("output_tokens_per_second")),
                    significant(None if not joules else 1 / joules),
                    _percent(row.get("mbu")),
                    _percent(row.get("mfu")),
                    clear,
                ]
            )
    rows.sort(key=lambda row: row[0])
    heads = [
        *(Column("workload"), Column("kind"), Column("fastest")),
        *(number("tokens", "1/s"), number("tokens", "1/J"), number("MBU"), number("MFU"), Column("")),
    ]
    return _without_empty(Table.of_rows(heads, rows))


def _without_empty(table: Table) -> Table:
    """Return the table without columns that say nothing, as the workload where there is one."""
    return replace(table, columns=tuple(column for column in table.columns if any(column.texts)))


def _beside_each_other(found: dict[str, ReportData]) -> Table:
    values: dict[tuple[str, str], dict[str, str]] = {}
    for kind, data in found.items():
        for row in data.rows.iter_rows(named=True):
            cell = significant(row.get("output_tokens_per_second"))
            values.setdefault((row["workload"], row["way"]), {})[kind] = cell
    heads = [Column("workload"), Column("way"), *(number(kind) for kind in found)]
    rows = ([*key, *(cells.get(kind, MISSING) for kind in found)] for key, cells in values.items())
    return _without_empty(Table.of_rows(heads, rows))


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
        return f"{kind}: {len(set(nodes.values()))} node, or too few rounds to tell its nodes from each other"
    named = [
        f"{each.node} takes {each.ratio:.3f} times as long as the others ({each.low:.3f} to {each.high:.3f})"
        for each in effects
        if each.is_out_of_line
    ]
    apart = "; ".join(named) if named else "none is out of line"
    return f"{kind}: {len(effects)} nodes differ by {spread:.1%} (standard deviation); {apart}"


def _percent(value: float | None) -> str:
    return f"{value:.0%}" if value is not None else MISSING
