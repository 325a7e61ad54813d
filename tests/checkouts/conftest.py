"""A pipeline with one quick point, and a history of a stand-in for transformers in which a slowdown is planted."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.checkouts.stand_in import StandIn, make_stand_in
from tests.pipeline.checkout import QUICK_SAMPLING, Checkout, clone

FAST_SECONDS, SLOW_SECONDS = 0.08, 0.2  # of sleep in each forward pass; what the tiny model computes takes 2 ms


@dataclass(frozen=True)
class Bench:
    """A pipeline, and the checkout whose commits it measures."""

    pipeline: Checkout
    stand_in: StandIn
    commits: dict[str, str]  # by subject

    def hfbench(self, *words: str, check: bool = True) -> Any:
        """Run a command of hfbench in the pipeline."""
        variables = self.stand_in.variables(self.pipeline)
        return self.pipeline.run("python", "-m", "hfbench.cli", *words, check=check, **variables)


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Bench:
    folder = tmp_path_factory.mktemp("bench")
    shutil.copytree(tiny_model, folder / "model")
    pipeline = clone(folder / "pipeline")
    pipeline.change_params(lambda content: _one_point(content, folder / "model"))
    pipeline.commit("one point")
    stand_in = make_stand_in(folder)
    history = [
        ("Start", FAST_SECONDS),
        ("Notes on Start", None),
        ("Tidy up", FAST_SECONDS),
        ("Rework the mask", SLOW_SECONDS),
        ("Notes 1", None),
        ("Notes 2", None),
        ("Notes 3", None),
        ("Notes 4", None),
    ]
    commits = {
        subject: stand_in.commit_notes(subject) if seconds is None else stand_in.commit_code(subject, seconds)
        for subject, seconds in history
    }
    return Bench(pipeline, stand_in, commits)


def _one_point(content: Any, model: Path) -> None:
    content["models"] = {"tiny": {"source": "local", "path": str(model)}}
    content["device"] = "cpu"
    content["sweep"].update(
        round=[1],
        model=["tiny"],
        attn_implementation=["sdpa"],
        batch_size=[1],
        sequence_length=[16],
        max_new_tokens=[4],
    )
    content["sampling"].update(QUICK_SAMPLING)


def read_state(bench: Bench) -> tuple[str, ...]:
    """Return what must be as before after a command: three values of the checkout, and two of the workspace."""
    git = bench.stand_in.git
    return (
        git("symbolic-ref", "HEAD"),
        git("status", "--porcelain"),
        git("for-each-ref"),
        bench.pipeline.run("git", "status", "--porcelain").stdout,
        (bench.pipeline.folder / "params.yaml").read_text(),
    )
