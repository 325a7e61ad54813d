"""How much of the device's bandwidth and matrix rate each configuration uses."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import polars as pl

from hfbench.core.point import CONFIGURATION_AXES, INF, NONE, UNIFORM
from hfbench.core.record import OK
from hfbench.tables.metrics import axes_frame
from hfbench.tables.reading import ReadRecord

# A ceiling that is passed by no more may have been measured in a moment that was not quite quiet: the rates of a quiet
# machine repeat within some percent.
NOISE_OF_CEILINGS = 1.05
FLOAT32 = "float32"


def decode_bytes_per_step(
    needs: Mapping[str, Any], batch_size: int, sequence_length: int, max_new_tokens: int, context_depth: int = 0
) -> float | None:
    """Return the bytes that one decoding step has to read, on average over the steps of a generation.

    bytes = weights + batch_size × (sum over layers of context × bytes_per_token_per_row + state_bytes_per_row)

    Weights are read once for the whole batch, and those of a block that a step goes through again once more.
    `max_new_tokens` n has n - 1 decoding steps (the first token is the prefill's); step j attends to `context_depth` +
    `sequence_length` + j tokens, at most the window of a sliding layer. Writes, activations and embedding rows are left
    out. None where `needs` say why it is unknown, or there is no step. Source: R. Pope et al., Efficiently Scaling
    Transformer Inference (2022), section 2, memory costs.
    """
    before, steps = context_depth + sequence_length, max_new_tokens - 1
    if steps < 1:
        return None
    return _read_bytes(needs, batch_size, batch_size, lambda kind: _attended(kind, before, steps) / steps)


def decode_flops_per_step(
    needs: Mapping[str, Any], batch_size: int, sequence_length: int, max_new_tokens: int, context_depth: int = 0
) -> float | None:
    """Return the FLOPs of one decoding step, on average over the steps of a generation.

    FLOPs = batch_size × (2 × (N + head) + sum over layers of 2 × heads × (key_dim + value_dim) × context)

    N and the context are those of `prefill_flops` and `decode_bytes_per_step`, which have the sources too. None where
    `needs` say why it is unknown, or there is no step.
    """
    before, steps = context_depth + sequence_length, max_new_tokens - 1
    if steps < 1:
        return None
    return _flops(needs, batch_size, 1, lambda kind: _attended(kind, before, steps) / steps)


def prefill_bytes(
    needs: Mapping[str, Any], batch_size: int, sequence_length: int, context_depth: int = 0
) -> float | None:
    """Return the bytes that a prefill has to read: the weights once, and once the keys and values that it attends to.

    Counted as in `decode_bytes_per_step`, with a token in the place of a row for the choice of experts; of a sliding
    window's, those that any token of the prompt attends to. None where `needs` say why it is unknown.
    """

    def keys(kind: Mapping[str, Any]) -> float:
        window = kind["window_tokens"] or inf
        return float(min(context_depth, window - 1) + sequence_length)

    return _read_bytes(needs, batch_size, batch_size * sequence_length, keys)


def _read_bytes(
    needs: Mapping[str, Any], rows: int, tokens: int, keys: Callable[[Mapping[str, Any]], float]
) -> float | None:
    """Return the weight bytes that so many tokens read together, and those of the `keys` of each kind in each row."""
    if needs["unknown"].get("bytes"):
        return None
    cache = needs["cache"]
    per_row = float(cache["state_bytes_per_row"])
    for kind in cache["attention"]:
        per_row += kind["layers"] * kind["bytes_per_token_per_row"] * keys(kind)
    return _weight_bytes(needs, tokens) + rows * per_row


def _weight_bytes(needs: Mapping[str, Any], tokens: int) -> float:
    """Return the weight bytes that so many tokens read together; of experts, those that one is expected to choose.

    If each token chooses its k of E experts independently and uniformly, one leaves an expert out with probability
    1 - k/E, and all with (1 - k/E)^tokens. A router that prefers some experts reads fewer.
    """
    weights = float(needs["dense_weight_bytes"] + needs["repeated_weight_bytes"])
    for each in needs["routed_experts"]:
        weights += each["weight_bytes"] * (1 - (1 - each["experts_per_token"] / each["experts"]) ** tokens)
    return weights


def model_bandwidth_utilisation(bytes_per_step: float, inter_token_seconds: float, bytes_per_second: float) -> float:
    """Return model bandwidth utilisation (MBU): bytes a step / inter-token seconds / the measured read bandwidth.

    Source: Databricks, LLM Inference Performance Engineering: Best Practices (2023): achieved over peak memory
    bandwidth, where achieved is (bytes of parameters + KV cache) / time per output token. Here the peak is measured.
    """
    return bytes_per_step / inter_token_seconds / bytes_per_second


def prefill_flops(
    needs: Mapping[str, Any], batch_size: int, sequence_length: int, context_depth: int = 0
) -> float | None:
    """Return the FLOPs of a prefill of `batch_size` rows of `sequence_length` tokens S, after `context_depth` others D.

    FLOPs = batch_size × (2 × N × S + 2 × head + sum over layers of 2 × heads × (key_dim + value_dim) × pairs)

    N are the matmul parameters a token goes through, as often as it does, with k of E experts and no head: generation
    needs only the last token's logits, so that the head counts once a row. `pairs` are the (query, key) pairs of causal
    attention, in which the keys of the context are there already: S (S + 1) / 2 + S × D, or the sum of min(i, window)
    over i = D + 1 … D + S. None where `needs` say why it is unknown. Sources: J. Kaplan et al., Scaling Laws for Neural
    Language Models (2020), table 1: 2 FLOPs a parameter and token; A. Chowdhery et al., PaLM (2022), appendix B: the
    attention term, 12 L H Q T a token for forward and backward pass and without the causal mask, so 4 L H Q T for the
    forward pass and half of that with it.
    """
    return _flops(needs, batch_size, sequence_length, lambda kind: _attended(kind, context_depth, sequence_length))


def _flops(
    needs: Mapping[str, Any], rows: int, tokens: int, pairs: Callable[[Mapping[str, Any]], float]
) -> float | None:
    """Return the FLOPs of so many tokens in each row, with so many pairs in a layer of each kind, and of one head."""
    if needs["unknown"].get("flops"):
        return None
    parameters = float(needs["dense_matmul_parameters"])
    for each in needs["routed_experts"]:
        parameters += each["matmul_parameters"] * each["experts_per_token"] / each["experts"]
    per_row: float = 2 * (parameters * tokens + needs["head_matmul_parameters"])
    for kind in needs["cache"]["attention"]:
        per_row += kind["layers"] * 2 * kind["query_heads"] * (kind["key_dim"] + kind["value_dim"]) * pairs(kind)
    return rows * per_row


def model_flops_utilisation(flops: float, time_to_first_token_seconds: float, flops_per_second: float) -> float:
    """Return model FLOPs utilisation (MFU) of a prefill: its FLOPs / seconds / the measured matrix-product rate.

    The seconds are those to the first token, which hold the whole prefill and little else.
    Source: A. Chowdhery et al., PaLM (2022), section 4.1 and appendix B: observed over theoretical peak throughput,
    with the FLOPs that the model needs and not those that an implementation repeats. Here the peak is measured.
    """
    return flops / time_to_first_token_seconds / flops_per_second


def read_ceiling(ceilings: Mapping[str, Any], working_set_bytes: float) -> float | None:
    """Return the read bandwidth in bytes/s that `working_set_bytes`, read over and over, can have at most.

    What fits in a cache is read faster than from memory. So this is the best rate among the measured sizes, from the
    largest that is not above the working set upwards; below all sizes, the best of all. None where none was measured.
    """
    rates = {int(size): rate for size, rate in (ceilings.get("read_bytes_per_second_by_size") or {}).items()}
    smaller = [size for size in rates if size <= working_set_bytes]
    return max((rate for size, rate in rates.items() if size >= max(smaller, default=0)), default=None)


def matmul_ceiling(ceilings: Mapping[str, Any], dtype: str) -> float | None:
    """Return the matrix-product rate in FLOP/s of a dtype, or None where it was not measured."""
    rate: float | None = (ceilings.get("matmul_flops_per_second") or {}).get(dtype)
    return rate


def _attended(kind: Mapping[str, Any], before: int, tokens: int) -> int:
    """Return how many keys so many tokens attend to together, each to itself and to all before it in the window."""
    window = kind["window_tokens"]
    contexts = range(before + 1, before + tokens + 1)
    return sum(contexts) if window is None else sum(min(context, window) for context in contexts)


def _beside_float32(ceilings: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return FLOP/s of a dtype that is slower than float32, and of float32: of the fastest product and of one row's.

    `dtype_emulated` is whether the processor has no products of it, and not only slow ones. Empty for any other dtype.
    """
    if dtype not in ceilings.get("slower_than_float32", ()):
        return {}
    fastest, of_row = ceilings["matmul_flops_per_second"], ceilings["single_row_flops_per_second"]
    return {
        "dtype_emulated": dtype in ceilings["emulated_dtypes"],
        "dtype_flops_per_second": fastest[dtype],
        "float32_flops_per_second": fastest[FLOAT32],
        "dtype_row_flops_per_second": of_row[dtype],
        "float32_row_flops_per_second": of_row[FLOAT32],
    }


_DRAFTED = "a step of assisted decoding computes as many tokens as were drafted, and drafting has needs of its own"
_ABOVE_CEILING = "it would be above what the device was measured to reach at most"
# Where a phase stands beside its roof: FLOPs that it needs for each byte that it needs, the rates reached and the
# device's for reading as many bytes; and how many times a ceiling it would be.
_OF_PHASE = (
    *("flops_per_byte", "flops_per_second", "roof_bytes_per_second"),
    *("bandwidth_above_roof", "products_above_roof"),
)
_RATES = ("roof", "dtype", "float32", "dtype_row", "float32_row")
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("mbu", "mfu"), pl.Float64),
    **{f"{phase}_{name}": pl.Float64 for phase in ("decode", "prefill") for name in _OF_PHASE},
    **{f"{name}_flops_per_second": pl.Float64 for name in _RATES},
    **dict.fromkeys(("mbu_unknown", "mfu_unknown"), pl.String),
    **dict.fromkeys(("rows_choose_experts", "dtype_emulated"), pl.Boolean),
    "ceilings_others_cpu_share": pl.Float64,
}


def utilisation_table(
    records: Sequence[ReadRecord], summary: pl.DataFrame, ceilings: Mapping[str, Any]
) -> pl.DataFrame:
    """Return, for each configuration of known needs, `mbu` of decoding, `mfu` of prefill, and their roofline.

    The first two are fractions of 1, from the estimates in the summary and what `ceilings` say; the roofline has, for
    decode and prefill, PHASE_flops_per_byte, PHASE_flops_per_second and PHASE_roof_bytes_per_second, and
    roof_flops_per_second of the dtype. Null is what is unknown (the formulas: `hfbench.tables.roofline`), for which
    `mbu_unknown` and `mfu_unknown` have the reason, unless it is that nothing was measured.

    A number above its ceiling contradicts it, so that one of them is wrong: it is withheld. PHASE_bandwidth_above_roof
    and PHASE_products_above_roof say how many times the ceiling it would be, and are null where it is not above. What
    may have caused it stands beside it: whether several rows choose experts, and how much of the CPUs others took
    while the ceilings were measured. A dtype that is slower than float32 has the rates of both.

    All is null where requests come and go: the formulas are of steps and prefills that are alike.
    """
    known = [record for record in records if record.facts["status"] == OK and record.needs]
    axes = axes_frame(record.configuration for record in known).drop("round")
    first = axes.to_struct().is_first_distinct().arg_true().to_list()
    estimates = summary.pivot("metric", index=CONFIGURATION_AXES, values="estimate")
    rows = axes[first].join(estimates, on=CONFIGURATION_AXES, how="left", maintain_order="left").to_dicts()
    values = [_utilisation(known[index].needs, row, ceilings) for index, row in zip(first, rows, strict=True)]
    return pl.concat([axes[first], pl.DataFrame(values, schema=_TYPES)], how="horizontal")


def _utilisation(needs: Mapping[str, Any], row: Mapping[str, Any], ceilings: Mapping[str, Any]) -> dict[str, Any]:
    beside_float32 = _beside_float32(ceilings, row["dtype"])
    if row["assistant"] != NONE:
        return {**beside_float32, **dict.fromkeys(("mbu_unknown", "mfu_unknown"), _DRAFTED)}
    if row["request_lengths"] != UNIFORM or row["request_rate"] != INF:
        return beside_float32
    ceilings = _of_devices(ceilings, row["tp_size"])
    lengths, depth = (row["batch_size"], row["sequence_length"]), row["context_depth"]
    steps = (*lengths, row["max_new_tokens"], depth)
    prompt_rate = row.get("prefill_tokens_per_second")
    # Until the last row has its first token: with `generate` all have it at once.
    prefill_seconds = lengths[0] * lengths[1] / prompt_rate if prompt_rate else None
    flops, read = decode_flops_per_step(needs, *steps), decode_bytes_per_step(needs, *steps)
    decode = _phase(flops, read, row.get("inter_token_seconds"), row["dtype"], ceilings)
    flops, read = prefill_flops(needs, *lengths, depth), prefill_bytes(needs, *lengths, depth)
    prefill = _phase(flops, read, prefill_seconds, row["dtype"], ceilings)
    mbu_above, mfu_above = decode["bandwidth_above_roof"], prefill["products_above_roof"]
    return {
        "mbu": decode["mbu"],
        "mfu": prefill["mfu"],
        **{f"decode_{name}": value for name, value in decode.items()},
        **{f"prefill_{name}": value for name, value in prefill.items()},
        "roof_flops_per_second": matmul_ceiling(ceilings, row["dtype"]),
        "mbu_unknown": needs["unknown"].get("bytes", _ABOVE_CEILING if mbu_above else None),
        "mfu_unknown": needs["unknown"].get("flops", _ABOVE_CEILING if mfu_above else None),
        "rows_choose_experts": bool(needs["routed_experts"]) and row["batch_size"] > 1,
        "ceilings_others_cpu_share": ceilings.get("others_cpu_share"),
        **beside_float32,
    }


def _of_devices(ceilings: Mapping[str, Any], count: int) -> Mapping[str, Any]:
    """Return what so many devices can do at most together; processes on a CPU share the one that was measured.

    Each reads its part of what is read, so that the sizes are of all parts.
    """
    if count == 1 or ceilings.get("device") == "cpu":
        return ceilings
    reads, products = (
        ceilings.get(name) or {} for name in ("read_bytes_per_second_by_size", "matmul_flops_per_second")
    )
    return {
        **ceilings,
        "read_bytes_per_second_by_size": {int(size) * count: rate * count for size, rate in reads.items()},
        "matmul_flops_per_second": {dtype: rate and rate * count for dtype, rate in products.items()},
    }


def _phase(
    flops: float | None, read_bytes: float | None, seconds: float | None, dtype: str, ceilings: Mapping[str, Any]
) -> dict[str, float | None]:
    """Return the `_OF_PHASE` of a decoding step or a prefill that needs so many FLOPs and bytes and took these seconds.

    Beside them stand its utilisations; what it reached is left out where that is above a roof.
    """
    roof, rate = None if read_bytes is None else read_ceiling(ceilings, read_bytes), matmul_ceiling(ceilings, dtype)
    mbu = mfu = None
    if read_bytes is not None and seconds and roof:
        mbu = model_bandwidth_utilisation(read_bytes, seconds, roof)
    if flops is not None and seconds and rate:
        mfu = model_flops_utilisation(flops, seconds, rate)
    above = [share if share is not None and share > 1 else None for share in (mbu, mfu)]
    return {
        "mbu": None if above[0] else mbu,
        "mfu": None if above[1] else mfu,
        "bandwidth_above_roof": above[0],
        "products_above_roof": above[1],
        "flops_per_byte": flops / read_bytes if flops is not None and read_bytes else None,
        "flops_per_second": flops / seconds if flops is not None and seconds and not any(above) else None,
        "roof_bytes_per_second": roof,
    }
