"""The inputs file: what it holds, that its bytes never vary, and that a broken one is named."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from hfbench.core.errors import UserError
from hfbench.inputs import artifact

INPUT_IDS = np.arange(6, dtype=np.int64).reshape(2, 3)
METADATA = {f"key_{index}": f"value {index}" for index in range(12)} | {"pad_token": "</s> é ▁"}


def write_file(path: Path) -> Path:
    artifact.write(path, INPUT_IDS, np.ones_like(INPUT_IDS), METADATA)
    return path


def test_safetensors_reads_back_what_was_written(tmp_path: Path) -> None:
    path = write_file(tmp_path / "inputs.safetensors")
    with safe_open(path, framework="numpy") as file:
        assert sorted(file.keys()) == ["attention_mask", "input_ids"]
        assert file.get_tensor("input_ids").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert file.get_tensor("attention_mask").tolist() == [[1, 1, 1], [1, 1, 1]]
        assert file.get_tensor("input_ids").dtype == np.int64
        assert file.metadata() == METADATA


def test_tensors_that_are_no_contiguous_memory_keep_their_rows(tmp_path: Path) -> None:
    turned = INPUT_IDS.T
    artifact.write(tmp_path / "a", turned, np.ones_like(turned), METADATA)
    with safe_open(tmp_path / "a", framework="numpy") as file:
        assert file.get_tensor("input_ids").tolist() == [[0, 3], [1, 4], [2, 5]]


def test_bytes_are_equal_in_every_process_and_for_every_order_of_metadata(tmp_path: Path) -> None:
    # safetensors itself orders 13 entries anew at each call: two equal files of it would be one chance in 13!.
    here = write_file(tmp_path / "here").read_bytes()
    artifact.write(tmp_path / "turned", INPUT_IDS, np.ones_like(INPUT_IDS), dict(reversed(METADATA.items())))
    program = (
        "import sys, numpy as np; from pathlib import Path; from hfbench.inputs import artifact\n"
        "ids = np.arange(6, dtype=np.int64).reshape(2, 3)\n"
        f"artifact.write(Path(sys.argv[1]), ids, np.ones_like(ids), {METADATA!r})"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "there")], check=True)
    assert (tmp_path / "turned").read_bytes() == here
    assert (tmp_path / "there").read_bytes() == here


def test_the_header_is_sorted_json_padded_with_spaces_to_eight_bytes(tmp_path: Path) -> None:
    content = write_file(tmp_path / "inputs.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size]
    assert size % 8 == 0
    assert header.rstrip(b" ").endswith(b"}")
    assert list(json.loads(header)["__metadata__"]) == sorted(METADATA)
    assert len(content) == 8 + size + 2 * INPUT_IDS.nbytes


def test_metadata_is_read_without_numpy_or_torch(tmp_path: Path) -> None:
    path = write_file(tmp_path / "inputs.safetensors")
    program = (
        "import sys; from pathlib import Path; from hfbench.inputs.artifact import read_metadata\n"
        "print(read_metadata(Path(sys.argv[1]))['key_3'], {'numpy', 'torch', 'safetensors'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "value 3 set()"
    assert artifact.read_metadata(path) == METADATA


@pytest.mark.parametrize(
    ("input_ids", "attention_mask"),
    [
        (INPUT_IDS.astype(np.int32), np.ones_like(INPUT_IDS)),
        (INPUT_IDS, np.ones((2, 3))),
        (INPUT_IDS, np.ones((2, 2), dtype=np.int64)),
        (INPUT_IDS[0], np.ones(3, dtype=np.int64)),
    ],
)
def test_other_dtypes_and_shapes_are_refused(tmp_path: Path, input_ids: np.ndarray, attention_mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="input_ids"):
        artifact.write(tmp_path / "inputs.safetensors", input_ids, attention_mask, METADATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        (9).to_bytes(8, "little") + b"not json!",
        (2).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xfe",
    ],
)
def test_a_broken_file_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b1-s8.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"b1-s8\.safetensors is not an inputs file .* Delete it and run `dvc repro`"):
        artifact.read_metadata(path)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"b1-s8\.safetensors does not exist. Run `dvc repro`"):
        artifact.read_metadata(tmp_path / "b1-s8.safetensors")
