"""The inputs of a measurement of the tiny model."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hfbench.core.record import Manifest, ModelFile
from tests.measure.stage_process import Bench


def save_manifest(folder: Path, model: Path, architecture: str, model_type: str) -> None:
    """Write the manifest of a model of the tiny model's sizes."""
    files = tuple(
        ModelFile(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(model.iterdir())
    )
    source = {"source": "local", "path": str(model), "trust_remote_code": False}
    Manifest(2, "tiny", source, {}, architecture, model_type, 600, 128, files).save(folder / "manifest.json")


@pytest.fixture
def bench(tmp_path: Path, tiny_model: Path, cpu_environment: Path) -> Bench:
    """The tiny model's manifest and one prompt batch of 2 rows of 16 tokens."""
    save_manifest(tmp_path, tiny_model, "LlamaForCausalLM", "llama")
    rows = torch.arange(1, 33).reshape(2, 16)
    save_file(
        {"input_ids": rows, "attention_mask": torch.ones_like(rows)},
        tmp_path / "b2-s16.safetensors",
        metadata={"pad_token_id": "0"},
    )
    return Bench(tmp_path, cpu_environment)
