"""Clones with a sweep that is quick to run."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.checkout import QUICK_SAMPLING, Checkout, clone


def small_sweep(content: Any, model: Path) -> None:
    """Two points of the tiny model: one that runs, and one that no CPU can run."""
    content["models"] = {"tiny": {"source": "local", "path": str(model)}}
    content["device"] = "cpu"
    content["sweep"].update(
        round=[1],
        model=["tiny"],
        attn_implementation=["sdpa", "flash_attention_2"],
        batch_size=[1],
        sequence_length=[16],
        max_new_tokens=[4],
    )
    content["sampling"].update(QUICK_SAMPLING)


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Checkout:
    """A clone whose small sweep was measured and committed. Tests that change it take a `fresh` one."""
    folder = tmp_path_factory.mktemp("measured")
    shutil.copytree(tiny_model, folder / "model")
    checkout = clone(folder / "checkout")
    checkout.change_params(lambda content: small_sweep(content, folder / "model"))
    checkout.commit("a small sweep")
    checkout.repro()
    checkout.commit("its results")
    return checkout


@pytest.fixture
def fresh(measured: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the measured clone, DVC's cache included, to change at will; the model stays where it is."""
    shutil.copytree(measured.folder, tmp_path / "checkout", symlinks=True)
    return Checkout(tmp_path / "checkout")
