"""The process that profiles: started for one point, it leaves a trace and a profile, and ends.

`python -m hfbench.profile.tracer TRACE PROFILE` reads its task as JSON from standard input.
"""

import json
import os
import sys
import traceback
from pathlib import Path

from hfbench.core.errors import UserError
from hfbench.measure.failure import reason_of, status_of
from hfbench.measure.task import Task
from hfbench.profile.outcome import Profile
from hfbench.workers.forked import die_with_parent


def main() -> None:
    """Profile the task and write how it ended; exits 0 unless the process itself is broken."""
    die_with_parent()
    task, phases = Task.from_json(json.load(sys.stdin)), ["import"]
    trace, path = map(Path, sys.argv[1:3])
    try:
        from hfbench.profile.session import trace_point

        profile = trace_point(task, trace, phases.append)
    except UserError as error:
        profile = Profile("user error", str(error), phases[-1])
    except Exception as error:
        traceback.print_exc()
        profile = Profile(status_of(error, phases[-1]), reason_of(error), phases[-1])
    profile.save(path)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # all is written: interpreter and device need no orderly shutdown


if __name__ == "__main__":
    main()
