"""What a prompt becomes with real tokenizers of different families: prefix, text, padding token, vocabulary."""

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from hfbench.core.errors import UserError
from hfbench.core.record import Manifest
from hfbench.inputs.prepare import PromptText, TokenizedPrompt, encode, read_prompt, tokenize_prompt, tokenizer_sha256
from tests.inputs.conftest import PROMPT, VOCAB_SIZE, MakeManifest

STANDARD = read_prompt(PROMPT)


def tokenize(manifest: Manifest, prompt: PromptText = STANDARD) -> TokenizedPrompt:
    return tokenize_prompt(manifest, Path(manifest.source["path"]), prompt)


@pytest.mark.parametrize(
    ("family", "prefix"),
    [("gpt2", []), ("llama", [1]), ("appends-eos", [0]), ("truncates", [0]), ("pad-without-eos", []), ("bare", [])],
)
def test_what_the_tokenizer_prepends_is_known_and_the_text_is_whole(
    make_manifest: MakeManifest, family: str, prefix: list[int]
) -> None:
    manifest = make_manifest(family)
    tokenized = tokenize(manifest)
    tokenizer = AutoTokenizer.from_pretrained(manifest.source["path"])
    assert tokenized.prefix_ids.tolist() == prefix
    assert tokenizer.decode(tokenized.text_ids, clean_up_tokenization_spaces=False) == STANDARD.text
    assert tokenizer.eos_token_id not in tokenized.text_ids
    assert tokenized.metadata["prompt_tokens"] == str(len(tokenized.text_ids))
    assert tokenized.metadata["prefix_tokens"] == str(len(prefix))
    assert tokenized.metadata["tokenizer_vocab_size"] == str(VOCAB_SIZE)
    assert tokenized.metadata["folded"] == "false"


@pytest.mark.parametrize(
    ("family", "vocab_size", "expected"),
    [
        ("gpt2", VOCAB_SIZE, ("eos", "0", "<|endoftext|>", "0")),
        ("truncates", VOCAB_SIZE, ("eos", "1", "</s>", "1")),
        ("pad-without-eos", VOCAB_SIZE, ("tokenizer", "1", "<pad>", "")),
        ("unk-only", VOCAB_SIZE + 1, ("added", str(VOCAB_SIZE), "[PAD]", "")),
        ("unk-only", VOCAB_SIZE, ("reused", "1", "<unk>", "")),
        ("bare", VOCAB_SIZE, ("reused", "0", "!", "")),
    ],
)
def test_the_padding_token_and_where_it_comes_from(
    make_manifest: MakeManifest, family: str, vocab_size: int, expected: tuple[str, str, str, str]
) -> None:
    metadata = tokenize(make_manifest(family, vocab_size=vocab_size)).metadata
    keys = ("pad_token_source", "pad_token_id", "pad_token", "eos_token_id")
    assert tuple(metadata[key] for key in keys) == expected


def test_ids_outside_the_vocabulary_are_folded_where_the_weights_are_random(make_manifest: MakeManifest) -> None:
    manifest = make_manifest("gpt2")
    whole = tokenize(manifest)
    random = dataclasses.replace(manifest, source={**manifest.source, "source": "random"}, vocab_size=100)
    folded = tokenize(random)
    assert folded.text_ids.max() == 99
    assert folded.text_ids.tolist() == [token_id % 100 for token_id in whole.text_ids.tolist()]
    assert (folded.metadata["folded"], whole.metadata["folded"]) == ("true", "false")


def test_special_ids_outside_the_vocabulary_are_folded_too(make_manifest: MakeManifest) -> None:
    source = make_manifest("gpt2").source
    manifest = make_manifest("unk-only", source={**source, "source": "random"}, vocab_size=1)
    path = Path(make_manifest("unk-only").source["path"])
    tokenized = tokenize_prompt(manifest, path, STANDARD)
    assert set(tokenized.text_ids.tolist()) == {0}
    assert tokenized.metadata["pad_token_id"] == "0"


def test_ids_outside_the_vocabulary_are_refused_for_a_real_model(make_manifest: MakeManifest) -> None:
    with pytest.raises(UserError, match=r"tokenizer of 'tiny' gives the token id 5\d\d.* vocab_size is 500"):
        tokenize(make_manifest("gpt2", vocab_size=500))


@pytest.mark.parametrize("content", [None, "{", "{}", '{"added_tokens": [], "model": {"type": "None"}}'])
def test_a_missing_or_damaged_tokenizer_is_a_sentence(
    make_manifest: MakeManifest, tmp_path: Path, content: str | None
) -> None:
    manifest = make_manifest("gpt2")
    if content is not None:
        shutil.copytree(manifest.source["path"], tmp_path, dirs_exist_ok=True)
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match="no tokenizer could be loaded for the model 'tiny'"):
        tokenize_prompt(manifest, tmp_path, STANDARD)


def test_remote_code_is_not_run_unasked(make_manifest: MakeManifest, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["custom.Custom", null]}}')
    (tmp_path / "custom.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Custom: pass\n")
    with pytest.raises(UserError, match=r"contains custom code.* needs trust_remote_code: true"):
        tokenize_prompt(make_manifest("gpt2"), tmp_path, STANDARD)
    assert not (tmp_path / "ran").exists()


def test_special_tokens_inside_the_text_are_refused() -> None:
    def tokenizer(_text: str, add_special_tokens: bool, verbose: bool) -> dict[str, list[int]]:  # noqa: ARG001
        return {"input_ids": [5, 0, 6] if add_special_tokens else [5, 6]}

    with pytest.raises(UserError, match="before and after the text only"):
        encode(tokenizer, "ab")


def test_the_content_address_follows_the_tokenizer_and_nothing_else(make_manifest: MakeManifest) -> None:
    manifest = make_manifest("gpt2")

    def changed(path: str) -> str:
        files = tuple(dataclasses.replace(file, sha256="0" * 64) if file.path == path else file for file in whole)
        assert files != whole
        return tokenizer_sha256(dataclasses.replace(manifest, files=files))

    whole = manifest.files
    before = tokenizer_sha256(manifest)
    assert tokenizer_sha256(dataclasses.replace(manifest, name="other", files=whole[::-1])) == before
    assert changed("config.json") == changed("model.safetensors") == before
    assert len({before, changed("tokenizer.json"), changed("tokenizer_config.json")}) == 3


def test_a_prompt_is_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes("één\r\ntwee\n".encode())
    prompt = read_prompt(path)
    assert (prompt.text, prompt.file_name) == ("één\r\ntwee\n", "prompt.txt")
    assert prompt.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"abc\xff", "is not UTF-8: invalid start byte at byte 3"),
        (None, "does not exist"),
    ],
)
def test_an_unusable_prompt_is_a_sentence(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"prompt\.txt {complaint}.* Set prompt in params\.yaml to a UTF-8 text file"):
        read_prompt(path)
    with pytest.raises(UserError, match="is a folder"):
        read_prompt(tmp_path)


def test_the_standard_prompt_is_plain_prose_long_enough_for_2048_tokens() -> None:
    text = STANDARD.text
    paragraphs = text.split("\n\n")
    assert text.isascii()
    # No English tokenizer takes fewer tokens than words.
    assert len(text.split()) > 2048
    assert text.endswith(".\n")
    assert not text.endswith("\n\n")
    assert len(paragraphs) > 5
    assert all("\n" not in paragraph.rstrip("\n") for paragraph in paragraphs)
    assert len(set(paragraphs)) == len(paragraphs)
