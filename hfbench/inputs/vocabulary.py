"""Token ids and the model's vocabulary: folded into it for random weights, refused for any others."""

import numpy as np
from numpy.typing import NDArray

from hfbench.foundation.errors import UserError
from hfbench.foundation.records import Manifest


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
