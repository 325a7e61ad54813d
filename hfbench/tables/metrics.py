"""The metrics: name, unit, which direction is better, and how each is defined."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One quantity that the summary has a row for; `definition` is the sentence that the report shows."""

    name: str
    unit: str
    higher_is_better: bool
    definition: str


METRICS = (
    Metric(
        "end_to_end_seconds",
        "s",
        False,
        "From the start of the call to its return (generate) or to its last token (continuous batching), "
        "in the iterations with the token observer.",
    ),
    Metric(
        "end_to_end_unobserved_seconds",
        "s",
        False,
        "The same in the iterations without the token observer; the difference is what observing costs.",
    ),
    Metric(
        "time_to_first_token_seconds",
        "s",
        False,
        "From the start of the call, when all requests arrive, to the first new token, waiting for others included; "
        "the median over the requests where they do not advance in step (continuous batching, or unequal lengths).",
    ),
    Metric(
        "time_to_first_token_p95_seconds",
        "s",
        False,
        "The same for the 95th percentile of the requests, where they do not advance in step.",
    ),
    Metric(
        "inter_token_seconds",
        "s",
        False,
        "Mean gap between an iteration's consecutive tokens, (last − first) / (n − 1) for n new tokens; "
        "the median over the requests where they do not advance in step.",
    ),
    Metric(
        "inter_token_gap_seconds",
        "s",
        False,
        "Every single gap between two consecutive tokens, of all iterations (and requests) together.",
    ),
    Metric(
        "decode_tokens_per_second",
        "tokens/s",
        True,
        "New tokens after the first one, of all rows or requests, per second between the first token and the last.",
    ),
    Metric(
        "output_tokens_per_second",
        "tokens/s",
        True,
        "New tokens that the rows or requests asked for, per second of the end-to-end latency.",
    ),
    Metric(
        "prefill_tokens_per_second",
        "tokens/s",
        True,
        "Prompt tokens of all rows of the batch per second from the start of the call until every row or request "
        "has its first new token. None where more requests come than run at a time, and some wait for others to end.",
    ),
    Metric(
        "padding_waste_share",
        "share",
        False,
        "With requests of unequal lengths, the share of the token positions that the model computed for padding or for "
        "new tokens beyond a request's own, 1 − Σ (p + n − 1) / Σ rows × (P + N − 1): p and n are a request's prompt "
        "and new tokens, P and N the most in its padded batch. 0 for continuous batching, unless it pads for graphs.",
    ),
    Metric("load_seconds", "s", False, "Loading the model, once in each round's fresh process."),
    Metric(
        "first_call_seconds",
        "s",
        False,
        "The first call of a fresh process, which holds compilation; once in each round, and no part of the samples.",
    ),
    Metric(
        "compile_seconds",
        "s",
        False,
        "What torch.compile took in a fresh process with empty caches, once in each round; part of the first call.",
    ),
    Metric(
        "warm_first_call_seconds",
        "s",
        False,
        "The first call of a second process, which finds the caches that compiling filled; once in each round.",
    ),
    Metric(
        "warm_compile_seconds",
        "s",
        False,
        "What torch.compile took in that second process; part of its first call.",
    ),
    Metric(
        "peak_memory_bytes",
        "bytes",
        False,
        "The most memory used in a round: resident set of the process on the CPU, torch's share on an accelerator.",
    ),
    Metric(
        "energy_joules_per_token",
        "J/token",
        False,
        "Energy of the device while samples were taken, over the tokens made meanwhile; once in each round, and only "
        "where the machine tells.",
    ),
)
METRIC_NAMES = tuple(metric.name for metric in METRICS)
