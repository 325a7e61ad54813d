"""The shapes of a sweep, and the sentence where a model has too few positions for them."""

import re
from collections.abc import Callable

import pytest

from hfbench.core.errors import UserError
from hfbench.core.point import Configuration
from hfbench.core.record import Manifest
from hfbench.inputs.shapes import check_positions, shapes_of

MakeManifest = Callable[..., Manifest]
MakePoints = Callable[[list[int], list[int], list[int]], list[Configuration]]


def test_every_batch_size_meets_every_sequence_length(make_points: MakePoints) -> None:
    names = [shape.file_name for shape in shapes_of(make_points([1, 4], [8, 128], [2]))]
    assert names == [
        "uniform/b1-s8-n2-d0.safetensors",
        "uniform/b1-s128-n2-d0.safetensors",
        "uniform/b4-s8-n2-d0.safetensors",
        "uniform/b4-s128-n2-d0.safetensors",
    ]


@pytest.mark.parametrize(
    ("sequence_length", "max_new_tokens", "limit"), [([96], [32], 128), ([8, 120], [1, 8], 128), ([9**9], [9**9], None)]
)
def test_a_sweep_that_fits_passes(
    make_manifest: MakeManifest,
    make_points: MakePoints,
    sequence_length: list[int],
    max_new_tokens: list[int],
    limit: int | None,
) -> None:
    check_positions(
        make_manifest("gpt2", max_position_embeddings=limit),
        shapes_of(make_points([1], sequence_length, max_new_tokens)),
    )


@pytest.mark.parametrize(
    ("sequence_length", "max_new_tokens", "expected"),
    [
        ([64, 129], [1], "sequence_length is 129, and the model 'tiny' has 128 positions"),
        ([64, 97], [8, 32], "sequence_length is 97 and max_new_tokens is 32, together 129 tokens"),
        ([128], [1], "sequence_length is 128 and max_new_tokens is 1, together 129 tokens"),
    ],
)
def test_too_few_positions_name_the_key_the_value_the_model_and_the_limit(
    make_manifest: MakeManifest,
    make_points: MakePoints,
    sequence_length: list[int],
    max_new_tokens: list[int],
    expected: str,
) -> None:
    manifest = make_manifest("gpt2", max_position_embeddings=128)
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        check_positions(manifest, shapes_of(make_points([1], sequence_length, max_new_tokens)))
    assert "'tiny' has 128 positions (max_position_embeddings)" in str(error.value)
