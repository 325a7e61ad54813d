"""What a model's inputs stage does: from a manifest, a sweep and a prompt to a folder of inputs files."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfbench.foundation.configuration import Configuration
from hfbench.foundation.errors import UserError
from hfbench.foundation.records import Manifest
from hfbench.foundation.settings import ListedLengths, LogNormalLengths
from hfbench.inputs import artifact
from hfbench.inputs.prompt import read_prompt
from hfbench.inputs.requests import Requests, requests_of
from hfbench.inputs.rows import count_distinct, exact_rows, padded_rows
from hfbench.inputs.shapes import Shape, check_positions, shapes_of
from hfbench.inputs.tokenized import TokenizedPrompt, tokenize_prompt
from hfbench.models.materialise import materialise


def prepare_inputs(
    manifest: Manifest,
    points: Iterable[Configuration],
    prompt_path: Path,
    folder: Path,
    lengths: Mapping[str, ListedLengths | LogNormalLengths],
) -> None:
    """Write one inputs file for each shape of the points into `folder`; none where one of them cannot be made.

    `lengths` are the `request_lengths` of the params. A file's bytes depend on its own shape and lengths, the prompt
    and the model alone, so that another shape changes no other file. Raises `UserError` on too few positions, on a
    prompt or tokenizer of no use, on token ids outside the model's vocabulary, and on rows too short to hold text.
    """
    shapes = shapes_of(points)
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
