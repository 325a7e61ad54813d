from typing import Any

import pytest

from hfbench.foundation.configuration import USUAL, Configuration
from hfbench.measurement.support import unsupported_reason

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
    assert unsupported_reason(point(attn_implementation=attention), "cpu", CPU) is None


@pytest.mark.parametrize(
    ("attention", "words"),
    [
        ("sdpa:efficient_attention", "no SDPA backend efficient_attention"),
        ("sdpa:cudnn_attention", "no SDPA backend cudnn_attention"),
        ("flash_attention_2", "does not run on the CPU"),
        ("kernels-community/flash-attn3", "builds for cuda only"),
        ("kernels-community/flash-attn2@abc", "builds for cuda, xpu only"),
    ],
)
def test_cpu_cannot(attention: str, words: str) -> None:
    for device in ("cpu", "auto"):
        assert words in str(unsupported_reason(point(attn_implementation=attention), device, CPU))


def test_missing_device() -> None:
    assert "no cuda device" in str(unsupported_reason(point(), "cuda", CPU))
    assert "has 1 cuda device" in str(unsupported_reason(point(), "cuda:1", CUDA))
    assert unsupported_reason(point(), "cuda:0", CUDA) is None
    assert unsupported_reason(point(), "auto", CUDA) is None


def test_a_gpu_that_torch_cannot_see_does_not_count() -> None:
    without_cuda = {**CUDA, "packages": {"torch": {"version": "2.13.0+cpu"}}}
    hidden = {**CUDA, "variables": {"CUDA_VISIBLE_DEVICES": ""}}
    for environment in (without_cuda, hidden):
        assert "no cuda device" in str(unsupported_reason(point(), "cuda", environment))
        flash = point(attn_implementation="flash_attention_2")
        assert "CPU" in str(unsupported_reason(flash, "auto", environment))


def test_flash_attention_needs_its_package_and_half_precision() -> None:
    flash = point(attn_implementation="flash_attention_2")
    assert "needs the package flash-attn" in str(unsupported_reason(flash, "cuda", CUDA))
    installed = {**CUDA, "packages": {"flash-attn": {"version": "2.8"}}}
    assert unsupported_reason(flash, "cuda", installed) is None
    single = point(attn_implementation="flash_attention_2", dtype="float32")
    assert "not in float32" in str(unsupported_reason(single, "cuda", installed))


def test_flex_attention_with_static_or_paged_cache() -> None:
    compiled = point(attn_implementation="flex_attention", compile_mode="default")
    batched = point(attn_implementation="flex_attention", continuous_batching=True)
    assert "static cache" in str(unsupported_reason(compiled, "cpu", CPU))
    assert "continuous batching" in str(unsupported_reason(batched, "cpu", CPU))


def test_continuous_batching_starts_empty_and_chunks_by_its_own_knob() -> None:
    deep = point(continuous_batching=True, context_depth=512)
    chunked = point(continuous_batching=True, prefill_chunk_size=64)
    assert "generate_batch takes none" in str(unsupported_reason(deep, "cpu", CPU))
    assert "max_batch_tokens" in str(unsupported_reason(chunked, "cpu", CPU))
    assert unsupported_reason(point(context_depth=512, prefill_chunk_size=64), "cpu", CPU) is None


def test_a_prefill_alone_is_compiled_in_chunks_only() -> None:
    whole = point(compile_mode="default", max_new_tokens=1)
    assert "no decoding step" in str(unsupported_reason(whole, "cpu", CPU))
    chunked = point(compile_mode="default", max_new_tokens=1, prefill_chunk_size=4)
    assert unsupported_reason(chunked, "cpu", CPU) is None


def test_compiling_for_the_cpu_needs_a_compiler() -> None:
    bare = {**CPU, "compiler": None}
    assert "C++ compiler" in str(unsupported_reason(point(compile_mode="default"), "cpu", bare))
    assert unsupported_reason(point(), "cpu", bare) is None
