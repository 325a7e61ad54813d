"""Stage `tables`: the tables and the headline numbers of the current sweep, from its measurement records."""

from hfbench.core.errors import run
from hfbench.core.files import read_json, write_json
from hfbench.core.results import CEILINGS, MEASUREMENTS, METRICS, METRICS_BY_POINT, PARAMS, TABLES
from hfbench.params.schema import load_params
from hfbench.tables.build import build_tables, headline, headline_by_point
from hfbench.tables.reading import read_records


def main() -> None:
    params = load_params(PARAMS)
    tables = build_tables(read_records(MEASUREMENTS, params.points()), read_json(CEILINGS), params.limits)
    tables.write(TABLES)
    write_json(METRICS, headline(tables))
    write_json(METRICS_BY_POINT, headline_by_point(tables))


if __name__ == "__main__":
    run(main)
