"""Flex attention with a static cache: transformers' own function, under a mask that such a cache can be used with.

In transformers 5.22, `generate` with flex attention and a static cache fails on every device: it builds the mask before
the forward pass and calls `contiguous()` on it (`GenerationMixin.prepare_inputs_for_generation`), which torch's
`BlockMask` does not have. A `contiguous` alone would give wrong logits without any error: the mask's function keeps a
reference to the cache's length (`masking_utils.flex_attention_mask`, `add_offsets_to_mask_function`), and the cache
adds to that tensor in place before attention evaluates the function (`StaticLayer.update`), so that a token would also
see the empty positions after it. Here the function gets a copy of the length.

It is registered through transformers' public interfaces, and only a point with a static cache loads it.
"""

from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.masking_utils import flex_attention_mask

from hfbench.foundation.configuration import Configuration

FLEX = "flex_attention"
# A name with `flex_attention` in it: for one, transformers checks that the model supports flex attention
# (`PreTrainedModel.get_correct_attn_implementation`).
FLEX_FOR_STATIC_CACHE = "hfbench_flex_attention"


class ContiguousBlockMask(BlockMask):
    """A block mask that says it is contiguous, as the one that `create_block_mask` has just built is."""

    def contiguous(self) -> "ContiguousBlockMask":
        """Return the mask itself."""
        return self


def static_cache_mask(*, q_offset: int | torch.Tensor = 0, **arguments: Any) -> BlockMask:
    """Return the block mask that transformers makes for flex attention, of an offset that the cache cannot change.

    `q_offset` is the position of the first query, a tensor where the cache counts in one; `arguments` are the others of
    transformers' mask interface.
    """
    offset = q_offset.clone() if isinstance(q_offset, torch.Tensor) else q_offset
    mask = flex_attention_mask(q_offset=offset, **arguments)  # type: ignore[arg-type]
    mask.__class__ = ContiguousBlockMask  # the mask is this function's own, and the subclass adds no state
    return mask


def uses_static_flex_attention(configuration: Configuration) -> bool:
    """Tell whether the point needs the mask of this module."""
    return configuration.attn_implementation == FLEX and configuration.is_static


def register() -> str:
    """Register the attention with transformers, and return its name there."""
    AttentionInterface.register(FLEX_FOR_STATIC_CACHE, flex_attention_forward)
    AttentionMaskInterface.register(FLEX_FOR_STATIC_CACHE, static_cache_mask)
    return FLEX_FOR_STATIC_CACHE


def asked_name(registered: str) -> str:
    """Return the name by which params.yaml asks for the attention that transformers knows as `registered`."""
    return FLEX if registered == FLEX_FOR_STATIC_CACHE else registered
