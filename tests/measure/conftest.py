"""The inputs of a measurement of the tiny model, and a process in which nothing was compiled."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch._dynamo.utils import clear_compilation_metrics, counters

from hfbench.core.record import Manifest, ModelFile
from hfbench.measure.prompt import Prompt
from tests.measure.stage_process import Bench

ROWS = torch.arange(1, 33).reshape(2, 16)
PROMPT = Prompt(ROWS, torch.ones_like(ROWS), pad_token_id=0)
NO_LOADING: dict[str, list[str]] = {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": []}


def save_batch(path: Path, rows: torch.Tensor, **tensors: torch.Tensor) -> None:
    """Write a batch as the stage `inputs` does, of whole rows unless there is an `attention_mask`."""
    content = {"input_ids": rows, "attention_mask": torch.ones_like(rows), **tensors}
    save_file(content, path, metadata={"pad_token_id": "0"})


def save_manifest(
    folder: Path, model: Path, architecture: str, model_type: str, quant_method: str | None = None
) -> None:
    """Write the manifest of a model of the tiny model's sizes."""
    files = tuple(
        ModelFile(path.name, path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(model.iterdir())
    )
    source = {"source": "local", "path": str(model), "trust_remote_code": False}
    manifest = Manifest(2, "tiny", source, {}, architecture, model_type, 600, 128, files, None, quant_method)
    manifest.save(folder / "manifest.json")


def make_bench(folder: Path, model: Path, environment: Path) -> Bench:
    """The manifest of the tiny model and one prompt batch of 2 rows of 16 tokens, in this folder."""
    save_manifest(folder, model, "LlamaForCausalLM", "llama")
    save_batch(folder / "b2-s16.safetensors", ROWS)
    return Bench(folder, environment)


@pytest.fixture
def bench(tmp_path: Path, tiny_model: Path, cpu_environment: Path) -> Bench:
    return make_bench(tmp_path, tiny_model, cpu_environment)


@pytest.fixture
def threads_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the variable name the threads that this process has."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))


def forget_compilation() -> None:
    torch.compiler.reset()
    clear_compilation_metrics()
    counters.clear()


@pytest.fixture
def nothing_compiled() -> Iterator[None]:
    """Keep what the test compiles, and what torch says of it, from the other tests of this process."""
    forget_compilation()
    yield
    forget_compilation()
