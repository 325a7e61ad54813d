"""Real tokenizers of the kinds that model families ship, trained on the standard prompt in a moment."""

import dataclasses
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from hfbench.core.point import UNIFORM
from hfbench.core.record import Manifest
from hfbench.core.sources import LocalSource
from hfbench.model.manifest import resolve_local
from hfbench.params.sections import Shape, Workloads
from tests.conftest import ROOT

MakeManifest = Callable[..., Manifest]
PROMPT = ROOT / "hfbench/inputs/standard_prompt.txt"
VOCAB_SIZE = 600  # of every tokenizer below


def workloads(
    batch_size: list[int], sequence_length: list[int], max_new_tokens: tuple[int, ...] = (8,), context_depth: int = 0
) -> Workloads:
    """Return all combinations, of rows of one length."""
    usual = {"request_lengths": UNIFORM, "context_depth": context_depth}
    names = ("batch_size", "sequence_length", "max_new_tokens")
    sizes = [dict(zip(names, each, strict=True)) for each in product(batch_size, sequence_length, max_new_tokens)]
    shapes = [Shape.model_validate(usual | each) for each in sizes]
    return Workloads(shapes=shapes, request_lengths={})


def train_tokenizer(special_tokens: list[str], template: str | None = None) -> Tokenizer:
    """Return a byte-level BPE tokenizer; the special tokens have ids 0, 1, …"""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([PROMPT.read_text(encoding="utf-8")], trainer)
    if template is not None:
        pairs = [(token, tokenizer.token_to_id(token)) for token in special_tokens]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=pairs)
    return tokenizer


def train_metaspace_tokenizer() -> Tokenizer:
    """Return a tokenizer as Llama's: words begin with a lower one-eighth block, BOS first, unknown bytes spelt out."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    tokenizer.train_from_iterator([PROMPT.read_text(encoding="utf-8")], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def _families() -> dict[str, PreTrainedTokenizerFast]:
    bos_and_eos = train_tokenizer(["<s>", "</s>"], "<s> $A </s>")
    # Some repositories ship a tokenizer.json that still cuts and pads as its training run did.
    truncating = train_tokenizer(["<s>", "</s>"], "<s> $A")
    truncating.enable_truncation(16)
    truncating.enable_padding(length=24, pad_token="</s>", pad_id=1)
    return {
        "gpt2": PreTrainedTokenizerFast(
            tokenizer_object=train_tokenizer(["<|endoftext|>"]),
            bos_token="<|endoftext|>",
            eos_token="<|endoftext|>",
            model_max_length=64,
        ),
        "llama": PreTrainedTokenizerFast(
            tokenizer_object=train_metaspace_tokenizer(), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
        ),
        "appends-eos": PreTrainedTokenizerFast(tokenizer_object=bos_and_eos, bos_token="<s>", eos_token="</s>"),
        "truncates": PreTrainedTokenizerFast(
            tokenizer_object=truncating, bos_token="<s>", eos_token="</s>", pad_token="</s>"
        ),
        "pad-without-eos": PreTrainedTokenizerFast(
            tokenizer_object=train_tokenizer(["<unk>", "<pad>"]), unk_token="<unk>", pad_token="<pad>"
        ),
        "unk-only": PreTrainedTokenizerFast(tokenizer_object=train_tokenizer(["!", "<unk>"]), unk_token="<unk>"),
        "bare": PreTrainedTokenizerFast(tokenizer_object=train_tokenizer([])),
    }


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's own cache folder out of the tests."""
    monkeypatch.setenv("HFBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "inputs-cache"))


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by the family that their tokenizer behaves like; nobody loads their weights."""
    root = tmp_path_factory.mktemp("models")
    for name, tokenizer in _families().items():
        tokenizer.save_pretrained(root / name)
        LlamaConfig(vocab_size=VOCAB_SIZE).save_pretrained(root / name)
        save_file({"weight": np.zeros(1, dtype=np.float32)}, root / name / "model.safetensors")
    return {folder.name: folder for folder in root.iterdir()}


@pytest.fixture
def make_manifest(model_folders: dict[str, Path]) -> Callable[..., Manifest]:
    """Return a function from a family's name to the manifest of a local model, without a limit of positions."""

    def make(family: str, **changes: Any) -> Manifest:
        manifest = resolve_local("tiny", LocalSource(source="local", path=str(model_folders[family])), None)
        return dataclasses.replace(manifest, **{"max_position_embeddings": None, **changes})

    return make
