"""A prompt in one model's vocabulary, with the metadata that all of the model's inputs files share."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hfbench.foundation.records import Manifest
from hfbench.inputs.prompt import Prompt
from hfbench.inputs.tokenizer import encode, load_tokenizer, set_padding, tokenizer_sha256
from hfbench.inputs.vocabulary import must_fold


@dataclass(frozen=True)
class TokenizedPrompt:
    """int64 ids, all smaller than the model's `vocab_size`: `prefix_ids` stand before each text, such as BOS.

    Ids in `metadata` lie in the same vocabulary; `eos_token_id` is the empty string where there is none.
    """

    prefix_ids: NDArray[np.int64]
    text_ids: NDArray[np.int64]
    metadata: dict[str, str]


def tokenize_prompt(manifest: Manifest, model_folder: Path, prompt: Prompt) -> TokenizedPrompt:
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
