"""The shapes of a sweep's inputs, and whether a model has positions enough for them."""

from dataclasses import dataclass
from itertools import product

from hfbench.foundation.errors import UserError
from hfbench.foundation.params import Sweep
from hfbench.foundation.records import Manifest


@dataclass(frozen=True)
class Shape:
    """One input: `batch_size` rows of `sequence_length` prompt tokens each."""

    batch_size: int
    sequence_length: int

    @property
    def file_name(self) -> str:
        """Return the name of this shape's file in the model's folder of inputs."""
        return f"b{self.batch_size}-s{self.sequence_length}.safetensors"


def sweep_shapes(sweep: Sweep) -> list[Shape]:
    """Return every combination of `sweep.batch_size` and `sweep.sequence_length`."""
    return [Shape(*values) for values in product(sweep.batch_size, sweep.sequence_length)]


def check_positions(manifest: Manifest, sweep: Sweep) -> None:
    """Raise `UserError` where a prompt, or a prompt and its new tokens, needs more positions than the model has."""
    limit = manifest.max_position_embeddings
    if limit is None:
        return
    longest_output = max(sweep.max_new_tokens)
    for length in sweep.sequence_length:
        if length > limit:
            raise UserError(
                f"sweep.sequence_length is {length}, and the model {manifest.name!r} has {limit} positions "
                f"(max_position_embeddings). Ask for at most {limit} tokens, new ones included, or another model."
            )
        if length + longest_output > limit:
            raise UserError(
                f"sweep.sequence_length is {length} and sweep.max_new_tokens is {longest_output}, together "
                f"{length + longest_output} tokens, and the model {manifest.name!r} has {limit} positions "
                "(max_position_embeddings). Lower one of the two, or choose another model."
            )
