"""Warming up and sampling: which iterations run, and when it is enough."""

import dataclasses
import gc
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import islice
from math import comb, log
from statistics import median
from types import MappingProxyType
from typing import Protocol

import numpy as np

from hfbench.core.record import FEWEST_SAMPLES, Iteration, Sampling
from hfbench.measure.failure import WrongTokenCountError
from hfbench.measure.generation import Call, Probe, Run
from hfbench.measure.process import Reporter

CONFIDENCE = 0.95
# Five values have no 95% interval of their median at all: their range encloses it in 1 - 2/2^5 = 93.75%.
FEWEST_VALUES = 6
# Of the 5% that all looks together may miss, what the first may: six values miss 2/2^6 = 3.125%, and most
# configurations on a quiet machine need no more than six.
FIRST_LOOK_SHARE = 0.65


class StoppingRule(Protocol):
    """A stopping rule: pure, and knowing nothing but these two."""

    def __call__(self, latencies: Sequence[float], sampling: Sampling, /) -> str | None:
        """Return why to stop, or None to go on.

        `latencies` are the end-to-end seconds of the instrumented iterations so far.
        """


def reason_to_stop(latencies: Sequence[float], next_end_seconds: float, sampling: Sampling) -> str | None:
    """Return why to stop, or None to go on: by the rule that `sampling.stopping_rule` names, or for want of time.

    Time is up where one more iteration would end after `max_seconds`: at `next_end_seconds` after the warm-up began, if
    it takes as long as those so far. That holds against every rule but for the first `FEWEST_SAMPLES`.
    """
    reason = RULES[sampling.stopping_rule](latencies, sampling)
    if reason is not None or len(latencies) < FEWEST_SAMPLES:
        return reason
    return Sampling.OUT_OF_TIME if next_end_seconds > sampling.max_seconds else None


def fixed(latencies: Sequence[float], sampling: Sampling) -> str | None:
    """Stop after `min_iterations`, whatever they show."""
    return "min_iterations reached" if len(latencies) >= sampling.min_iterations else None


def precision(latencies: Sequence[float], sampling: Sampling) -> str | None:
    """Stop where the median is known well enough, or at `max_iterations`; never before `min_iterations`."""
    count = len(latencies)
    if count < sampling.min_iterations:
        return None
    reached = relative_precision(latencies, sampling)
    if reached is not None and reached <= sampling.target_precision:
        return "target_precision reached"
    return "max_iterations reached" if count >= sampling.max_iterations else None


RULES: Mapping[str, StoppingRule] = MappingProxyType({"fixed": fixed, "precision": precision})


def relative_precision(latencies: Sequence[float], sampling: Sampling) -> float | None:
    """Return the half-width of the median's interval over the median; None where there are too few values."""
    interval = sequential_interval(latencies, sampling.min_iterations, sampling.max_iterations)
    if interval is None:
        return None
    low, high = interval
    return (high - low) / 2 / median(latencies)


def sequential_interval(values: Sequence[float], first: int, last: int) -> tuple[float, float] | None:
    """Return an interval of the median that holds although it is looked at after each of `first` to `last` values.

    Looking again and again until an interval of 95% is narrow finds the moments at which it is narrow by luck: it then
    encloses the median in less than 95%. Here the intervals at all looks enclose it *together* with 95%, so the one at
    which a rule stops does, whatever the rule. It takes no distribution for granted: the interval lies between the k-th
    smallest and the k-th largest value. None for fewer than six values, or fewer than `first`.

    Source: C. Jennison and B. W. Turnbull, Repeated confidence intervals for group sequential clinical trials,
    Controlled Clinical Trials 5 (1984) 33.
    """
    count = len(values)
    first = max(first, FEWEST_VALUES)
    if count < first:
        return None
    known, further = _ranks(first, max(first, last))
    known.extend(islice(further, max(0, count - first + 1 - len(known))))
    rank, ordered = known[count - first], sorted(values)
    return ordered[rank - 1], ordered[-rank]


@cache
def _ranks(first: int, last: int) -> tuple[list[int], Iterator[int]]:
    """Return the ranks of as many values as were asked for yet, from `first` on, and what gives those of more."""
    return [], _next_ranks(first, last)


def _next_ranks(first: int, last: int) -> Iterator[int]:
    """Yield the rank k of the interval for each number of values, from `first` to `last` and beyond.

    How many of n values lie below the true median is a fair random walk, and the interval of rank k misses the median
    where fewer than k lie below it, or above. So the walk is followed exactly: `walk` holds the probability of each
    count without a miss so far, and at each look k is the largest with which the misses stay within what may be spent
    by then. That begins with `FIRST_LOOK_SHARE` and grows with the logarithm of the number of values (K. K. G. Lan and
    D. L. DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70 (1983) 659).
    """
    walk = np.array([comb(first, below) / 2**first for below in range(first + 1)])
    missed = 0.0
    for count in itertools.count(first):
        if count > first:
            walk = (np.append(walk, 0.0) + np.append(0.0, walk)) / 2
        progress = min(1.0, log(count / first) / log(last / first)) if last > first else 1.0
        spendable = (1 - CONFIDENCE) * (FIRST_LOOK_SHARE + (1 - FIRST_LOOK_SHARE) * progress)
        rank = 0
        while missed + 2 * walk[rank] <= spendable and rank < count // 2:
            missed += 2 * walk[rank]
            walk[rank] = walk[count - rank] = 0.0
            rank += 1
        yield rank


# The coefficient of variation below which A. Georges, D. Buytaert and L. Eeckhout, Statistically Rigorous Java
# Performance Evaluation (OOPSLA 2007), section 4, call a process steady is 1 or 2%.
NOTABLE = 0.02
# One that is no faster happens by chance one time in six or more on a falling curve whose steps are as small as the
# noise; two in a row seldom do.
CONSECUTIVE = 2
FEWEST_ITERATIONS = CONSECUTIVE + 1


def is_steady(latencies: Sequence[float]) -> bool:
    """Return whether the last two of the warm-up's latencies, in seconds, brought nothing notable any more.

    That is: neither was faster than every one before it by more than 2%. While a process warms up each iteration is a
    new record; once it is steady, records become rare whatever the noise, the n-th being one with probability 1/n. So
    noise ends this test instead of prolonging it, as it does with a limit on the coefficient of variation, which on a
    machine with 5% of noise is never met. Source for records as a test of trend: F. G. Foster and A. Stuart,
    Distribution-free tests in time-series based on the breaking of records, JRSS B 16 (1954) 1.

    Fewer than three latencies are never steady. Latencies that rise are: that is no warm-up, and a trend among the
    samples is found as drift.
    """
    if len(latencies) < FEWEST_ITERATIONS:
        return False
    newest = range(len(latencies) - CONSECUTIVE, len(latencies))
    return all(latencies[index] >= (1 - NOTABLE) * min(latencies[:index]) for index in newest)


class Sampler:
    """Runs iterations of one prepared call and reports each; `new_tokens` is what each request must get, exactly.

    What is decided by the clock is decided by what `agreed` makes of its reading: the same on all ranks of a point.
    """

    def __init__(
        self,
        call: Run,
        new_tokens: tuple[int, ...],
        reporter: Reporter,
        agreed: Callable[[float], float] = float,
    ) -> None:
        self._agreed = agreed
        self._call = call
        self._new_tokens = new_tokens
        self._reporter = reporter
        self._latencies: list[float] = []  # of the first call and the warm-up
        self._began: float | None = None  # when the warm-up did, which shares `max_seconds` with the samples

    def first_call(self) -> Call:
        """Run the first iteration, which holds compilation."""
        iteration, call = self._run("first", observed=True)
        self._latencies.append(self._agreed(iteration.end_to_end_seconds))
        return call

    def warm_up(
        self, sampling: Sampling, probe: Probe | None = None, expected_seconds: float = 0.0, at_least: int = 0
    ) -> bool:
        """Run full-length iterations, which are recorded and count for nothing, until they are steady.

        The first call counts as one of them. Return whether they were before `max_warmup_iterations` was reached, or
        before there was no time left for one more and `FEWEST_SAMPLES`: the last one tells how long that takes, before
        the first `expected_seconds`. The probe looks into the first. There are `at_least` so many, whatever they take.
        """
        self._began = time.perf_counter()
        expected = self._agreed(expected_seconds)
        for iterations in range(max(at_least, sampling.max_warmup_iterations)):
            if iterations >= max(at_least, sampling.min_warmup_iterations) and is_steady(self._latencies):
                return True
            start = time.perf_counter()
            is_late = self._agreed(start - self._began) + (1 + FEWEST_SAMPLES) * expected > sampling.max_seconds
            if is_late and iterations >= at_least:
                break
            iteration, _ = self._run("warmup", observed=True, probe=None if iterations else probe)
            expected = self._agreed(time.perf_counter() - start)  # filling a context is part of it
            self._latencies.append(self._agreed(iteration.end_to_end_seconds))
        return is_steady(self._latencies)

    def sample(self, sampling: Sampling, min_seconds: float = 0.0) -> str:
        """Run iterations until the stopping rule says enough, and return its reason; not before `min_seconds`.

        Every `unobserved_every`-th one runs without the token observer, so that the observer's cost is known; those do
        not count for the rule. `max_seconds` holds for the warm-up and the samples together.
        """
        latencies: list[float] = []
        began = time.perf_counter()
        since = began if self._began is None else self._began
        for index in range(1, 10**9):
            observed = sampling.unobserved_every == 0 or index % sampling.unobserved_every != 0
            iteration = self._run("sample", observed)[0]
            if observed:
                latencies.append(self._agreed(iteration.end_to_end_seconds))
            now = time.perf_counter()
            sampled, spent = self._agreed(now - began), self._agreed(now - since)
            if sampled < min_seconds and spent < sampling.max_seconds:
                continue  # without a look: each is as long as there are iterations, of which there may be thousands
            reason = reason_to_stop(latencies, spent + sampled / index, sampling)
            if reason is not None:
                return reason
        raise AssertionError("the stopping rule never stopped")

    def _run(self, phase: str, observed: bool, probe: Probe | None = None) -> tuple[Iteration, Call]:
        with _garbage_collected_before():
            call = self._call(observed, probe)
        iteration = Iteration(
            phase=phase,
            observed=observed,
            start_seconds=self._reporter.since_start(call.start),
            end_to_end_seconds=_nanoseconds(call.last_token - call.start),
            call_seconds=_nanoseconds(call.end - call.start),
            new_tokens=tuple(len(tokens) for tokens in call.tokens),
            token_seconds=tuple(tuple(_nanoseconds(at - call.start) for at in times) for times in call.token_times),
            arrival_seconds=tuple(_nanoseconds(at - call.start) for at in call.arrivals),
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
