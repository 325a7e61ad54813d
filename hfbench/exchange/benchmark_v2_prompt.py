"""How many prompt tokens an entry of benchmark_v2 really measured.

It cuts one text off at `sequence_length` tokens and never repeats it, so that a length beyond the text's end measures
the whole text under the label of the length that was asked for, without a word (462 tokens under 512, 2048 and 8192).
"""

import re

from hfbench.exchange.benchmark_v2_file import Entry

# Words of DEFAULT_PROMPT in benchmark_runner.py. A tokenizer in use makes more tokens of a text than it has words.
_SURE_TOKENS = 320
_SHAPE = re.compile(r"\((\d+), (\d+)\)")


def prompt_tokens(entry: Entry, whole_prompt_tokens: int | None) -> int | None:
    """Return the prompt tokens of each row, None where neither the file nor the person tells.

    Told they are by hfbench's own exports, whose prompts are as long as they say; by earlier versions, whose shape of
    the output of `generate` holds the prompt; and by `whole_prompt_tokens`, the length of the whole text.
    """
    asked = entry.config.sequence_length
    if entry.metadata.hfbench is not None:
        return asked
    told = _told_by_shape(entry)
    if told is not None:
        return told
    if whole_prompt_tokens is not None:
        return min(asked, whole_prompt_tokens)
    return asked if asked <= _SURE_TOKENS else None


def _told_by_shape(entry: Entry) -> int | None:
    for output in entry.measurements.shape_and_decoded_outputs:
        shape = _SHAPE.match(output)
        if shape and int(shape[2]) > entry.config.num_tokens_to_generate:
            return int(shape[2]) - entry.config.num_tokens_to_generate
    return None
