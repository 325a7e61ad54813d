"""A measurement with a planted slowdown: the model waits after each forward pass, in proportion to what that took.

It keeps its core while it waits. A virtual machine that idles gives the core back and finds it cold or taken: with
`time.sleep`, 20% planted became 30% and processes scattered by 17%, against 21% and 7% (9 processes each, interleaved).

`HFBENCH_PLANTED_SLOWDOWN=0.05 python -m benchmarks.slowed …` takes the arguments of `stages.measure`.
"""

import os
import sys
import time
from typing import Any

SHARE = "HFBENCH_PLANTED_SLOWDOWN"
_WORKER, _SERVER = "worker", "server"


def main() -> None:
    """Run the stage with this module as its worker, or as the server that forks its worker, or be one of them."""
    if sys.argv[1] in (_WORKER, _SERVER):
        role = sys.argv.pop(1)
        _slow_down(float(os.environ[SHARE]))
        if role == _WORKER:
            from hfbench.measure.worker import main as work
        else:
            from hfbench.workers.forkserver import main as work
        work()
        sys.stdout.flush()
        os._exit(0)  # as the worker itself ends
    from hfbench.measure import process
    from hfbench.workers import forked
    from stages import measure

    name = __name__ if __spec__ is None else __spec__.name
    process._WORKER, forked.SERVER = (name, _WORKER), (name, _SERVER)
    measure.main()


def _slow_down(share: float) -> None:
    from transformers import PreTrainedModel

    depth = 0

    def slowed(self: PreTrainedModel, *arguments: Any, **options: Any) -> Any:
        nonlocal depth
        depth += 1
        start = time.perf_counter()
        try:
            return super(PreTrainedModel, self).__call__(*arguments, **options)
        finally:
            depth -= 1
            if depth == 0:  # a causal model calls its decoder, which is such a model too
                now = time.perf_counter()
                end = now + share * (now - start)
                while time.perf_counter() < end:
                    pass

    PreTrainedModel.__call__ = slowed  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
