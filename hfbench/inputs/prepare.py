"""What a model's inputs stage does: from a manifest, a sweep and a prompt to a folder of inputs files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfbench.core.errors import UserError
from hfbench.core.record import Manifest
from hfbench.inputs import artifact
from hfbench.inputs.shapes import Requests, check_positions, requests_of
from hfbench.inputs.tokenizer import TokenizedPrompt, read_prompt, tokenize_prompt
from hfbench.model.manifest import materialise
from hfbench.params.sections import Shape, Workloads


def exact_rows(
    prefix_ids: NDArray[np.int64], text_ids: NDArray[np.int64], batch_size: int, sequence_length: int
) -> NDArray[np.int64]:
    """Return int64 token ids of shape `(batch_size, sequence_length)`, without padding.

    Each row is `prefix_ids` (what the tokenizer puts before a text, such as BOS) and then text. Row 0 reads the text
    from its beginning and row i reads on where row i - 1 ended; a text that ends begins again. Rows differ on purpose:
    identical rows would send every token of a mixture of experts to the same experts and be shared whole by a prefix
    cache, and so flatter both.

    `sequence_length` must be greater than the length of `prefix_ids`, and `text_ids` must not be empty.
    """
    text_per_row = sequence_length - len(prefix_ids)
    positions = np.arange(batch_size * text_per_row).reshape(batch_size, text_per_row) % len(text_ids)
    prefix = np.broadcast_to(prefix_ids, (batch_size, len(prefix_ids)))
    return np.concatenate([prefix, text_ids[positions]], axis=1, dtype=np.int64)


def padded_rows(
    prefix_ids: NDArray[np.int64], text_ids: NDArray[np.int64], lengths: Sequence[int], pad_token_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return int64 token ids and attention mask of shape `(len(lengths), max(lengths))`, padded on the left.

    Each row has as many tokens as `lengths` says, at least one more than `prefix_ids`, read as in `exact_rows`. The
    mask is 0 for padding.
    """
    longest, read = max(lengths), 0
    rows = np.full((len(lengths), longest), pad_token_id, dtype=np.int64)
    mask = np.zeros_like(rows)
    for row, length in enumerate(lengths):
        text = length - len(prefix_ids)
        positions = np.arange(read, read + text) % len(text_ids)
        rows[row, longest - length :] = np.concatenate([prefix_ids, text_ids[positions]])
        mask[row, longest - length :] = 1
        read += text
    return rows, mask


def count_distinct(rows: NDArray[np.int64]) -> int:
    """Return how many of the rows differ from each other; a short text makes rows of a large batch repeat."""
    return len(np.unique(rows, axis=0))


def prepare_inputs(manifest: Manifest, workloads: Workloads, prompt_path: Path, folder: Path) -> None:
    """Write one inputs file for each shape into `folder`; none where one of them cannot be made.

    A file's bytes depend on its own shape and lengths, the prompt and the model alone, so that another shape changes no
    other file. Raises `UserError` on too few positions, on a prompt or tokenizer of no use, on token ids outside the
    model's vocabulary, and on rows too short to hold text.
    """
    shapes, lengths = workloads.shapes, workloads.request_lengths
    if not shapes:  # a model of the sweep that only other points than those listed would use
        folder.mkdir(parents=True, exist_ok=True)
        return
    check_positions(manifest, shapes)
    prompt = read_prompt(prompt_path)
    tokenized = tokenize_prompt(manifest, materialise(manifest), prompt)
    prefix_tokens = len(tokenized.prefix_ids)
    for shape in shapes:
        _check_room_for_text(manifest, shape, prefix_tokens)
    requests = [requests_of(shape, lengths, prefix_tokens, manifest.name) for shape in shapes]
    for shape, unequal in zip(shapes, requests, strict=True):
        if unequal is None:
            _write(folder / shape.file_name, shape, tokenized)
        else:
            _write_requests(folder / shape.file_name, shape, unequal, tokenized)


def _check_room_for_text(manifest: Manifest, shape: Shape, prefix_tokens: int) -> None:
    if shape.row_tokens <= prefix_tokens:
        after = f" after a context_depth of {shape.context_depth}" if shape.context_depth else ""
        raise UserError(
            f"sequence_length is {shape.sequence_length}{after}, and the tokenizer of {manifest.name!r} begins each "
            f"row with {prefix_tokens} special token(s), which leaves no room for text. Ask for at least "
            f"{prefix_tokens + 1 - shape.context_depth}."
        )


def _write(path: Path, shape: Shape, tokenized: TokenizedPrompt) -> None:
    rows = exact_rows(tokenized.prefix_ids, tokenized.text_ids, shape.batch_size, shape.row_tokens)
    artifact.write(path, rows, np.ones_like(rows), _metadata(shape, tokenized, rows))


def _write_requests(path: Path, shape: Shape, requests: Requests, tokenized: TokenizedPrompt) -> None:
    pad_token_id = int(tokenized.metadata["pad_token_id"])
    rows, mask = padded_rows(tokenized.prefix_ids, tokenized.text_ids, requests.prompt_tokens, pad_token_id)
    metadata = {
        **_metadata(shape, tokenized, rows),
        "requests": str(len(rows)),
        "total_prompt_tokens": str(sum(requests.prompt_tokens)),
        "total_new_tokens": str(sum(requests.new_tokens)),
    }
    artifact.write(path, rows, mask, metadata, np.array(requests.new_tokens, dtype=np.int64))


def _metadata(shape: Shape, tokenized: TokenizedPrompt, rows: NDArray[np.int64]) -> dict[str, str]:
    return {
        **tokenized.metadata,
        "batch_size": str(shape.batch_size),
        "sequence_length": str(shape.sequence_length),
        "context_depth": str(shape.context_depth),
        "distinct_rows": str(count_distinct(rows)),
    }
