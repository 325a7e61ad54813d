"""Quantised weights: by real methods on the CPU, proven by what the modules hold, and refused or rejected truly."""

import json
import math
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from hfbench.core.record import FAILED, OK, REJECTED, UNAVAILABLE, UNSUPPORTED, Record, Sampling, Settings
from hfbench.measure.accounting import count_weights, describe_needs, fill_cache
from hfbench.measure.loading import describe_loaded, load_model
from hfbench.measure.plain_pass import scored_positions
from hfbench.measure.process import worker_environment
from hfbench.measure.quantization import (
    QuantizationError,
    describe_quantization,
    logical_parameters,
    quantization_argument,
    quantization_differences,
    quantized_weights,
    require_packable,
    stored_bytes,
)
from hfbench.measure.task import Task
from tests.conftest import TINY
from tests.families import family_model
from tests.measure.conftest import PROMPT, save_manifest
from tests.measure.stage_process import SAMPLING, Bench
from tests.measure.test_support import point

INT8 = {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"}
INT8_DYNAMIC = {"quant_method": "torchao", "quant_type": {"Int8DynamicActivationInt8WeightConfig": {}}}
NF4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
}
NF4_MODULES = {"Linear4bit of Params4bit uint8 nf4, computing in bfloat16": 14}
# Which of them bitsandbytes runs, the processor decides: the second with instructions for bfloat16 products.
NF4_OPERATORS = {"bitsandbytes::dequantize_4bit", "bitsandbytes::gemv_4bit"}
LINEARS = 7 * TINY["num_hidden_layers"]  # of a layer: q, k, v, o, gate, up and down
NEEDED = {name: {"version": metadata.version(name)} for name in ("torchao", "bitsandbytes")}


@pytest.fixture
def quantizing(bench: Bench) -> Bench:
    """A machine whose description has the packages, as this one has them."""
    content = json.loads(bench.environment.read_text())
    environment = bench.folder / "with-packages.json"
    environment.write_text(json.dumps({**content, "packages": {**content.get("packages", {}), **NEEDED}}))
    return replace(bench, environment=environment)


def measured(bench: Bench, entry: Mapping[str, Any] | None, **axes: object) -> Record:
    settings = Settings(quantization=None if entry is None else dict(entry))
    if axes.get("compile_mode", "off") != "off":
        settings = replace(settings, compile={"backend": "inductor", "measure_warm_start": False})
    name = "none" if entry is None else "small"
    return replace(bench, settings=settings).measure(quantization=name, **axes)


@pytest.mark.parametrize(
    ("entry", "kind", "operators", "bits"),
    [
        (INT8, "Linear of Int8Tensor int8", {"aten::mm"}, 8),
        (INT8_DYNAMIC, "Linear of Int8Tensor int8", {"aten::_int_mm"}, 8),
        (NF4, next(iter(NF4_MODULES)), NF4_OPERATORS, 4),
    ],
)
def test_weights_are_quantised_and_that_is_proven(
    quantizing: Bench, entry: Mapping[str, Any], kind: str, operators: set[str], bits: int
) -> None:
    record = measured(quantizing, entry)
    assert (record.status, record.reason) == (OK, None)
    found = record.effective["quantization"]
    assert found["modules"] == {kind: LINEARS}
    assert found["operators"].keys() & operators, found["operators"]
    assert not found["was_in_checkpoint"]
    weights = found["logical_parameters"] * bits / 8
    assert weights < found["stored_bytes"] < 1.35 * weights, "the scales of so small a model are a good part"
    assert record.requested["quantization"] == dict(entry)
    assert record.output["path"]["agrees"]
    told = {"flops": "quantised weights multiply in another dtype than the model's (aten::_int_mm)"}
    assert record.accounting["unknown"] == (told if entry is INT8_DYNAMIC else {})


def test_a_quantised_model_runs_compiled(quantizing: Bench) -> None:
    record = measured(quantizing, INT8, compile_mode="default")
    assert (record.status, record.reason) == (OK, None)
    assert record.effective["compilation"]["graphs"] > 0
    assert record.effective["quantization"]["modules"] == {"Linear of Int8Tensor int8": LINEARS}


def test_products_in_another_dtype_are_told_and_their_rate_is_not_known(quantizing: Bench) -> None:
    record = measured(quantizing, {name: value for name, value in NF4.items() if "compute" not in name})
    assert record.status == OK
    assert list(record.effective["quantization"]["modules"]) == [
        "Linear4bit of Params4bit uint8 nf4, computing in float32"
    ]
    assert record.accounting["unknown"] == {
        "flops": "quantised weights multiply in another dtype than the model's (float32)"
    }


@pytest.mark.parametrize("entry", [INT8, NF4])
def test_as_many_weights_and_so_as_much_of_the_prompt_as_unquantised(
    tiny_model: Path, entry: Mapping[str, Any]
) -> None:
    plain, quantised = (
        load_model(tiny_model, point(), torch.device("cpu"), False, quantization=each)[0] for each in (None, entry)
    )
    assert logical_parameters(quantised) == logical_parameters(plain) == describe_loaded(quantised)["parameters"]
    assert scored_positions(quantised, 8, 96) == scored_positions(plain, 8, 96) > 8 * 80


def test_bytes_are_those_stored_and_products_those_of_the_logical_shapes(tiny_model: Path) -> None:
    plain, quantised = (
        load_model(tiny_model, point(), torch.device("cpu"), False, quantization=entry)[0] for entry in (None, INT8)
    )
    before, after = count_weights(plain), count_weights(quantised)
    assert after["dense_matmul_parameters"] == before["dense_matmul_parameters"]
    assert after["head_matmul_parameters"] == before["head_matmul_parameters"]
    linear = quantised.model.layers[0].mlp.up_proj.weight
    assert linear.nbytes == 2 * linear.numel(), "what torchao says of itself"
    rows, columns = linear.shape
    assert stored_bytes(linear) == rows * columns + 4 * rows + rows, "a byte each, and scale and zero point of a row"
    saved = sum(each.logical_parameters * 2 - each.stored_bytes for each in quantized_weights(quantised).values())
    assert before["dense_weight_bytes"] - after["dense_weight_bytes"] == saved
    assert quantized_weights(plain) == {}


def test_a_checkpoint_that_is_quantised_is_measured_as_it_is(
    quantizing: Bench, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "quantised"
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=config).save_pretrained(folder)
    for file in tiny_model.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    save_manifest(quantizing.folder, folder, "LlamaForCausalLM", "llama", quant_method="bitsandbytes")
    record = measured(quantizing, None)
    assert (record.status, record.reason) == (OK, None)
    assert record.effective["quantization"]["was_in_checkpoint"]
    assert record.effective["quantization"]["modules"] == NF4_MODULES
    again = measured(quantizing, INT8)
    assert (again.status, again.phase) == (UNSUPPORTED, "before the start")
    assert "quantised already (bitsandbytes)" in str(again.reason)
    without = json.loads(quantizing.environment.read_text()) | {"packages": {}}
    quantizing.environment.write_text(json.dumps(without))
    assert "needs the package bitsandbytes, which is not installed" in str(measured(quantizing, None).reason)


@pytest.fixture
def fp8_checkpoint(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model as DeepSeek publishes theirs: float8 weights, with a scale for each block of 32 by 32."""
    folder, block = tmp_path / "fp8", 32
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if "proj" in name]:
        rows, columns = (length // block for length in weights[name].shape)
        blocks = weights[name].float().reshape(rows, block, columns, block)
        scales = blocks.abs().amax((1, 3)) / torch.finfo(torch.float8_e4m3fn).max
        scaled = blocks / scales[:, None, :, None]
        weights[name] = scaled.reshape(rows * block, columns * block).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = scales
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [block, block]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_checkpoint_that_transformers_unpacks_is_measured_as_such_alone(
    quantizing: Bench, fp8_checkpoint: Path
) -> None:
    plain = measured(quantizing, None)
    save_manifest(quantizing.folder, fp8_checkpoint, "LlamaForCausalLM", "llama", quant_method="fp8")
    record = measured(quantizing, None)
    assert record.status == REJECTED
    assert record.reason == (
        "the checkpoint is quantised (fp8), and transformers unpacked it: no module that ran holds quantised weights. "
        "An entry {quant_method: fp8, dequantize: true} of quantization measures that"
    )
    unpacked = measured(quantizing, {"quant_method": "fp8", "dequantize": True})
    assert (unpacked.status, unpacked.reason) == (OK, None)
    assert unpacked.effective["weight_bytes"] == plain.effective["weight_bytes"]
    assert unpacked.output["prompt_nll"] == pytest.approx(plain.output["prompt_nll"], abs=0.01)
    assert "not quantised anew" in str(measured(quantizing, INT8).reason)


def test_what_was_unpacked_is_not_told_by_what_it_leaves_behind() -> None:
    # As compressed-tensors leaves a module that has run.
    module = torch.nn.Linear(8, 8, dtype=torch.bfloat16)
    module.weight_shape = torch.nn.Parameter(torch.tensor([8, 8]), requires_grad=False)
    module.weight_packed = torch.nn.Parameter(torch.zeros(8, 1, dtype=torch.int32), requires_grad=False)
    model: Any = torch.nn.Sequential(module)
    assert quantized_weights(model) == {}
    del module.weight
    assert list(quantized_weights(model)) == ["0"]


@pytest.mark.parametrize(("rows", "columns", "fits"), [(64, 128, True), (64, 96, False), (48, 128, False)])
def test_shapes_that_a_processor_cannot_pack_are_refused(rows: int, columns: int, fits: bool) -> None:
    module: Any = Linear4bit(columns, rows, bias=False, quant_type="nf4")  # type: ignore[no-untyped-call]
    model: Any = torch.nn.Sequential(module.to("cpu"))
    module.support_avx512bf16_for_cpu = False  # as of any other processor
    require_packable(model)
    module.support_avx512bf16_for_cpu = True
    with nullcontext() if fits else pytest.raises(NotImplementedError, match=f"0 is {rows} by {columns}"):
        require_packable(model)


def test_what_is_left_as_it_was_is_rejected(quantizing: Bench) -> None:
    record = measured(quantizing, {**INT8, "modules_to_not_convert": ["model", "lm_head"]})
    assert record.status == REJECTED
    assert record.reason == "quantization small left all weights as they were"


@pytest.mark.parametrize(
    ("entry", "status", "reason"),
    [
        # Which transformers only logs, below an exception that says to look there.
        ({"quant_method": "torchao", "quant_type": "Int4WeightOnlyConfig"}, UNAVAILABLE, "Requires mslk"),
        ({"quant_method": "torchao", "quant_type": "Int3Config"}, FAILED, "expected a config of torchao.quantization"),
        (NF4, UNSUPPORTED, "does not compile a model that bitsandbytes quantised"),
        ({"quant_method": "fp8"}, UNSUPPORTED, "GPU or XPU is needed for FP8 quantization"),
        ({"quant_method": "hqq", "nbits": 4}, UNSUPPORTED, "needs the package hqq, which is not installed"),
    ],
)
def test_what_cannot_be_says_why(quantizing: Bench, entry: Mapping[str, Any], status: str, reason: str) -> None:
    record = measured(quantizing, entry, compile_mode="default" if entry is NF4 else "off")
    assert record.status == status, record.reason
    assert reason in str(record.reason)


def test_arguments_of_a_config_are_checked() -> None:
    with pytest.raises(QuantizationError, match="grouping"):
        quantization_argument({"quant_method": "torchao", "quant_type": {"Int8WeightOnlyConfig": {"grouping": 3}}})
    given = {"quant_method": "torchao", "quant_type": {"Int8WeightOnlyConfig": {"set_inductor_config": False}}}
    config = quantization_argument(given)["quantization_config"]
    assert config.quant_type.set_inductor_config is False
    (saved,) = [{**config.to_dict()}]
    assert type(quantization_argument(saved)["quantization_config"].quant_type) is type(config.quant_type)


class _Experts(nn.Module):
    """As transformers' FP8 experts: both matrices of all experts, in eight bits, and their scales."""

    def __init__(self) -> None:
        super().__init__()
        for name, shape in {"gate_up_proj": (4, 32, 16), "down_proj": (4, 16, 16)}.items():
            weight = torch.zeros(shape, dtype=torch.float8_e4m3fn)
            self.register_parameter(name, nn.Parameter(weight, requires_grad=False))
            scale = torch.ones(4, 1, 1, dtype=torch.float8_e8m0fnu)
            self.register_parameter(f"{name}_scale_inv", nn.Parameter(scale, requires_grad=False))


def test_all_matrices_of_quantised_experts_count() -> None:
    model: Any = nn.Sequential(_Experts())
    (found,) = quantized_weights(model).values()
    assert found.logical_parameters == 4 * (32 + 16) * 16
    assert found.stored_bytes == 4 * (32 + 16) * 16 + 2 * 4


class _TritonExperts(nn.Module):
    """A fake, as this hardware is not here: what transformers makes of MXFP4 experts on a GPU, tensors of Triton's."""

    def __init__(self) -> None:
        super().__init__()

        def wrapped(*shape: int, size: int) -> Any:
            return SimpleNamespace(storage=SimpleNamespace(data=torch.zeros(size, dtype=torch.uint8)), shape=shape)

        self.bias = nn.Parameter(torch.zeros(4, 64, dtype=torch.bfloat16))
        for name, shape in {"gate_up_proj": (4, 32, 64), "down_proj": (4, 32, 32)}.items():
            count = math.prod(shape)
            object.__setattr__(self, name, wrapped(*shape, size=count // 2))
            scale = SimpleNamespace(weight_scale=wrapped(4, size=count // 32))
            object.__setattr__(self, f"{name}_precision_config", scale)


def test_weights_that_are_tensors_of_triton_are_quantised_and_counted() -> None:
    model: Any = nn.Sequential(_TritonExperts())
    (found,) = quantized_weights(model).values()
    count = 4 * 32 * (64 + 32)
    assert found.logical_parameters == count
    assert found.stored_bytes == count // 2 + count // 32 + 2 * 4 * 64
    described = {"method": "mxfp4", "modules": {found.kind: 1}}
    assert quantization_differences(point(), None, described, "mxfp4") == []


@pytest.mark.parametrize(
    ("family", "words"),
    [("llama", ""), ("qwen3_next", "layers with a constant state multiply"), ("diffllama", "torch counts")],
)
def test_what_cannot_be_counted_unquantised_cannot_be_counted_quantised(
    tmp_path: Path, family: str, words: str
) -> None:
    family_model(family, "bfloat16").save_pretrained(tmp_path)
    model, _ = load_model(tmp_path, point(), torch.device("cpu"), False, quantization=INT8)
    described = describe_quantization(model, {})
    unknown = describe_needs(model, fill_cache(model, PROMPT), PROMPT, quantization=described)["unknown"]
    assert words in unknown["flops"] if words else unknown == {}


@pytest.mark.parametrize(("method", "offline"), [("torchao", "1"), ("bitsandbytes", "1"), ("fp8", "0"), ("mxfp4", "0")])
def test_the_hub_is_asked_for_kernels_of_methods_that_have_theirs_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, offline: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    settings, paths = Settings(quantization={"quant_method": method}), (tmp_path / "a", tmp_path / "b", tmp_path / "c")
    task = Task(point(quantization="small"), Sampling(**SAMPLING), settings, "cuda", *paths)
    assert worker_environment(task, tmp_path)["HF_HUB_OFFLINE"] == offline
    # And of a checkpoint that is quantised so already.
    (tmp_path / "results/models").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    save_manifest(tmp_path / "results/models", tmp_path / "model", "LlamaForCausalLM", "llama", quant_method=method)
    (tmp_path / "results/models/manifest.json").rename(tmp_path / "results/models/m.json")
    plain = replace(task, configuration=point(), settings=Settings())
    assert worker_environment(plain, tmp_path)["HF_HUB_OFFLINE"] == offline
