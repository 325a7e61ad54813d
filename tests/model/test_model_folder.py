"""Which files of a folder are the model."""

import ast
from pathlib import Path

import pytest
import transformers

from hfbench.core.errors import UserError
from hfbench.model.cache import size_text
from hfbench.model.folder import TOKENIZER_FILES, support_files, tokenizer_files, weight_files


def test_every_vocabulary_file_that_transformers_reads_is_known() -> None:
    """Its tokenizers name them in a dictionary at the top of their modules."""
    read: set[str] = set()
    for path in Path(transformers.__file__).parent.glob("models/*/tokenization_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "VOCAB_FILES_NAMES" for target in node.targets
            ):
                values = node.value.values if isinstance(node.value, ast.Dict) else []
                read |= {str(value.value) for value in values if isinstance(value, ast.Constant)}
    assert {"vocab.json", "spiece.model"} <= read
    assert read <= TOKENIZER_FILES


def test_a_single_weights_file_goes_before_an_index_as_in_transformers(tmp_path: Path) -> None:
    names = {"model.safetensors", "model.safetensors.index.json", "model-00001-of-00001.safetensors"}
    assert weight_files(names, "here", lambda: tmp_path / "not read") == ["model.safetensors"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}'])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(UserError, match="is no index of weights"):
        weight_files({index.name}, "here", lambda: index)


def test_code_and_its_vocabulary_count_only_where_code_is_trusted() -> None:
    names = ["config.json", "tokenizer.json", "own.py", "kernels/fast.py", "qwen.tiktoken", "pytorch_model.bin"]
    assert support_files(names, "here", trust_remote_code=False) == ["config.json", "tokenizer.json"]
    trusted = support_files(names, "here", trust_remote_code=True)
    assert trusted == ["config.json", "kernels/fast.py", "own.py", "qwen.tiktoken", "tokenizer.json"]
    assert tokenizer_files(names) == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (269_060_552, "269 MB"),
        (4_900_000_000, "4.9 GB"),
        (2e12, "2000 GB"),
    ],
)
def test_sizes_as_people_write_them(size_bytes: float, text: str) -> None:
    assert size_text(size_bytes) == text
