"""An inputs file: token ids, attention mask and metadata as safetensors, in the same bytes on every run and machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfbench.core.errors import UserError
from hfbench.core.files import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# https://huggingface.co/docs/safetensors: 8 bytes hold the header's size, then JSON padded with spaces, then the data.
_SIZE_BYTES = 8
_ALIGNMENT_BYTES = 8


def write(
    path: Path,
    input_ids: "NDArray[np.int64]",
    attention_mask: "NDArray[np.int64]",
    metadata: dict[str, str],
    new_tokens: "NDArray[np.int64] | None" = None,
) -> None:
    """Write int64 `input_ids` and `attention_mask`, both of shape `(batch_size, sequence_length)`, atomically.

    Where `new_tokens` tells how many each row is to get, of shape `(batch_size,)`, it is written beside them, with
    `prompt_tokens`, how many of each row are no padding. DVC knows the file by its hash, so equal content gives equal
    bytes. Raises `ValueError` on another dtype or shape.
    """
    import numpy as np
    from safetensors.numpy import save

    tensors = {"attention_mask": attention_mask, "input_ids": input_ids}
    if any(tensor.dtype != "int64" or tensor.ndim != 2 for tensor in tensors.values()):
        raise ValueError("input_ids and attention_mask must be int64 of shape (batch_size, sequence_length)")
    if input_ids.shape != attention_mask.shape:
        raise ValueError(f"input_ids is {input_ids.shape} and attention_mask is {attention_mask.shape}")
    # safetensors writes an array's memory as it lies: a transposed one would come back with its values in wrong places.
    if new_tokens is not None:
        tensors |= {"new_tokens": new_tokens, "prompt_tokens": attention_mask.sum(axis=1)}
    in_row_order = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    content = _with_canonical_header(save(in_row_order, metadata=metadata))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata, reading no tensors and importing no numpy. Raises `UserError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            header_size = int.from_bytes(file.read(_SIZE_BYTES), "little")
            if header_size > path.stat().st_size:
                raise ValueError("the header is larger than the file")
            return _metadata(json.loads(file.read(header_size)))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run `dvc repro` to make it.") from None
    except ValueError as error:
        raise UserError(f"{path} is not an inputs file of hfbench ({error}). Delete it and run `dvc repro`.") from None


def _metadata(header: Any) -> dict[str, str]:
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("the header has no metadata")
    return metadata


def _with_canonical_header(content: bytes) -> bytes:
    # safetensors keeps metadata in a hash map, and its order changes from call to call.
    data_start = _SIZE_BYTES + int.from_bytes(content[:_SIZE_BYTES], "little")
    header = json.loads(content[_SIZE_BYTES:data_start])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(_SIZE_BYTES, "little") + text + content[data_start:]
