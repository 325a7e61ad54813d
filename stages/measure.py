"""Stage `measure`: one configuration, in a process of its own, into one record."""

import time

CLOCK_ZERO = time.perf_counter()  # before anything else is imported: the timeline of the record counts from here

from hfbench.core.errors import run  # noqa: E402
from hfbench.measure.supervisor import measure  # noqa: E402
from hfbench.measure.task import parse_task  # noqa: E402


def main() -> None:
    measure(parse_task(), CLOCK_ZERO)


if __name__ == "__main__":
    run(main)
