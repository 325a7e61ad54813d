"""What the records of a point say: what was asked for, what ran and what proves it, readings, requests and phases."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from statistics import median
from typing import Any

from hfbench.core.point import AXIS_TABLE, UNIFORM, USUAL, WAY_AXES
from hfbench.core.record import OK, Record
from hfbench.report.words import MISSING, axis_text, counted, significant
from hfbench.tables.agreement import Output
from hfbench.tables.facts import kernel_origin, mean_gap, timed_requests

_MIB = 2**20
# A name ends with its unit; bytes are shown in MiB, and what is counted from the machine's start as its increase.
_UNITS = {
    "bytes": "MiB",
    "percent": "%",
    "celsius": "°C",
    "mhz": "MHz",
    "watts": "W",
    "joules": "J",
    "seconds": "s",
    "cores": "cores",
}
_COUNTERS = ("_joules", "_seconds", "_count")
_UNSHOWN = ("throttle_mask",)  # bits, of which the warnings name the reasons


def readings(records: Sequence[Record]) -> list[tuple[str, str, list[float], bool]]:
    """Return the name, unit, values and kind of what the host and each device read; nothing for what was never read.

    Values are in the unit, the rounds after each other; those of a counter, whose kind is True, are its increases in
    each round.
    """
    series: dict[str, list[list[float]]] = {}
    for record in records:
        for name, values in _columns(record.monitoring):
            known = [value for value in values if value is not None]
            if known and not name.endswith(_UNSHOWN):
                series.setdefault(name, []).append(known)
    found = []
    for name, rounds in series.items():
        label, _, suffix = name.rpartition("_")
        unit, is_counter = _UNITS.get(suffix, ""), name.endswith(_COUNTERS)
        every = (known[-1] - known[0] for known in rounds) if is_counter else chain.from_iterable(rounds)
        shown = [each / _MIB if unit == "MiB" else each for each in every]
        found.append(((label if unit else name).replace("_", " "), unit, shown, is_counter))
    return found


def monitor_text(records: Sequence[Record]) -> str:
    """Return how often the monitor read and what it cost, or that it read nothing; empty where no record tells."""
    watched = [record.monitoring for record in records if record.monitoring.get("samples")]
    if not watched:
        return "not watched" if any(record.monitoring for record in records) else ""
    counts = ", ".join(str(each["samples"]) for each in watched)
    cost = max(each.get("own_share", 0.0) for each in watched)
    return (
        f"{counts} readings, one each {significant(watched[0]['interval_seconds'])} s, "
        f"for at most {100 * cost:.2g}% of one core"
    )


def before_text(record: Record) -> str:
    """Return the state of the machine just before the worker started, empty where it is not known."""
    before = record.machine_before
    parts = []
    if before.get("cpu_percent") is not None:
        parts.append(f"CPUs {significant(before['cpu_percent'])}% busy")
    if before.get("load_averages"):
        parts.append(f"load {', '.join(f'{load:g}' for load in before['load_averages'])}")
    if before.get("swap_used_bytes"):
        parts.append(f"{significant(before['swap_used_bytes'] / 2**20)} MiB of swap in use")
    for device in before.get("devices", ()):
        others = device.get("other_processes")
        parts.append(f"{device.get('name', 'device')}: {MISSING if others is None else others} other processes")
    return ", ".join(parts)


def unavailable(record: Record) -> list[str]:
    """Return the names of the readings that this machine did not give."""
    host = record.monitoring.get("host", {}).get("unavailable", {})
    return [*host, *(record.monitoring.get("unavailable") or {})]


def _columns(monitoring: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[float | None]]]:
    yield from monitoring.get("host", {}).get("series", {}).items()
    for index, device in enumerate(monitoring.get("devices", ())):
        for name, values in device.get("series", {}).items():
            yield f"{device.get('device', index)} {name}", values


def asked_and_ran(record: Record) -> list[tuple[str, str, str]]:
    """Return setting, what was asked for, and what was seen to run; a dash for what the record does not tell.

    An axis has its label. One that nothing else tells of is shown where the record has it among what ran.
    """
    asked, ran = record.requested, record.effective
    found = {axis: (AXIS_TABLE[axis].label, _text(asked.get(axis)), _text(ran.get(axis))) for axis in WAY_AXES}

    def of(axis: str, did: str) -> tuple[str, str, str]:
        return *found.pop(axis)[:2], did

    compile_label, *_ = found.pop("compile_mode")
    device = ", ".join(dict.fromkeys(ran[name] for name in ("device", "device_name") if ran.get(name) is not None))
    knobs, known = (each.get("continuous_batching_config") or {} for each in (asked, ran))
    rows = [
        ("device", _text(asked.get("device")), device or MISSING),
        of("dtype", _counts(ran.get("parameter_dtypes"), "parameter")),
        found.pop("attn_implementation"),
        ("SDPA backend", _text(asked.get("sdpa_backend"), "any"), _counts(ran.get("sdpa_backends"), "call")),
        (compile_label, _compile_asked(record), _compile_ran(ran.get("compilation"))),
        of("use_kernels", _kernels(ran.get("kernelized_layers"))),
        of("cache_implementation", _text(ran.get("cache"))),
        of("continuous_batching", _text(ran["cache"] == "PagedAttentionCache") if "cache" in ran else MISSING),
        *(
            (f"  {name}", _text(knobs[name], "any"), _text(known[name]))
            for name in knobs
            if known.get(name) is not None
        ),
        ("intra-op threads", _text(asked.get("intra_op_threads"), "any"), _text(ran.get("intra_op_threads"))),
        *_beside(record, found),
    ]
    return rows + [row for axis, row in found.items() if ran.get(axis) is not None]


def _beside(record: Record, found: dict[str, tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yield, and take from what was found, the rows on weights, drafts, ranks and devices that are not as usual."""
    axes, ran = record.configuration, record.effective
    quantized, drafting = ran.get("quantization") or {}, record.output.get("drafting") or ran.get("drafting") or {}
    shares = [significant(each["weight_bytes"] / _MIB) for each in ran.get("ranks") or ()]
    holding = ran.get("weight_bytes_by_device") or {}
    drafts = "{generator}: {accepted_tokens} of {proposed_tokens} tokens accepted in {steps} steps"
    told = {
        "quantization": _counts(quantized.get("modules"), "module"),
        "assistant": drafts.format(**drafting) if drafting else MISSING,
        "device_map": ", ".join(f"{where}: {significant(held / _MIB)} MiB" for where, held in holding.items()),
        "tp_size": f"{counted(len(shares), 'rank')} with {', '.join(shares)} MiB of weights" if shares else MISSING,
    }
    for axis, text in told.items():
        label, *_ = found.pop(axis)
        if getattr(axes, axis) != USUAL[axis]:
            yield label, axis_text(getattr(axes, axis)), text


def evidence(record: Record) -> list[tuple[str, str]]:
    """Return what was verified, as rows of name and finding; nothing of what the record does not tell."""
    ran = record.effective
    registered = ran.get("attention_registered_as")
    rows = [
        ("architecture", _text(ran.get("architecture"))),
        ("weights", _weights(ran)),
        ("attention ran through", _counts(ran.get("attention_functions"), "call")),
        ("attention registered as", "" if registered == ran.get("attn_implementation") else _text(registered)),
        ("experts ran through", _counts(ran.get("experts_functions"), "call")),
        ("layers of the cache", _counts(ran.get("cache_layers"), "layer")),
        ("tensors on", _counts(ran.get("tensor_devices"), "tensor")),
        ("buffers", _counts(ran.get("buffer_dtypes"), "buffer")),
        ("layers with a kernel", _layers(ran.get("kernelized_layers"))),
        ("compilation", _compilation(ran.get("compilation"))),
        ("warm start", _warm_start(record.warm_start)),
        ("weights not as expected", _loading(ran.get("loading"))),
        ("requests", _requests(record.requested.get("requests"), ran.get("batches"))),
        ("warm-up steady", _text(record.warmup_steady)),
    ]
    return [(name, finding) for name, finding in rows if finding not in ("", MISSING)]


def output_rows(record: Record, agreement: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the prompt's likelihood, and how the output agrees with its reference (a row of the table of points)."""
    nll, share = record.output.get("prompt_nll"), agreement.get("top1_agreement")
    rows = [] if nll is None else [("prompt", f"{nll:.4f} nats a token")]
    if share is not None:
        difference = agreement.get("nll_difference")
        told = "" if difference is None else f", likelihood {difference:.2g} nats a token apart"
        rows.append(("against eager", f"{100 * share:.1f}% of the prompt's positions with the same top-1 token{told}"))
    path = record.output.get("path") or {}
    if path.get("checked"):
        found = "agrees" if Output.read(record.output).path_agrees else "differs"
        rows.append(
            (
                "against a plain forward pass",
                f"{found}: logits {path['logits_difference']:.1e} of their size apart over {path['steps']} steps of "
                f"{counted(path['rows'], 'row')}; rounding explains {path['tolerance']:.1e}",
            )
        )
    elif path:
        rows.append(("against a plain forward pass", f"not checked: {path.get('reason')}"))
    first = agreement.get("first_different_token")
    if first is not None:
        rows.append(("first different token", f"number {first + 1} of the generated ones"))
    return rows


def memory_text(records: Sequence[Record]) -> str:
    """Return the peak memory of each round and what it is, with the parts of the first; empty if not known."""
    known = [record.memory for record in records if record.memory.get("peak_bytes") is not None]
    if not known:
        return ""
    peaks = ", ".join(significant(memory["peak_bytes"] / _MIB) for memory in known)
    first, kind = known[0], known[0].get("kind")
    parts = [
        f"{name.replace('_', ' ')} {significant(first[f'{name}_peak_bytes'] / _MIB)}"
        for name in ("load", "first_call", "prefill", "decode")
        if first.get(f"{name}_peak_bytes") is not None
    ]
    told = f"{peaks} MiB" + (f" ({kind})" if kind else "")
    return f"{told}; {', '.join(parts)}" if parts else told


def differing_rounds(records: Sequence[Record]) -> list[int]:
    """Return the rounds in which something else ran than in the first of them."""
    first = asked_and_ran(records[0])
    return [record.configuration.round for record in records[1:] if asked_and_ran(record) != first]


def _requests(lengths: Mapping[str, Sequence[int]] | None, batches: Sequence[Mapping[str, int]] | None) -> str:
    if lengths is None:
        return ""
    prompts, new_tokens = lengths["prompt_tokens"], lengths["new_tokens"]
    padded = f", batches padded: {len(batches)}" if batches else ""
    return f"{len(prompts)}, with {sum(prompts):,} prompt and {sum(new_tokens):,} new tokens in all{padded}"


def _compile_asked(record: Record) -> str:
    """Return the mode, and what else is not as torch.compile has it by itself."""
    if "compile_config" not in record.requested:
        return MISSING
    config = record.requested["compile_config"]
    if config is None:
        return "off"
    usual = {"backend": "inductor", "fullgraph": False, "dynamic": None, "options": None}
    unusual = [f"{name} {config[name]}" for name, value in usual.items() if config.get(name, value) != value]
    return ", ".join([record.configuration.compile_mode, *unusual])


def _compile_ran(compilation: Mapping[str, Any] | None) -> str:
    if compilation is None:
        return MISSING
    graphs = compilation.get("graphs", 0)
    if not graphs:
        return "no graphs"
    calls = compilation.get("compiled_calls")
    return counted(graphs, "graph") + ("" if calls is None else f", entered {calls} times")


def _compilation(compilation: Mapping[str, Any] | None) -> str:
    if not compilation or not compilation.get("graphs"):
        return ""
    breaks, recompiles = compilation.get("graph_break_reasons", ()), compilation.get("recompiles", ())
    parts = [
        _compile_ran(compilation),
        f"compiled in {significant(compilation.get('seconds'))} s",
        counted(compilation.get("graph_breaks", 0), "graph break") + _first(breaks),
        counted(len(recompiles), "recompile") + _first(recompiles),
    ]
    if while_sampling := len(compilation.get("recompiles_while_sampling", ())):
        parts.append(f"{counted(while_sampling, 'frame')} compiled while sampling")
    parts += [f"fell back: {reason}" for reason in compilation.get("fell_back", ())]
    return ", ".join(parts)


def _first(reasons: Sequence[str]) -> str:
    return f" (first: {reasons[0]})" if reasons else ""


def _warm_start(warm: Mapping[str, Any]) -> str:
    """Return what a second process on the filled caches took, or why it is not known; nothing where there was none."""
    if "first_call_seconds" not in warm:
        return f"not measured: {warm['reason']}" if "reason" in warm else ""
    seconds, compiling = significant(warm["first_call_seconds"]), significant(warm["compile_seconds"])
    return f"first call in {seconds} s, {compiling} s of it compiling, {counted(warm['cache_hits'], 'cache hit')}"


def _kernels(layers: Sequence[Mapping[str, Any]] | None) -> str:
    if layers is None:
        return MISSING
    replaced, modules = (sum(layer[name] for layer in layers) for name in ("replaced", "modules"))
    return f"{replaced} of {modules} layers replaced"


def _layers(layers: Sequence[Mapping[str, Any]] | None) -> str:
    """Return each kind of layer that could run a kernel, and where one came from."""
    parts = []
    for layer in layers or ():
        origin = f" from {kernel_origin(layer)}" if layer["replaced"] else ""
        of_class = "" if layer.get("class") in (None, layer["layer"]) else f" ({layer['class']})"
        parts.append(f"{layer['layer']}{of_class} {layer['replaced']} of {layer['modules']}{origin}")
    return ", ".join(parts)


def _weights(ran: Mapping[str, Any]) -> str:
    if ran.get("parameters") is None or ran.get("weight_bytes") is None:
        return ""
    return f"{ran['parameters']:,} parameters, {significant(ran['weight_bytes'] / _MIB)} MiB"


def _loading(loading: Mapping[str, Sequence[str]] | None) -> str:
    named = {name.replace("_", " "): keys for name, keys in (loading or {}).items() if keys}
    return "; ".join(f"{len(keys)} {name}, first {keys[0]}" for name, keys in named.items())


def _counts(counts: Mapping[str, int] | None, noun: str) -> str:
    """Return `sdpa_attention_forward (60 calls)` for each name; a dash where nothing was seen."""
    return ", ".join(f"{name} ({counted(count, noun)})" for name, count in (counts or {}).items()) or MISSING


def _text(value: Any, none: str = MISSING) -> str:
    return none if value is None else axis_text(value)


@dataclass(frozen=True)
class RequestTimes:
    """One request: medians over the samples of all rounds, in seconds and tokens/s.

    `inter_token_seconds` is (last - first) over the tokens after the first step, None for one step; `tokens_per_second`
    counts all n new tokens from the request's arrival to its last one.
    """

    prompt_tokens: int
    new_tokens: int
    time_to_first_token_seconds: float
    inter_token_seconds: float | None
    tokens_per_second: float


def request_times(records: Sequence[Record]) -> list[RequestTimes]:
    """Return the requests in their order; none where all rows share their token times."""
    ok = [record for record in records if record.status == OK]
    samples = [
        timed_requests(iteration)
        for record in ok
        for iteration in record.iterations
        if iteration.phase == "sample" and iteration.observed
    ]
    if not samples or len(samples[0]) < 2:
        return []
    axes = ok[0].configuration
    is_uniform = axes.request_lengths == UNIFORM
    prompts = [axes.sequence_length] * len(samples[0]) if is_uniform else ok[0].requested["requests"]["prompt_tokens"]
    found = []
    for prompt, of_one in zip(prompts, zip(*samples, strict=True), strict=True):
        count = len(of_one[0][1])
        first = median(times[0] - arrival for arrival, times in of_one)
        rate = median(count / (times[-1] - arrival) for arrival, times in of_one)
        gaps = [gap for _, times in of_one if (gap := mean_gap(times)) is not None]
        gap = median(gaps) if gaps else None
        found.append(RequestTimes(prompt, count, first, gap, rate))
    return found


_END = "end"


def phases(records: Sequence[Record]) -> dict[str, list[tuple[float, float] | None]]:
    """Return the start and the seconds of each phase in each record, None where a round did not come so far.

    They are in the order in which they began, and each lasts until the next one of its round began; what was before the
    first is the start of the worker.
    """
    rounds = []
    for record in records:
        moments = sorted(record.timeline.items(), key=lambda item: item[1])
        begun = [] if not moments or moments[0][0] == _END else [("start", 0.0)]
        spans = {name: (start, end - start) for (name, start), (_, end) in pairwise([*begun, *moments])}
        rounds.append(spans)
    return {name: [each.get(name) for each in rounds] for name in dict.fromkeys(chain.from_iterable(rounds))}
