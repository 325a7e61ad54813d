"""Kernels in the place of layers: what replaced what, and what is said where that is not what was asked for."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.record import FAILED, OK, REJECTED, UNAVAILABLE, Record, Settings
from hfbench.model.folder import kernel_sha256
from tests.conftest import ROOT, TINY
from tests.measure.conftest import save_manifest
from tests.measure.stage_process import Bench

EXAMPLE = ROOT / "examples/kernels/rmsnorm-cpu"
BUILD = "build/torch-universal"
SHORT = {"min_iterations": 1, "max_iterations": 1, "min_warmup_iterations": 0, "max_warmup_iterations": 0}
NOBODY = "http://127.0.0.1:9"  # where nothing listens
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# What a flash attention kernel offers, in plain torch; shape (batch, tokens, heads, head size).
ATTENTION = """
import torch

def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1)):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    weights = (q @ k.mT).float() * softmax_scale
    hidden = torch.ones(weights.shape[-2:], dtype=torch.bool).triu(1 + k.shape[2] - q.shape[2])
    weights = weights.masked_fill(hidden & (q.shape[2] > 1), -torch.inf)
    return (weights.softmax(-1).to(v.dtype) @ v).transpose(1, 2)

def flash_attn_varlen_func(q, k, v, **arguments):
    raise NotImplementedError
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped kernel."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "rmsnorm"))


def local(folder: Path, **changes: str) -> dict[str, Any]:
    entry = {"layer": "RMSNorm", "device": "cpu", "path": str(folder), "layer_name": "RMSNorm"}
    return {**entry, "sha256": kernel_sha256(folder), **changes}


def hub(repository: str, **layer: str) -> dict[str, Any]:
    return {"repository": repository, "revision": COMMIT, "trust_remote_code": False, **layer}


def edit(folder: Path, old: str, new: str) -> None:
    source = folder / BUILD / "layers.py"
    assert old in source.read_text()
    source.write_text(source.read_text().replace(old, new))


def measure(bench: Bench, *kernels: dict[str, Any], use_kernels: bool = True, **values: object) -> Record:
    with_kernels = dataclasses.replace(bench, settings=Settings(kernels=kernels))
    return with_kernels.measure(*["--use_kernels"] * use_kernels, **SHORT, **values)


def test_a_local_kernel_replaces_its_layers(bench: Bench, folder: Path) -> None:
    plain, kernel = measure(bench, use_kernels=False), local(folder)
    record = measure(bench, kernel)
    assert record.status == OK, record.reason
    origin = {"path": str(folder), "sha256": kernel["sha256"]}
    norm, *others = record.effective["kernelized_layers"]
    counted = {"layer": "RMSNorm", "class": "LlamaRMSNorm", "modules": 5, "replaced": 5}
    assert norm == {**counted, "kernel": "RMSNorm.forward", **origin}
    assert [(each["layer"], each["replaced"]) for each in others] == [("SiLU", 0), ("rotary_pos_emb", 0)]
    assert record.effective["loaded_kernels"] == [{"name": "rmsnorm-cpu", "version": 1, **origin}]
    assert record.requested["kernels"] == [kernel]
    assert plain.effective["loaded_kernels"] == []
    for what in ("prompt_nll", "prompt_top1", "tokens"):
        assert record.output[what] == plain.output[what]
    assert not list(folder.rglob("__pycache__"))

    edit(folder, "self.weight *", "2 * self.weight *")
    assert measure(bench, local(folder)).output["prompt_nll"] != plain.output["prompt_nll"]


def test_a_kernel_edited_since_it_was_described_ends_the_run(bench: Bench, folder: Path) -> None:
    with_kernel = dataclasses.replace(bench, settings=Settings(kernels=(local(folder),)))
    edit(folder, "rsqrt_()", "rsqrt()")
    process = with_kernel.start("--use_kernels")
    stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert f"the kernel in {folder} was edited" in stderr
    assert "Traceback" not in stderr
    assert not bench.output.exists()


def test_kernels_that_replace_nothing_are_rejected(bench: Bench, folder: Path) -> None:
    record = measure(bench, local(folder, device="cuda"))
    assert (record.status, [each.phase for each in record.iterations]) == (REJECTED, ["first"])
    assert "replaced no layer: no kernel is mapped on cpu for RMSNorm, SiLU" in str(record.reason)
    assert "kernels has cuda only" in str(record.reason)


def test_each_entry_must_replace_a_layer(bench: Bench, folder: Path) -> None:
    record = measure(bench, local(folder), local(folder, layer="RMSNrom"))
    assert record.status == REJECTED
    assert record.reason == (
        "kernels names the layer RMSNrom, and this model has none; it has RMSNorm, SiLU, rotary_pos_emb"
    )


def test_a_kernel_that_does_not_fit_the_layer_fails_before_anything_is_measured(bench: Bench, folder: Path) -> None:
    edit(folder, "hidden_states: torch.Tensor)", "hidden_states: torch.Tensor, residual: torch.Tensor)")
    record = measure(bench, local(folder))
    assert (record.status, record.phase, record.iterations) == (FAILED, "load", [])
    assert "does not match `LlamaRMSNorm`: different number of arguments" in str(record.reason)


def test_hub_kernels_are_those_of_the_commit(
    bench: Bench, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_cache(name: str) -> Path:
        return tmp_path / "hub" / f"kernels--someone--{name}" / "snapshots" / COMMIT

    shutil.move(folder, in_cache("norm"))
    attention = in_cache("attention") / BUILD
    attention.mkdir(parents=True)
    (attention / "__init__.py").write_text(ATTENTION)
    described = json.loads((EXAMPLE / BUILD / "metadata.json").read_text())
    (attention / "metadata.json").write_text(json.dumps({**described, "name": "attention", "id": "_attention_1"}))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    norm = hub("someone/norm", layer="RMSNorm", device="cpu", layer_name="RMSNorm")
    record = measure(bench, norm, hub("someone/attention"), attn_implementation="someone/attention")
    assert record.status == OK, record.reason
    origin = {"repository": "someone/norm", "revision": COMMIT}
    assert origin.items() <= record.effective["kernelized_layers"][0].items()
    assert record.effective["attn_implementation"] == f"someone/attention@{COMMIT}"
    named = {kernel["repository"]: kernel["revision"] for kernel in record.effective["loaded_kernels"]}
    assert named == {"someone/norm": COMMIT, "someone/attention": COMMIT}
    plain = measure(bench, use_kernels=False)
    assert record.output["prompt_nll"] == pytest.approx(plain.output["prompt_nll"], abs=0.01)


def test_a_hub_that_is_not_there_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    record = measure(bench, hub("someone/norm", layer="RMSNorm", device="cpu", layer_name="RMSNorm"))
    assert (record.status, record.phase) == (UNAVAILABLE, "prepare")
    assert str(record.reason).startswith("ValueError: a kernel could not be fetched; is the hub reachable?")


def test_transformers_own_mapping_without_a_hub_is_told(
    bench: Bench, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    # The one architecture with a layer for which transformers 5.22 maps a kernel on the CPU, and that from the hub.
    config = AutoConfig.for_model(**{**TINY, "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2})
    shutil.copytree(tiny_model, tmp_path / "gpt-oss")  # for the tokenizer
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt-oss")
    save_manifest(bench.folder, tmp_path / "gpt-oss", "GptOssForCausalLM", "gpt_oss")
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    record = measure(bench, attn_implementation="eager")
    assert (record.status, record.phase) == (UNAVAILABLE, "load")
    assert str(record.reason).startswith("ConnectError: a kernel could not be fetched; is the hub reachable?")
