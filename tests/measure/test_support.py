"""What a machine cannot run is known and said before anything is loaded, and what it may run is let through."""

from dataclasses import replace
from typing import Any

import pytest

from hfbench.core.point import PROMPT_LOOKUP, Configuration
from hfbench.core.record import Settings
from hfbench.measure.support import unsupported_reason

CPU: dict[str, Any] = {"accelerators": [], "packages": {}, "compiler": "g++ 12"}
# No GPU is here: this is what results/environment.json holds of one.
CUDA: dict[str, Any] = {**CPU, "accelerators": [{"vendor": "nvidia", "torch_device": "cuda", "name": "H200"}]}
WITHOUT_CUDA = {**CPU, "packages": {"torch": {"version": "2.13.0+cpu"}}}
LOST = {**CPU, "accelerator_notes": ["nvidia: lost"]}
WITH_FLASH = {**CUDA, "packages": {"flash-attn": {"version": "2.8"}}}
ON_CUDA = {"device": "cuda", "environment": CUDA}
FOUR_GPUS = [{**CUDA["accelerators"][0], "count": 4}]
ON_FOUR = {"device": "cuda", "environment": {**CPU, "accelerators": FOUR_GPUS}}
FP8, DEALT = {"backend": "fp8"}, {"device_map": "auto"}
NO_COMPILER = {"environment": {**CPU, "compiler": None}}
COMPILED, BATCHED, MIXED = {"compile_mode": "default"}, {"continuous_batching": True}, {"request_lengths": "mixed"}


POINT = Configuration(round=1, model="m", attn_implementation="sdpa", batch_size=1, sequence_length=8, max_new_tokens=8)


def point(**values: Any) -> Configuration:
    """A configuration that differs from POINT in these axes."""
    return replace(POINT, **values)


def attention(name: str, **axes: object) -> dict[str, object]:
    return {"attn_implementation": name, **axes}


def quantized_cache(**axes: object) -> dict[str, object]:
    return {"cache_implementation": "quantized", **axes}


def looked_up(**axes: object) -> dict[str, object]:
    return {"assistant": PROMPT_LOOKUP, **axes}


def reasons(
    axes: dict[str, object],
    device: str | None = None,
    environment: dict[str, Any] = CPU,
    cache: dict[str, Any] | None = None,
    **values: object,
) -> set[str | None]:
    """Why this cannot run, with these values of `compile`; on `cpu` and `auto` where no device is named."""
    settings = Settings(compile={"backend": "inductor", "options": {}, **values}, quantized_cache=cache)
    devices = (device,) if device else ("cpu", "auto")
    return {unsupported_reason(point(**axes), each, environment, settings) for each in devices}


@pytest.mark.parametrize(
    ("words", "axes", "where_and_how"),
    [
        ("no SDPA backend efficient_attention", attention("sdpa:efficient_attention"), {}),
        ("no SDPA backend cudnn_attention", attention("sdpa:cudnn_attention"), {}),
        ("does not run on the CPU", attention("flash_attention_2"), {}),
        ("builds for cuda only", attention("kernels-community/flash-attn3"), {}),
        ("builds for cuda, xpu only", attention("kernels-community/flash-attn2"), {}),
        ("torch 2.13.0+cpu has no such device", {}, {"device": "cuda:1", "environment": WITHOUT_CUDA}),
        ("no such device on this machine; nvidia: lost", {}, {"device": "cuda", "environment": LOST}),
        ("needs the package flash-attn", attention("flash_attention_2"), ON_CUDA),
        ("not in float32", attention("flash_attention_2", dtype="float32"), {**ON_CUDA, "environment": WITH_FLASH}),
        ("continuous batching", attention("flex_attention", **BATCHED), {}),
        ("compiles with a static cache only", {"cache_implementation": "dynamic", **COMPILED}, {}),
        ("paged cache of its own", {"cache_implementation": "dynamic", **BATCHED}, {}),
        ("paged cache of its own", {"cache_implementation": "static", **BATCHED}, {}),
        ("generate_batch takes none", {"context_depth": 512, **BATCHED}, {}),
        ("one by one need continuous_batching", {"request_rate": "4"}, {}),
        ("max_batch_tokens", {"prefill_chunk_size": 64, **BATCHED}, {}),
        ("the requests of mixed are of several", {"context_depth": 64, **MIXED}, {}),
        ("the requests of mixed are of several", {"prefill_chunk_size": 8, **MIXED}, {}),
        ("no decoding step", {"max_new_tokens": 1, **COMPILED}, {}),
        ("C++ compiler", COMPILED, NO_COMPILER),
        # Modes made of CUDA graphs.
        ("torch would run default", {"compile_mode": "reduce-overhead"}, {}),
        ("torch would run max-autotune-no-cudagraphs", {"compile_mode": "max-autotune"}, {}),
        ("asks for triton.cudagraphs", COMPILED, {"options": {"triton.cudagraphs": True}}),
        # Other backends have no modes, and some no options.
        ("aot_eager has no modes", {"compile_mode": "max-autotune-no-cudagraphs"}, {"backend": "aot_eager"}),
        ("eager ignores them", COMPILED, {"backend": "eager", "options": {"max_autotune": True}}),
        ("needs CUDA", COMPILED, {"backend": "cudagraphs"}),
        # One whole graph.
        ("paged cache", {**BATCHED, **COMPILED}, {"fullgraph": True}),
        ("turns it off", attention("kernels-community/flash-attn3", **COMPILED), {**ON_CUDA, "fullgraph": True}),
        # Caches.
        ("needs the package optimum-quanto", quantized_cache(), {"cache": {"backend": "quanto", "nbits": 4}}),
        ("with a static cache only", quantized_cache(**COMPILED), {"cache": FP8}),
        ("a paged cache of its own", quantized_cache(**BATCHED), {"cache": FP8}),
        ("in the host's memory already", {"cache_implementation": "offloaded"}, {}),
        ("in the host's memory already", {"cache_implementation": "offloaded_static"}, {}),
        # Drafts.
        ("continuous batching drafts no tokens", looked_up(**BATCHED), {}),
        ("one row at a time; batch_size is 2", looked_up(batch_size=2), {}),
        ("runs the model uncompiled", looked_up(**COMPILED), {}),
        ("which a static one cannot", looked_up(cache_implementation="static"), {}),
        ("which a quantized one cannot", looked_up(cache_implementation="quantized"), {"cache": FP8}),
        ("does not read prefill_chunk_size", looked_up(prefill_chunk_size=4), {}),
        ("without those of a context", looked_up(context_depth=8), {}),
        ("after that token nothing is drafted", looked_up(max_new_tokens=1), {}),
        # Several processes, and several devices.
        ("continuous batching in one process", {"tp_size": 2, **BATCHED}, {}),
        ("assisted decoding in one process", looked_up(tp_size=2), {}),
        ("this machine has 1 cuda of one kind", {"tp_size": 2}, ON_CUDA),
        ("names a single one; write cuda", {"tp_size": 2}, {**ON_CUDA, "device": "cuda:1"}),
        ("names a single one; write cuda", DEALT, {**ON_CUDA, "device": "cuda:1"}),
        ("transformers takes one of them", {"tp_size": 4, **DEALT}, ON_FOUR),
        ("paged cache of continuous batching is on one device", {**DEALT, **BATCHED}, ON_FOUR),
    ],
)
def test_what_cannot_run_says_why(words: str, axes: dict[str, object], where_and_how: dict[str, Any]) -> None:
    for reason in reasons(axes, **where_and_how):
        assert words in str(reason)


@pytest.mark.parametrize(
    ("axes", "where_and_how"),
    [
        *((attention(name), {}) for name in ("eager", "sdpa", "sdpa:math", "sdpa:flash_attention", "flex_attention")),
        (attention("someone/cpu-attention"), {}),
        ({}, {**ON_CUDA, "device": "cuda:0"}),
        ({}, {**ON_CUDA, "device": "auto"}),
        (attention("flash_attention_2"), {**ON_CUDA, "environment": WITH_FLASH}),
        ({"cache_implementation": "static", **COMPILED}, {}),
        (attention("flex_attention", cache_implementation="static"), {}),
        (attention("flex_attention", **COMPILED), {}),
        ({"context_depth": 512, "prefill_chunk_size": 64}, {}),
        ({**BATCHED, **MIXED}, {}),
        ({"max_new_tokens": 1, "prefill_chunk_size": 4, **COMPILED}, {}),
        ({}, NO_COMPILER),
        (COMPILED, {**NO_COMPILER, "backend": "eager"}),  # only inductor needs a compiler
        *(({"compile_mode": mode}, {}) for mode in ("default", "max-autotune-no-cudagraphs")),
        *(({"compile_mode": mode}, ON_CUDA) for mode in ("reduce-overhead", "max-autotune")),
        (COMPILED, {"backend": "aot_eager"}),
        (COMPILED, {**ON_CUDA, "backend": "cudagraphs"}),
        (COMPILED, {"fullgraph": True}),
        (attention("sdpa:flash_attention", **COMPILED), {"fullgraph": True}),
        (attention("kernels-community/flash-attn3", **COMPILED), ON_CUDA),
    ],
)
def test_what_may_run_is_let_through(axes: dict[str, object], where_and_how: dict[str, Any]) -> None:
    assert reasons(axes, **where_and_how) == {None}


@pytest.mark.parametrize("where", ["tempfile.tempdir", "sys.prefix"])
def test_a_path_with_a_space_cannot_compile_for_the_cpu(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(where, "/home/ann/my files")
    compiled: dict[str, object] = {**COMPILED}
    (reason,) = reasons(compiled)
    assert "has a space" in str(reason)
    assert "/home/ann/my files; " in str(reason)
    assert reasons(attention("flex_attention")) == {reason}
    assert reasons({}) == reasons(compiled, backend="eager") == {None}
    assert reasons(compiled, "cuda", CUDA) == {None}
