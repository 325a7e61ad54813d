"""Reading a prompt, and the standard prompt itself."""

import hashlib
from pathlib import Path

import pytest

from hfbench.core.errors import UserError
from hfbench.inputs.tokenizer import read_prompt

STANDARD = Path(__file__).parents[2] / "hfbench" / "inputs" / "standard_prompt.txt"


def test_a_prompt_is_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes("één\r\ntwee\n".encode())
    prompt = read_prompt(path)
    assert (prompt.text, prompt.file_name) == ("één\r\ntwee\n", "prompt.txt")
    assert prompt.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "is empty"), (b" \n\t\n", "is empty"), (b"abc\xff", "is not UTF-8: invalid start byte at byte 3")],
)
def test_an_unusable_prompt_is_a_sentence(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"prompt\.txt {complaint}.* Set prompt in params\.yaml to a UTF-8 text file"):
        read_prompt(path)


def test_a_missing_prompt_and_a_folder_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"prompt\.txt does not exist"):
        read_prompt(tmp_path / "prompt.txt")
    with pytest.raises(UserError, match="is a folder"):
        read_prompt(tmp_path)


def test_the_standard_prompt_is_plain_prose_long_enough_for_2048_tokens() -> None:
    text = read_prompt(STANDARD).text
    paragraphs = text.split("\n\n")
    assert text.isascii()
    # No English tokenizer takes fewer tokens than words.
    assert len(text.split()) > 2048
    assert text.endswith(".\n")
    assert not text.endswith("\n\n")
    assert len(paragraphs) > 5
    assert all("\n" not in paragraph.rstrip("\n") for paragraph in paragraphs)
    assert len(set(paragraphs)) == len(paragraphs)
