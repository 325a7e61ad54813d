"""A prompt in one model's vocabulary, with the metadata that all of the model's inputs files share."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfbench.core.errors import UserError
from hfbench.core.record import Manifest
from hfbench.model.cache import one_line
from hfbench.model.folder import tokenizer_files


@dataclass(frozen=True)
class PromptText:
    """A text; `file_name` has no folder in it, because equal inputs must be equal bytes on every machine."""

    text: str
    file_name: str
    sha256: str


def read_prompt(path: Path) -> PromptText:
    """Read a prompt, line ends as they are. Raises `UserError` where it is missing, empty or not UTF-8."""
    remedy = "Set prompt in params.yaml to a UTF-8 text file"
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"the prompt {path} does not exist. {remedy}.") from None
    except IsADirectoryError:
        raise UserError(f"the prompt {path} is a folder. {remedy}.") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"the prompt {path} is not UTF-8: {error.reason} at byte {error.start}. {remedy}.") from None
    if not text.strip():
        raise UserError(f"the prompt {path} is empty. {remedy} with some words in it.")
    return PromptText(text=text, file_name=path.name, sha256=hashlib.sha256(content).hexdigest())


def must_fold(ids: NDArray[np.int64], manifest: Manifest) -> bool:
    """Return whether some id lies outside the model's vocabulary and must be taken modulo its size.

    That is sound where the weights are random: the architecture is measured there, and tokens mean nothing. Anywhere
    else it raises `UserError`: the tokenizer does not belong to the model.
    """
    largest = int(ids.max())
    if largest < manifest.vocab_size:
        return False
    if manifest.source.get("source") != "random":
        raise UserError(
            f"the tokenizer of {manifest.name!r} gives the token id {largest}, and the model's vocab_size is "
            f"{manifest.vocab_size}, so ids up to {manifest.vocab_size - 1}. "
            "Give the model the tokenizer that it was trained with."
        )
    return True


class TokenizerError(UserError):
    """A model has no tokenizer that can be loaded here, now."""


_ADDED_PADDING = "[PAD]"


def load_tokenizer(manifest: Manifest, folder: Path) -> Any:
    """Return the tokenizer in `folder`, from local files only. Raises `TokenizerError` where it holds none that loads.

    `AutoTokenizer` rather than the class that its files name: it is what a user of the model calls, and it corrects the
    classes that some repositories name wrongly. Importing it imports torch (transformers 5.22), which takes about a
    second once for each model.
    """
    from transformers import AutoTokenizer

    trust_remote_code = bool(manifest.source.get("trust_remote_code", False))
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # tokenizers raises plain Exception, remote code anything
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise TokenizerError(
            f"no tokenizer could be loaded for the model {manifest.name!r} ({reason}). "
            "Expected its files, such as tokenizer.json, beside the model's config.json; one with code of its own "
            "needs trust_remote_code: true in the model's entry in params.yaml."
        ) from error


def set_padding(tokenizer: Any, vocab_size: int) -> str:
    """Give the tokenizer a padding token, and return where it comes from.

    `eos`: EOS, as is usual for causal language models. `tokenizer`: it has no EOS, and a padding token of its own.
    `added`: it has neither, and the model's `vocab_size` leaves room for a new one. `reused`: it leaves none, and UNK,
    BOS or the first token must do; rows hold no padding, so the choice changes no result.
    """
    if tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
        return "eos"
    if tokenizer.pad_token is not None:
        return "tokenizer"
    ids = tokenizer.get_vocab()
    if ids.get(_ADDED_PADDING, max(ids.values()) + 1) < vocab_size:
        tokenizer.add_special_tokens({"pad_token": _ADDED_PADDING})
        return "added"
    tokenizer.pad_token = tokenizer.unk_token or tokenizer.bos_token or tokenizer.convert_ids_to_tokens(0)
    return "reused"


def encode(tokenizer: Any, text: str) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before a text, and the text's own, whatever its length.

    Ids that it puts after a text, such as EOS, are left out: the model is to read on. Raises `UserError` where the text
    gives no tokens, or special tokens stand inside it.
    """
    # verbose: the text is cut into rows later, so a warning that it is too long for the model would mislead.
    text_ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    with_special: list[int] = tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"]
    if not text_ids:
        raise UserError("the tokenizer finds no tokens in the prompt. Set prompt in params.yaml to another text file.")
    for start in range(len(with_special) - len(text_ids) + 1):
        if with_special[start : start + len(text_ids)] == text_ids:
            return with_special[:start], text_ids
    raise UserError(
        "the tokenizer changes the prompt's own tokens where it adds special ones, and hfbench expects them before and "
        "after the text only. Use a model with another tokenizer."
    )


def tokenizer_sha256(manifest: Manifest) -> str:
    """Return the sha256 over the tokenizer's files as the manifest lists them: each name, in order, and its sha256."""
    files = {file.path: file.sha256 for file in manifest.files}
    # A manifest lists code, and the files that only code reads, where the code is trusted; nothing more is to be asked.
    code = [name for name in files if name.endswith(".py")]
    names = sorted({*tokenizer_files(files, trust_remote_code=True), *code})
    return hashlib.sha256("".join(f"{name}\0{files[name]}\n" for name in names).encode()).hexdigest()


@dataclass(frozen=True)
class TokenizedPrompt:
    """int64 ids, all smaller than the model's `vocab_size`: `prefix_ids` stand before each text, such as BOS.

    Ids in `metadata` lie in the same vocabulary; `eos_token_id` is the empty string where there is none.
    """

    prefix_ids: NDArray[np.int64]
    text_ids: NDArray[np.int64]
    metadata: dict[str, str]


def tokenize_prompt(manifest: Manifest, model_folder: Path, prompt: PromptText) -> TokenizedPrompt:
    """Load the model's tokenizer and encode the prompt.

    Raises `UserError` on a tokenizer that does not load, that finds no tokens in the prompt, or whose ids lie outside
    the model's vocabulary.
    """
    tokenizer = load_tokenizer(manifest, model_folder)
    tokenizer_vocab_size = len(tokenizer)
    prefix_ids, text_ids = (np.array(ids, dtype=np.int64) for ids in encode(tokenizer, prompt.text))
    pad_token_source = set_padding(tokenizer, manifest.vocab_size)
    eos_token_id, pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    special_ids = [token_id for token_id in (eos_token_id, pad_token_id) if token_id is not None]
    folded = must_fold(np.concatenate([prefix_ids, text_ids, np.array(special_ids, dtype=np.int64)]), manifest)
    return TokenizedPrompt(
        # Where nothing is folded, all ids are smaller than vocab_size and the modulo changes none.
        prefix_ids=prefix_ids % manifest.vocab_size,
        text_ids=text_ids % manifest.vocab_size,
        metadata={
            "prompt_file": prompt.file_name,
            "prompt_sha256": prompt.sha256,
            "prompt_tokens": str(len(text_ids)),
            "prefix_tokens": str(len(prefix_ids)),
            "tokenizer_class": type(tokenizer).__name__,
            "tokenizer_sha256": tokenizer_sha256(manifest),
            "tokenizer_vocab_size": str(tokenizer_vocab_size),
            "eos_token_id": "" if eos_token_id is None else str(eos_token_id % manifest.vocab_size),
            "pad_token_id": str(pad_token_id % manifest.vocab_size),
            "pad_token": str(tokenizer.pad_token),
            "pad_token_source": pad_token_source,
            "folded": "true" if folded else "false",
        },
    )
