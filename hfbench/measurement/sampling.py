"""Warming up and sampling: which iterations run, and when it is enough."""

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hfbench.foundation.records import Iteration, Sampling
from hfbench.measurement.channel import Reporter
from hfbench.measurement.failure import WrongTokenCountError
from hfbench.measurement.generation import Call
from hfbench.measurement.steadiness import is_steady
from hfbench.measurement.stopping import reason_to_stop


class Sampler:
    """Runs iterations of one prepared call and reports each; `new_tokens` is what each request must get, exactly."""

    def __init__(self, call: Callable[[bool], Call], new_tokens: tuple[int, ...], reporter: Reporter) -> None:
        self._call = call
        self._new_tokens = new_tokens
        self._reporter = reporter
        self._latencies: list[float] = []  # of the first call and the warm-up

    def first_call(self) -> Call:
        """Run the first iteration, which holds compilation."""
        iteration, call = self._run("first", observed=True)
        self._latencies.append(iteration.end_to_end_seconds)
        return call

    def warm_up(self, sampling: Sampling) -> bool:
        """Run full-length iterations, which are recorded and count for nothing, until they are steady.

        The first call counts as one of them. Return whether they were before `max_warmup_iterations` was reached.
        """
        for iterations in range(sampling.max_warmup_iterations):
            if iterations >= sampling.min_warmup_iterations and is_steady(self._latencies):
                return True
            self._latencies.append(self._run("warmup", observed=True)[0].end_to_end_seconds)
        return is_steady(self._latencies)

    def sample(self, sampling: Sampling) -> str:
        """Run iterations until the stopping rule says enough, and return its reason.

        Every `unobserved_every`-th one runs without the token observer, so that the observer's cost is known; those do
        not count for the rule.
        """
        latencies: list[float] = []
        began = time.perf_counter()
        for index in range(1, 10**9):
            observed = sampling.unobserved_every == 0 or index % sampling.unobserved_every != 0
            iteration = self._run("sample", observed)[0]
            if observed:
                latencies.append(iteration.end_to_end_seconds)
            reason = reason_to_stop(latencies, time.perf_counter() - began, sampling)
            if reason is not None:
                return reason
        raise AssertionError("the stopping rule never stopped")

    def _run(self, phase: str, observed: bool) -> tuple[Iteration, Call]:
        with _garbage_collected_before():
            call = self._call(observed)
        iteration = Iteration(
            phase=phase,
            observed=observed,
            start_seconds=self._reporter.since_start(call.start),
            end_to_end_seconds=_nanoseconds(call.last_token - call.start),
            call_seconds=_nanoseconds(call.end - call.start),
            new_tokens=tuple(len(tokens) for tokens in call.tokens),
            token_seconds=tuple(tuple(_nanoseconds(at - call.start) for at in times) for times in call.token_times),
        )
        self._reporter.iteration(dataclasses.asdict(iteration))
        self._check(iteration)
        return iteration, call

    def _check(self, iteration: Iteration) -> None:
        times = tuple(len(times) for times in iteration.token_seconds)
        if len(times) == 1:  # of rows in step
            times *= len(self._new_tokens)
        for counts in (iteration.new_tokens, times or self._new_tokens):
            if len(counts) != len(self._new_tokens):
                raise WrongTokenCountError(f"an iteration had {len(counts)} requests, not {len(self._new_tokens)}")
            for count, wanted in zip(counts, self._new_tokens, strict=True):
                if count != wanted:
                    raise WrongTokenCountError(f"an iteration gave {count} new tokens instead of {wanted}")


@contextmanager
def _garbage_collected_before() -> Iterator[None]:
    """Collect garbage before the iteration and not during it, so that no pause of Python's lands in a sample.

    The model's own objects were frozen after loading and cost nothing here.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _nanoseconds(seconds: float) -> float:
    """Drop digits below a nanosecond, which the clock does not have."""
    return round(seconds, 9)
