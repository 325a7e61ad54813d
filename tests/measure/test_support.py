from typing import Any

import pytest

from hfbench.core.point import USUAL, Configuration
from hfbench.core.record import Settings
from hfbench.measure.support import unsupported_reason

CPU: dict[str, Any] = {"accelerators": [], "packages": {}, "compiler": "g++ 12"}
# No GPU is here: this is what results/environment.json holds of one.
CUDA: dict[str, Any] = {**CPU, "accelerators": [{"vendor": "nvidia", "torch_device": "cuda", "name": "H200"}]}


def point(**values: object) -> Configuration:
    defaults: dict[str, object] = {
        "round": 1,
        "model": "m",
        "attn_implementation": "sdpa",
        **USUAL,
        "batch_size": 1,
        "sequence_length": 8,
        "max_new_tokens": 8,
    }
    return Configuration(**{**defaults, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "attention", ["eager", "sdpa", "sdpa:math", "sdpa:flash_attention", "flex_attention", "someone/cpu-attention"]
)
def test_cpu_may_try(attention: str) -> None:
    assert unsupported_reason(point(attn_implementation=attention), "cpu", CPU, Settings()) is None


@pytest.mark.parametrize(
    ("attention", "words"),
    [
        ("sdpa:efficient_attention", "no SDPA backend efficient_attention"),
        ("sdpa:cudnn_attention", "no SDPA backend cudnn_attention"),
        ("flash_attention_2", "does not run on the CPU"),
        ("kernels-community/flash-attn3", "builds for cuda only"),
        ("kernels-community/flash-attn2", "builds for cuda, xpu only"),
    ],
)
def test_cpu_cannot(attention: str, words: str) -> None:
    for device in ("cpu", "auto"):
        assert words in str(unsupported_reason(point(attn_implementation=attention), device, CPU, Settings()))


def test_missing_device() -> None:
    assert "no cuda device" in str(unsupported_reason(point(), "cuda", CPU, Settings()))
    assert "has 1 cuda device" in str(unsupported_reason(point(), "cuda:1", CUDA, Settings()))
    assert unsupported_reason(point(), "cuda:0", CUDA, Settings()) is None
    assert unsupported_reason(point(), "auto", CUDA, Settings()) is None


def test_a_gpu_that_torch_cannot_see_does_not_count() -> None:
    without_cuda = {**CUDA, "packages": {"torch": {"version": "2.13.0+cpu"}}}
    hidden = {**CUDA, "variables": {"CUDA_VISIBLE_DEVICES": ""}}
    for environment in (without_cuda, hidden):
        assert "no cuda device" in str(unsupported_reason(point(), "cuda", environment, Settings()))
        flash = point(attn_implementation="flash_attention_2")
        assert "CPU" in str(unsupported_reason(flash, "auto", environment, Settings()))


def test_flash_attention_needs_its_package_and_half_precision() -> None:
    flash = point(attn_implementation="flash_attention_2")
    assert "needs the package flash-attn" in str(unsupported_reason(flash, "cuda", CUDA, Settings()))
    installed = {**CUDA, "packages": {"flash-attn": {"version": "2.8"}}}
    assert unsupported_reason(flash, "cuda", installed, Settings()) is None
    single = point(attn_implementation="flash_attention_2", dtype="float32")
    assert "not in float32" in str(unsupported_reason(single, "cuda", installed, Settings()))


def test_flex_attention_with_a_paged_cache() -> None:
    batched = point(attn_implementation="flex_attention", continuous_batching=True)
    assert "continuous batching" in str(unsupported_reason(batched, "cpu", CPU, Settings()))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"cache_implementation": "dynamic", "compile_mode": "default"}, "compiles with a static cache only"),
        ({"cache_implementation": "dynamic", "continuous_batching": True}, "paged cache of its own"),
        ({"cache_implementation": "static", "continuous_batching": True}, "paged cache of its own"),
        ({"cache_implementation": "static", "compile_mode": "default"}, None),
        ({"cache_implementation": "static", "attn_implementation": "flex_attention"}, None),
        ({"attn_implementation": "flex_attention", "compile_mode": "default"}, None),
    ],
)
def test_caches(asked: dict[str, object], words: str | None) -> None:
    reason = unsupported_reason(point(**asked), "cpu", CPU, Settings())
    assert reason is None if words is None else words in str(reason)


def test_continuous_batching_starts_empty_and_chunks_by_its_own_knob() -> None:
    deep = point(continuous_batching=True, context_depth=512)
    chunked = point(continuous_batching=True, prefill_chunk_size=64)
    assert "generate_batch takes none" in str(unsupported_reason(deep, "cpu", CPU, Settings()))
    assert "max_batch_tokens" in str(unsupported_reason(chunked, "cpu", CPU, Settings()))
    assert unsupported_reason(point(context_depth=512, prefill_chunk_size=64), "cpu", CPU, Settings()) is None


def test_a_prefill_alone_is_compiled_in_chunks_only() -> None:
    whole = point(compile_mode="default", max_new_tokens=1)
    assert "no decoding step" in str(unsupported_reason(whole, "cpu", CPU, Settings()))
    chunked = point(compile_mode="default", max_new_tokens=1, prefill_chunk_size=4)
    assert unsupported_reason(chunked, "cpu", CPU, Settings()) is None


def test_compiling_for_the_cpu_needs_a_compiler() -> None:
    bare = {**CPU, "compiler": None}
    assert "C++ compiler" in str(unsupported_reason(point(compile_mode="default"), "cpu", bare, Settings()))
    assert unsupported_reason(point(), "cpu", bare, Settings()) is None


def compiled(
    device: str, environment: dict[str, Any], mode: str = "default", axes: Any = None, **settings: object
) -> str | None:
    asked = Settings(compile={"backend": "inductor", "options": {}, **settings})
    return unsupported_reason(point(compile_mode=mode, **(axes or {})), device, environment, asked)


def test_modes_made_of_cuda_graphs_need_cuda() -> None:
    assert "torch would run default" in str(compiled("cpu", CPU, "reduce-overhead"))
    assert "torch would run max-autotune-no-cudagraphs" in str(compiled("cpu", CPU, "max-autotune"))
    assert "asks for triton.cudagraphs" in str(compiled("cpu", CPU, options={"triton.cudagraphs": True}))
    for mode in ("default", "max-autotune-no-cudagraphs"):
        assert compiled("cpu", CPU, mode) is None
    for mode in ("reduce-overhead", "max-autotune"):
        assert compiled("cuda", CUDA, mode) is None


def test_other_backends_have_no_modes_and_some_no_options() -> None:
    assert compiled("cpu", CPU, backend="aot_eager") is None
    assert "aot_eager has no modes" in str(compiled("cpu", CPU, "max-autotune-no-cudagraphs", backend="aot_eager"))
    assert "eager ignores them" in str(compiled("cpu", CPU, backend="eager", options={"max_autotune": True}))
    assert "needs CUDA" in str(compiled("cpu", CPU, backend="cudagraphs"))
    assert compiled("cuda", CUDA, backend="cudagraphs") is None
    without_compiler = {**CPU, "compiler": None}
    assert compiled("cpu", without_compiler, backend="eager") is None, "only inductor needs a compiler"


def test_one_whole_graph_is_not_to_be_had_everywhere() -> None:
    assert compiled("cpu", CPU, fullgraph=True) is None
    assert compiled("cpu", CPU, axes={"attn_implementation": "sdpa:flash_attention"}, fullgraph=True) is None
    assert "paged cache" in str(compiled("cpu", CPU, axes={"continuous_batching": True}, fullgraph=True))
    flash = {"attn_implementation": "kernels-community/flash-attn3"}
    assert "turns it off" in str(compiled("cuda", CUDA, axes=flash, fullgraph=True))
    assert compiled("cuda", CUDA, axes=flash) is None


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"request_lengths": "mixed", "context_depth": 64}, "the requests of mixed are of several"),
        ({"request_lengths": "mixed", "prefill_chunk_size": 8}, "the requests of mixed are of several"),
    ],
)
def test_requests_that_come_and_go_take_no_setting_of_one_batch(axes: dict[str, object], words: str) -> None:
    assert words in str(unsupported_reason(point(**axes), "cpu", CPU, Settings()))
    mixed = point(continuous_batching=True, request_lengths="mixed")
    assert unsupported_reason(mixed, "cpu", CPU, Settings()) is None
