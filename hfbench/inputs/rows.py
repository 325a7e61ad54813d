"""Rows of exact length, cut from the prompt's token ids read as one endless stream."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
