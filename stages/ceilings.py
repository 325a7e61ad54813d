"""Stage `ceilings`: what the device can do at most."""

import argparse
import os

from hfbench.core.errors import say
from hfbench.core.files import read_json, write_json
from hfbench.core.results import CEILINGS, DTYPES, ENVIRONMENT
from hfbench.core.system import thread_variables
from hfbench.monitoring.devices import vendors_of
from hfbench.workers.forked import run_stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True)
    device = parser.parse_args().device
    say("ceilings: measuring what the device can do at most")
    os.environ |= thread_variables()
    from hfbench.ceilings.rates import measure_ceilings  # only now: torch reads the variables when it is imported

    known = read_json(ENVIRONMENT)
    emulated, among = known["cpu"]["emulated_dtypes"], vendors_of(known.get("accelerators", []))
    write_json(CEILINGS, measure_ceilings(device, read_json(DTYPES), emulated, among))


if __name__ == "__main__":
    run_stage(main, starts_server=False)  # the points have started one, if any were measured
