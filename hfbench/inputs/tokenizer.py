"""A model's tokenizer: loaded from its folder, given a padding token, and known by its content."""

import hashlib
from pathlib import Path
from typing import Any

from hfbench.foundation.errors import UserError
from hfbench.foundation.records import Manifest
from hfbench.models.folder import tokenizer_files
from hfbench.models.progress import one_line

_ADDED_PADDING = "[PAD]"


def load_tokenizer(manifest: Manifest, folder: Path) -> Any:
    """Return the tokenizer in `folder`, from local files only. Raises `UserError` where it holds none that loads.

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
        raise UserError(
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
