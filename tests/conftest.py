"""What the tests of several rooms share: a tiny model, an environment description, and trees of files like /proc."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

WriteTree = Callable[[Mapping[str, str | int]], Path]
ROOT = Path(__file__).resolve().parent.parent
TINY: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # As in a job that a shell runs in the background; what the tests start would ignore Ctrl-C too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Files whose tests take minutes. They come first, so that none is left alone at the end of a run of two at a time.
_LONGEST = (
    "fleet/test_fleet.py",
    "checkouts/test_interleave.py",
    "pipeline/test_incremental.py",
    "checkouts/test_bisect.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    names = [str(ROOT / "tests" / name) for name in _LONGEST]
    items.sort(key=lambda item: names.index(str(item.path)) if str(item.path) in names else len(names))


Found = TypeVar("Found")


def some(found: Found | None) -> Found:
    """What is there, although by its type it may be None."""
    assert found is not None
    return found


def run_stage(name: str, folder: Path, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a stage as DVC does, in `folder`, with the code of this working tree."""
    inherited = {name: value for name, value in os.environ.items() if name != "HFBENCH_TABLE"}
    return subprocess.run(
        [sys.executable, "-m", f"stages.{name}", *words],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def save_tokenizer(folder: Path) -> None:
    """Write a byte-level BPE tokenizer of 600 tokens, trained on the standard prompt."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    prompt = ROOT / "hfbench/inputs/standard_prompt.txt"
    bpe.train([str(prompt)], vocab_size=TINY["vocab_size"], special_tokens=["<|end|>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token="<|end|>").save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as save_pretrained writes it: a random llama of 0.1M parameters and a byte-level BPE tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    torch.manual_seed(0)
    config = AutoConfig.for_model(**TINY)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _own_turns(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let the processes that run tests measure at the same time: nothing rests on how long it takes."""
    os.environ["HFBENCH_LOCKS"] = str(tmp_path_factory.mktemp("locks"))


@pytest.fixture(scope="session")
def cpu_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the measurement reads of results/environment.json, for a machine without accelerator."""
    path = tmp_path_factory.mktemp("environment") / "environment.json"
    content: dict[str, Any] = {"cpu": {"brand": "test"}, "accelerators": [], "packages": {}, "compiler": "c++"}
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def write_tree(tmp_path: Path) -> WriteTree:
    """Write files below one root, which stands for `/`, and return it."""

    def write(files: Mapping[str, str | int]) -> Path:
        for name, content in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return tmp_path / "root"

    return write
