"""The ceilings, measured for real on this machine's CPU."""

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from hfbench.ceilings import rates as module
from hfbench.ceilings.rates import measure_ceilings
from hfbench.core.files import write_json
from hfbench.core.results import CEILINGS, DTYPES, ENVIRONMENT
from hfbench.core.system import thread_variables
from tests.conftest import run_stage


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small sizes and short times, on one thread: two stall each other where another process has a core."""
    monkeypatch.setattr(module, "_SECONDS_A_SIZE", 0.05)
    monkeypatch.setattr(module, "_COPY_BYTES", (1 << 22, 1 << 24))
    monkeypatch.setattr(module, "_READ_BYTES", (1 << 22, 1 << 24))
    monkeypatch.setattr(module, "_SECONDS_A_SHAPE", 0.02)
    monkeypatch.setattr(module, "_SHAPES", ((64, 64, 64), (1, 256, 256), (256, 256, 256)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("quick")
def test_every_rate_of_the_cpu_is_measured() -> None:
    found = measure_ceilings("cpu", ["bfloat16"], emulated_dtypes=["bfloat16", "float16"])
    assert found["read_bytes_per_second"] > 1e7
    assert found["copy_bytes_per_second"] > 1e7
    for name in ("matmul_flops_per_second", "single_row_flops_per_second"):
        assert found[name].keys() == {"bfloat16", "float32"}, "what float32 would give is always measured"
        assert min(found[name].values()) > 1e6
    assert found["single_row_flops_per_second"]["float32"] <= found["matmul_flops_per_second"]["float32"]
    assert found["emulated_dtypes"] == ["bfloat16"], "of those that are asked for"
    assert 0 <= found["others_cpu_share"] <= 1
    assert found["threads"] == torch.get_num_threads()


def test_a_rate_is_that_of_the_fastest_call() -> None:
    """A call that sleeps lasts at least as long as it was asked to, however busy the machine is."""
    calls = [partial(time.sleep, 0.02), partial(time.sleep, 0.005)]
    rates = module._rates(float, lambda _: calls, [1000], torch.device("cpu"))
    assert 1000 / 0.1 < rates[1000] <= 1000 / 0.005


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_no_form_that_models_multiply_in_is_above_the_ceiling(dtype: str) -> None:
    """Without hardware for a dtype, torch is ten times as fast with a transposed right side as with a plain one."""
    rates = module._product_rates(torch.device("cpu"), dtype)
    fastest = {form: max(rate for (each, _), rate in rates.items() if each == form) for form in module._FORMS}
    assert measure_ceilings("cpu", [dtype])["matmul_flops_per_second"][dtype] > 0.5 * max(fastest.values())


def test_a_form_that_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes a form that is as slow as a plain product of bfloat16 without hardware for it."""

    def slow(left: torch.Tensor, _right: torch.Tensor) -> None:
        time.sleep(0.02 * left.shape[0] / 64)

    monkeypatch.setattr(module, "_FORMS", {"linear": torch.nn.functional.linear, "plain": slow})
    monkeypatch.setattr(module, "_SHAPES", ((64, 64, 64), (1024, 64, 64)))
    monkeypatch.setattr(module, "_SECONDS_A_SHAPE", 0.01)
    rates = module._product_rates(torch.device("cpu"), "float32")
    assert rates.keys() == {("linear", (64, 64, 64)), ("plain", (64, 64, 64)), ("linear", (1024, 64, 64))}


def test_what_is_slower_than_float32_by_more_than_noise() -> None:
    rates = {"float32": 54e9, "bfloat16": 14e9, "float16": 52e9}
    assert module._slower_than_float32(rates) == ["bfloat16"]
    assert module._slower_than_float32({"float32": None, "bfloat16": 14e9}) == []
    assert module._slower_than_float32({"float32": 54e9, "bfloat16": None}) == []


@pytest.mark.usefixtures("quick")
def test_what_is_not_to_be_had_is_null() -> None:
    if torch.accelerator.is_available():
        pytest.skip("needs a machine without accelerator")
    found = measure_ceilings("cuda", ["float32"])
    assert found["device"] == "cuda"
    assert found["device_name"] is None
    assert found["copy_bytes_per_second"] is None
    assert found["read_bytes_per_second"] is None
    assert found["read_bytes_per_second_by_size"] == {}
    assert found["matmul_flops_per_second"] == {"float32": None}


def test_sizes_keep_to_the_available_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes a machine with little memory."""
    memory = type("Memory", (), {"available": 1 << 30})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    monkeypatch.setattr(module, "_SECONDS_A_SIZE", 0.01)
    reads, copies = module._memory_rates(torch.device("cpu"))
    assert (list(reads), list(copies)) == ([1 << 26, 1 << 28], [1 << 27]), "half of what fits is copied to the other"


def test_stage_computes_with_the_threads_of_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    write_json(tmp_path / DTYPES, ["float32"])
    write_json(tmp_path / ENVIRONMENT, {"cpu": {"emulated_dtypes": ["bfloat16"]}})
    assert run_stage("ceilings", tmp_path, "--device", "cpu").returncode == 0
    found = json.loads((tmp_path / CEILINGS).read_text())
    assert found["schema_version"] == 1
    assert found["device"] == "cpu"
    assert found["threads"] == int(thread_variables()["OMP_NUM_THREADS"])
    assert found["matmul_flops_per_second"].keys() == {"float32"}


def test_threads_of_the_environment_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "17,2")
    assert thread_variables() == {"OMP_NUM_THREADS": "17,2", "MKL_NUM_THREADS": "17"}
