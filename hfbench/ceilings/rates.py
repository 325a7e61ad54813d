"""What the device can do at most, as torch reaches it here: bytes copied, bytes read and products a second."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import ceil, inf
from typing import Any

import psutil
import torch

from hfbench.monitoring.devices import VENDORS, take_device

_SECONDS_A_SIZE = 0.2
_SECONDS_BETWEEN_SYNCHRONISATIONS = 0.02  # a thousand times what a launch or a synchronisation takes
_LONGEST_CALL_SECONDS = 0.15  # what would take longer is left out
_COPY_BYTES = (1 << 28, 1 << 29)  # or half of what was read, where that is less
# From what may stay in a large last-level cache to what cannot: a model of a few hundred MB may live in one.
_READ_BYTES = (1 << 26, 1 << 28, 1 << 30, 1 << 31)
_ROW = 4096  # elements of a row, and of the vector, of the product that reads
_PATTERN = 1 << 20  # random elements, of which as many as are multiplied are made over again
_SHARE_OF_MEMORY = 0.25  # of what is available on the CPU, whose allocations do not fail in time

# Rows, and what a layer makes of how many columns. Small ones stay in a cache, few rows are those of a decoding step,
# and the middle ones those of a prompt: which is fastest depends on the device, the dtype and the form.
_Shape = tuple[int, int, int]
_SHAPES: tuple[_Shape, ...] = (
    *((size, size, size) for size in (256, 512, 1024, 2048, 4096, 8192)),
    *((rows, 2048, 2048) for rows in (1, 2, 4, 16, 64, 256)),
)
_SECONDS_A_SHAPE = 0.06
_CONTENDERS = 4  # of forms and shapes, measured once more later: another program may have had a core the first time
_FLOAT32 = "float32"
_TRIES = 10
_NOISE = 1.05  # on a quiet machine rates repeat within some percent

_NOT_TO_BE_HAD = (RuntimeError, AssertionError, NotImplementedError)  # no such device, no such dtype, too large
_Calls = Sequence[Callable[[], Any]]  # different ways to do the same, of which the fastest counts


def measure_ceilings(
    device: str,
    dtypes: Sequence[str],
    emulated_dtypes: Sequence[str] = (),
    among: Collection[str] = tuple(VENDORS),
) -> dict[str, Any]:
    """Return the best rates over several sizes, each of the fastest call; a rate that is not to be had is None.

    `copy_bytes_per_second` counts bytes read plus bytes written, as McCalpin's STREAM does.
    `read_bytes_per_second_by_size` is the rate of reading a buffer of so many bytes over and over, by summing it up or
    multiplying it by a vector; `read_bytes_per_second` is that of the largest buffer, which no cache holds. Decoding
    mostly reads (the weights), and reading alone is faster than copying or slower, depending on the device: these are
    its ceiling. `matmul_flops_per_second` has, for each dtype, the fastest product of 2 × rows × inner × columns FLOPs
    in any of the forms that models multiply in, and `single_row_flops_per_second` the fastest of one row, as decoding
    multiplies. float32 is always measured too: `slower_than_float32` are the dtypes that are emulated, or might as well
    be. Those of `emulated_dtypes`, which the processor has no products of, are recorded where the device is the CPU.

    `device` is as in params.yaml; `threads` are those of one operation on the CPU, `others_cpu_share` is how much of
    all CPUs other processes took meanwhile. `among` is that of `hfbench.monitoring.devices.open_devices`.
    Source: J. D. McCalpin, Memory Bandwidth and Machine Balance in Current High Performance Computers (1995).
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    meant = (found.type if found else "cpu") if device == "auto" else device
    with take_device(meant, "measuring ceilings", among=among) as taken:
        return _measure(torch.device(taken.device), dtypes, emulated_dtypes)


def _measure(target: torch.device, dtypes: Sequence[str], emulated_dtypes: Sequence[str]) -> dict[str, Any]:
    before = _cpu_seconds()
    products = {dtype: _product_rates(target, dtype) for dtype in dict.fromkeys([*dtypes, _FLOAT32])}
    reads, copies = _memory_rates(target)
    products = {dtype: _measured_again(target, dtype, rates) for dtype, rates in products.items()}
    fastest = {dtype: max(rates.values(), default=None) for dtype, rates in products.items()}
    others, whole = (after - start for after, start in zip(_cpu_seconds(), before, strict=True))
    return {
        "schema_version": 1,
        "device": target.type,
        "device_name": _name(target),
        "threads": torch.get_num_threads(),
        "others_cpu_share": round(max(0.0, others / whole), 4) if whole > 0 else None,
        "slower_than_float32": _slower_than_float32(fastest),
        "emulated_dtypes": [dtype for dtype in dtypes if dtype in emulated_dtypes and target.type == "cpu"],
        "copy_bytes_per_second": max(copies.values(), default=None),
        "read_bytes_per_second": reads[max(reads)] if reads else None,
        "read_bytes_per_second_by_size": {str(size): rate for size, rate in reads.items()},
        "matmul_flops_per_second": fastest,
        "single_row_flops_per_second": {
            dtype: max((rate for (_, (rows, *_)), rate in rates.items() if rows == 1), default=None)
            for dtype, rates in products.items()
        },
    }


def _slower_than_float32(rates: Mapping[str, float | None]) -> list[str]:
    """Return the dtypes whose products are slower than those of float32, by more than the noise of the rates."""
    in_float32 = rates[_FLOAT32]
    return [dtype for dtype, rate in rates.items() if rate and in_float32 and rate * _NOISE < in_float32]


_Products = dict[tuple[str, _Shape], float]  # FLOPs a second of each form and shape


def _product_rates(device: torch.device, dtype: str) -> _Products:
    """Return the rates of the forms and shapes that can be had and do not take too long."""
    rates: _Products = {}
    latest: dict[str, float] = {}  # of the shape before, which tells how long the next takes
    for shape in _SHAPES:
        flops = _flops(shape)
        slow = [form for form, rate in latest.items() if flops / rate > _LONGEST_CALL_SECONDS]
        if slow == list(_FORMS):
            continue
        try:
            calls = {form: call for form, call in _product_calls(device, dtype, shape).items() if form not in slow}
            seconds = {
                form: _fastest_seconds(call, device, _SECONDS_A_SHAPE / len(calls)) for form, call in calls.items()
            }
        except _NOT_TO_BE_HAD:
            continue
        rates |= {(form, shape): flops / each for form, each in seconds.items()}
        latest |= {form: flops / each for form, each in seconds.items()}
    return rates


def _measured_again(device: torch.device, dtype: str, rates: _Products) -> _Products:
    """Return the rates with those of the fastest, and of a single row, measured a second time."""
    ranked = sorted(rates, key=lambda product: rates[product], reverse=True)
    single = [product for product in ranked if product[1][0] == 1 and product[0] != "plain"]
    again = dict(rates)
    for form, shape in dict.fromkeys([*ranked[:_CONTENDERS], *single]):
        seconds = _fastest_seconds(_product_calls(device, dtype, shape)[form], device, _SECONDS_A_SHAPE)
        again[form, shape] = max(rates[form, shape], _flops(shape) / seconds)
    return again


def _flops(shape: _Shape) -> int:
    rows, inner, columns = shape
    return 2 * rows * inner * columns


# As torch's own attention and experts multiply, and as a layer does, whose weight lies transposed.
_FORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "linear": torch.nn.functional.linear,
    "transposed": lambda left, weight: left @ weight.t(),
    "plain": torch.matmul,
}


def _product_calls(device: torch.device, dtype: str, shape: _Shape) -> dict[str, Callable[[], Any]]:
    rows, inner, columns = shape
    pattern = torch.rand(_PATTERN, device=device).to(getattr(torch, dtype))
    left, weight = (
        pattern.repeat(ceil(many * inner / _PATTERN))[: many * inner].view(many, inner) for many in (rows, columns)
    )
    right = weight.view(inner, columns)
    return {name: partial(form, left, right if name == "plain" else weight) for name, form in _FORMS.items()}


def _cpu_seconds() -> tuple[float, float]:
    """Return the seconds that all CPUs were busy for others than this process, and all their seconds."""
    times, own = psutil.cpu_times(), time.process_time()
    whole = sum(times[:8])  # a guest's time, which comes after these on Linux, is in the user's already
    return whole - times.idle - getattr(times, "iowait", 0.0) - own, whole


def _memory_rates(device: torch.device) -> tuple[dict[int, float], dict[int, float]]:
    """Return the bytes a second of reading, by the bytes of the buffer, and those of copying; empty without memory."""
    largest = _largest_buffer(device)
    if largest is None:
        return {}, {}
    have = largest.nbytes
    halves = [size for size in _COPY_BYTES if 2 * size <= have] or [have // 2]
    reads = _rates(float, partial(_reads, largest), [size for size in _READ_BYTES if size <= have], device)
    return reads, _rates(lambda size: 2 * size, partial(_copies, largest), halves, device)


def _largest_buffer(device: torch.device) -> torch.Tensor | None:
    """Return the largest buffer of ones that can be had. The others are parts of it: getting memory takes long."""
    limit = _SHARE_OF_MEMORY * psutil.virtual_memory().available if device.type == "cpu" else inf
    for size in sorted(_READ_BYTES, reverse=True):  # on an accelerator, one that does not fit raises
        if size <= limit:
            with suppress(*_NOT_TO_BE_HAD):
                return torch.ones(size // 4, device=device)
    return None


def _copies(largest: torch.Tensor, size_bytes: int) -> _Calls:
    source, target = (half[: size_bytes // 4] for half in largest.chunk(2))
    return [partial(target.copy_, source)]


def _reads(largest: torch.Tensor, size_bytes: int) -> _Calls:
    buffer, vector = largest[: size_bytes // 4], torch.ones(_ROW, device=largest.device)
    return [partial(torch.mv, buffer.view(-1, _ROW), vector), buffer.sum]


def _rates(
    amount: Callable[[int], float], prepare: Callable[[int], _Calls], sizes: Sequence[int], device: torch.device
) -> dict[int, float]:
    """Return `amount(size)` a second of each size that can be had, smallest first, up to one whose calls take too long.

    `amount` counts the bytes of a call.
    """
    rates: dict[int, float] = {}
    for size in sizes:
        if rates and amount(size) / max(rates.values()) > _LONGEST_CALL_SECONDS:
            break
        try:
            rates[size] = amount(size) / _fastest_of(prepare(size), device)
        except _NOT_TO_BE_HAD:
            break
    return rates


def _fastest_of(calls: _Calls, device: torch.device) -> float:
    return min(_fastest_seconds(call, device, _SECONDS_A_SIZE / len(calls)) for call in calls)


def _fastest_seconds(call: Callable[[], Any], device: torch.device, budget_seconds: float) -> float:
    """Return the shortest time of one call.

    On an accelerator it is the mean of many calls between two synchronisations: launching them then costs nothing.
    """
    _seconds(call, device, 1)  # warms up
    began = time.perf_counter()
    fastest = _seconds(call, device, 1)
    calls = 1 if device.type == "cpu" else ceil(_SECONDS_BETWEEN_SYNCHRONISATIONS / fastest)
    tried = 0
    # Where other programs have the cores, most calls wait for a thread, and it takes some to meet one that does not.
    while (spent := time.perf_counter() - began) < budget_seconds or (tried < _TRIES and spent < 2 * budget_seconds):
        tried += 1
        fastest = min(fastest, _seconds(call, device, calls) / calls)
    return fastest


def _seconds(call: Callable[[], Any], device: torch.device, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start


def _name(device: torch.device) -> str | None:
    if device.type == "cpu":
        return None  # results/environment.json has it
    try:
        module = torch.get_device_module(device)
        return str(module.get_device_name(device)) if hasattr(module, "get_device_name") else None
    except (RuntimeError, AssertionError):
        return None
