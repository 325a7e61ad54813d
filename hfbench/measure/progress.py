"""What a person sees while a point is measured: a live line on a terminal, one line a phase elsewhere."""

import shutil
import sys
from statistics import median

from hfbench.core.point import UNIFORM, Configuration
from hfbench.core.record import OK, Iteration, Record

_CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """Writes to standard error, only when something happened: no thread of its own, nothing while the worker runs."""

    def __init__(self, configuration: Configuration) -> None:
        self.label = label(configuration)
        self._live = sys.stderr.isatty()
        self._latencies: list[float] = []

    def phase(self, name: str) -> None:
        """Show that a phase begins, or what it is that the point waits for."""
        self._show(name, permanent=not self._live)

    def iteration(self, iteration: Iteration) -> None:
        """Show the iteration and the running median; on a terminal only."""
        if iteration.phase != "sample":
            self._show(f"{iteration.phase} {iteration.end_to_end_seconds:.3g} s")
            return
        self._latencies.append(iteration.end_to_end_seconds)
        self._show(f"sample {len(self._latencies)}  median {median(self._latencies):.4g} s")

    def finish(self, record: Record, log: str) -> None:
        """Show how the point ended; where it failed, why and where its log is."""
        if record.status == OK:
            latencies = [item.end_to_end_seconds for item in record.iterations if item.phase == "sample"]
            text = f"ok  median {median(latencies):.4g} s end to end, {len(latencies)} iterations"
        else:
            text = f"{record.status}: {record.reason}" + (f"\n  log: {log}" if record.log_tail else "")
        self._show(text, permanent=True)

    def _show(self, text: str, *, permanent: bool = False) -> None:
        line = f"{self.label}  {text}"
        if self._live:
            sys.stderr.write(_CLEAR_LINE + (f"{line}\n" if permanent else _fitted(line)))
        elif permanent:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class NoProgress(Progress):
    """Shows nothing: for a process that is all one phase of a point."""

    def _show(self, text: str, *, permanent: bool = False) -> None:
        """Do nothing."""


def label(configuration: Configuration) -> str:
    """Return the point in one short line of plain text."""
    point = configuration
    options = [
        f"compile {point.compile_mode}" * (point.compile_mode != "off"),
        f"{point.cache_implementation} cache" * (point.cache_implementation != "auto"),
        "kernels" * point.use_kernels,
        "continuous batching" * point.continuous_batching,
        f"prefill by {point.prefill_chunk_size}" * (point.prefill_chunk_size > 0),
        f"{point.request_lengths} requests" * (point.request_lengths != UNIFORM),
    ]
    parts = [
        f"round {point.round}",
        point.model,
        point.attn_implementation,
        *filter(None, options),
        point.dtype,
        f"batch {point.batch_size}",
        f"after {point.context_depth} tokens" * (point.context_depth > 0),
        f"{point.sequence_length}+{point.max_new_tokens} tokens",
    ]
    return " · ".join(filter(None, parts))


def _fitted(line: str) -> str:
    return line[: shutil.get_terminal_size().columns - 1]
