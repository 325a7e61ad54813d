"""The shapes of a sweep, and the sentence where a model has too few positions for them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from hfbench.core.errors import UserError
from hfbench.core.point import USUAL, Configuration
from hfbench.core.record import Manifest
from hfbench.inputs.artifact import read_metadata
from hfbench.inputs.prepare import prepare_inputs
from hfbench.inputs.shapes import check_positions, draw, shapes_of
from hfbench.params.schema import load_params
from hfbench.params.sections import ListedLengths, LogNormalLengths
from tests.inputs.conftest import PROMPT
from tests.params.test_schema import write

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
    assert "'tiny' has 128 positions (max_position_embeddings or max_seq_len)" in str(error.value)


LISTED = ListedLengths(prompt_tokens=[4, 2, 3], new_tokens=[1, 5, 2])


def point(name: str, batch_size: int, sequence_length: int, max_new_tokens: int) -> Configuration:
    usual = {**USUAL, "request_lengths": name, "batch_size": batch_size}
    lengths: dict[str, Any] = {"sequence_length": sequence_length, "max_new_tokens": max_new_tokens}
    return Configuration(round=1, model="tiny", attn_implementation="sdpa", **usual, **lengths)


def test_listed_requests_are_rows_padded_on_the_left(tmp_path: Path, make_manifest: MakeManifest) -> None:
    points = [point("few", batch, 4, 5) for batch in (1, 2)] + [point("uniform", 3, 4, 5)]
    prepare_inputs(make_manifest("llama"), points, PROMPT, tmp_path, {"few": LISTED})
    path = tmp_path / "few" / "b2-s4-n5-d0.safetensors"
    with safe_open(path, framework="numpy") as file:
        rows, mask = file.get_tensor("input_ids").tolist(), file.get_tensor("attention_mask").tolist()
        assert file.get_tensor("prompt_tokens").tolist() == [4, 2, 3]
        assert file.get_tensor("new_tokens").tolist() == [1, 5, 2]
    with safe_open(tmp_path / "uniform" / "b3-s4-n5-d0.safetensors", framework="numpy") as file:
        stream = file.get_tensor("input_ids")[:, 1:].ravel().tolist()  # each row begins with BOS
        assert sorted(file.keys()) == ["attention_mask", "input_ids"]
    bos, pad = 1, 2
    assert mask == [[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    assert rows == [[bos, *stream[:3]], [pad, pad, bos, stream[3]], [pad, bos, *stream[4:6]]]
    metadata = read_metadata(path)
    assert (metadata["requests"], metadata["total_prompt_tokens"], metadata["total_new_tokens"]) == ("3", "9", "8")
    before = path.read_bytes()
    prepare_inputs(make_manifest("llama"), points[1:2], PROMPT, tmp_path, {"few": LISTED})
    assert path.read_bytes() == before


def test_drawn_lengths_are_the_same_everywhere_and_the_longest_is_the_one_asked_for() -> None:
    entry = LogNormalLengths(requests=8, sigma=0.8, seed=0)
    requests = draw(entry, longest_prompt=128, most_new_tokens=64, shortest_prompt=2)
    assert requests.prompt_tokens == (36, 42, 72, 38, 128, 12, 51, 16)
    assert requests.new_tokens == (16, 13, 13, 3, 18, 28, 64, 33)
    other = draw(LogNormalLengths(requests=8, sigma=0.8, seed=1), 128, 64, 2)
    assert other.prompt_tokens != requests.prompt_tokens
    assert draw(LogNormalLengths(requests=1, sigma=0.8), 128, 64, 2).prompt_tokens == (128,)


def test_no_drawn_request_is_too_short() -> None:
    requests = draw(LogNormalLengths(requests=200, sigma=3.0), longest_prompt=40, most_new_tokens=20, shortest_prompt=2)
    assert (min(requests.prompt_tokens), max(requests.prompt_tokens)) == (2, 40)
    assert (min(requests.new_tokens), max(requests.new_tokens)) == (1, 20)


def test_a_listed_prompt_without_room_for_text(tmp_path: Path, make_manifest: MakeManifest) -> None:
    short = ListedLengths(prompt_tokens=[4, 1], new_tokens=[5, 5])
    with pytest.raises(UserError, match=r"request_lengths\.few has a prompt of 1 token\(s\).* at least 2"):
        prepare_inputs(make_manifest("llama"), [point("few", 1, 4, 5)], PROMPT, tmp_path, {"few": short})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("axis", "value", "words"),
    [
        ("sequence_length", [128, 64], "request_lengths.few has at most 128 prompt tokens, .* sequence_length 64"),
        ("max_new_tokens", [16], "request_lengths.few has at most 32 new tokens, .* max_new_tokens 16"),
    ],
)
def test_a_list_whose_longest_is_not_the_axis_value(tmp_path: Path, axis: str, value: list[int], words: str) -> None:
    def change(content: Any) -> None:
        content["request_lengths"] = {"few": {"prompt_tokens": [128, 64, 16], "new_tokens": [8, 32, 4]}}
        content["sweep"].update({"request_lengths": ["uniform", "few"], axis: value})

    with pytest.raises(UserError, match=words):
        load_params(write(tmp_path / "params.yaml", change))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"prompt_tokens": [8, 4], "new_tokens": [8]}, "as many new_tokens as prompt_tokens; there are 1 and 2"),
        ({"requests": 8, "sigma": 9.0}, "request_lengths.few.sigma is 9.0"),
        ({"prompt_tokens": [8, 0], "new_tokens": [8, 1]}, "request_lengths.few.prompt_tokens.1 is 0"),
    ],
)
def test_an_entry_that_is_wrong_is_named(tmp_path: Path, entry: dict[str, object], words: str) -> None:
    path = write(tmp_path / "params.yaml", lambda content: content.update(request_lengths={"few": entry}))
    with pytest.raises(UserError) as error:
        load_params(path)
    assert words in str(error.value)
