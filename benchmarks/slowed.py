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
_WORKER = "worker"


def main() -> None:
    """Run the stage with this module as its worker, or be that worker."""
    if sys.argv[1] == _WORKER:
        del sys.argv[1]
        _slow_down(float(os.environ[SHARE]))
        from hfbench.measure.worker import main as work

        work()
        sys.stdout.flush()
        os._exit(0)  # as the worker itself ends
    from hfbench.measure import process
    from stages import measure

    process._WORKER = (__name__ if __spec__ is None else __spec__.name, _WORKER)
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
