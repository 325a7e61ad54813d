"""What is known of one configuration over its rounds, as far as a warning may need it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Facts:
    """One configuration with at least one round that is ok; only such rounds count, but for `rounds_asked`.

    None stands for what the records do not tell; no warning follows from it. Ratios, shares and utilisations are
    fractions of 1.
    """

    rounds_asked: int
    rounds_ok: int

    # The median end-to-end latency. The precision is half the 95% interval over the median.
    target_precision: float | None = None  # None where the stopping rule asks for none
    precision: float | None = None
    rounds_ended_early: int = 0  # at the most iterations or seconds, before the target was reached
    drifting_rounds: int = 0
    largest_drift: float | None = None  # from the first iteration to the last
    bimodal: bool = False
    lower_mode: float | None = None  # seconds
    upper_mode: float | None = None

    # The processes.
    rounds_never_steady: int = 0
    recompiles_while_sampling: int = 0
    inter_token_seconds: float | None = None
    clock_resolution_seconds: float | None = None
    observer_cost_ratio: float | None = None  # with the token observer over without, and its 95% interval
    observer_cost_low: float | None = None
    observer_cost_high: float | None = None

    # The machine: the worst of the rounds, while they sampled unless the name says otherwise.
    throttle_reasons: Sequence[str] = ()
    rounds_throttled: int = 0
    quota_throttled_share: float | None = None  # CPU seconds that a container's limit withheld, over seconds
    other_processes: int | None = None  # on the accelerator
    others_cpu_share: float | None = None  # of all CPUs
    cpu_share_before: float | None = None  # of all CPUs, just before a worker started
    swap_used_bytes: int | None = None
    clock_spread: float | None = None  # (highest - lowest) / median, of the device's clock

    # The output.
    reference: str | None = None
    top1_agreement: float | None = None
    nll_difference: float | None = None
    first_different_token: int | None = None
    output_differs: bool = False
    min_top1_agreement: float | None = None
    max_nll_difference: float | None = None
    rounds_disagreeing: int = 0  # whose output is not that of the first round

    # Model bandwidth utilisation of decoding, model FLOPs utilisation of prefill.
    mbu: float | None = None
    mfu: float | None = None
