"""The command `hfbench doctor`: is this machine fit to measure what params.yaml asks for?"""

from pathlib import Path

from hfbench.doctor.collect import collect
from hfbench.doctor.examine import examine
from hfbench.doctor.render import print_findings
from hfbench.foundation.params import load_params


def doctor(params: Path, results: Path, *, strict: bool = False) -> int:
    """Check the machine, print what was found and what to do, and return the exit status.

    It is 0 whatever is found, since a laptop's numbers are worth having too; with `strict`, which is for scripts, it
    is 1 where there is a warning. Raises `UserError` where params.yaml is missing or wrong.
    """
    findings = examine(collect(load_params(params), results))
    print_findings(findings)
    return int(strict and any(finding.level == "warning" for finding in findings))
