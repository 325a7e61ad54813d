"""The shapes of the inputs that points need, and whether a model has positions enough for them."""

from collections.abc import Iterable
from dataclasses import dataclass

from hfbench.foundation.configuration import WORKLOAD_AXES, Configuration
from hfbench.foundation.errors import UserError
from hfbench.foundation.records import Manifest


@dataclass(frozen=True)
class Shape:
    """One input, in tokens: `batch_size` rows of `context_depth` and then `sequence_length` prompt tokens each.

    Where `request_lengths` is not `uniform`, the rows are that entry's requests, the longest of them as long as this.
    """

    request_lengths: str
    batch_size: int
    sequence_length: int
    max_new_tokens: int
    context_depth: int

    @property
    def row_tokens(self) -> int:
        """The prompt tokens of a row with those of its context."""
        return self.context_depth + self.sequence_length

    @property
    def file_name(self) -> str:
        """The name of this shape's file in the model's folder of inputs, as dvc.yaml composes it."""
        lengths = f"b{self.batch_size}-s{self.sequence_length}-n{self.max_new_tokens}-d{self.context_depth}"
        return f"{self.request_lengths}/{lengths}.safetensors"


def shapes_of(points: Iterable[Configuration]) -> list[Shape]:
    """Return the shapes of the points, each once."""
    shapes = (Shape(**{axis: getattr(point, axis) for axis in WORKLOAD_AXES}) for point in points)
    return list(dict.fromkeys(shapes))


def check_positions(manifest: Manifest, shapes: Iterable[Shape]) -> None:
    """Raise `UserError` where a prompt, or a prompt and its new tokens, needs more positions than the model has."""
    limit = manifest.max_position_embeddings
    if limit is None:
        return
    for shape in shapes:
        parts = {"context_depth": shape.context_depth, "sequence_length": shape.sequence_length}
        if shape.row_tokens <= limit:
            parts["max_new_tokens"] = shape.max_new_tokens
        if sum(parts.values()) > limit:
            named = [f"{name} is {value}" for name, value in parts.items() if value]
            together = f", together {sum(parts.values())} tokens," if len(named) > 1 else ","
            raise UserError(
                f"{' and '.join(named)}{together} and the model {manifest.name!r} has {limit} positions "
                "(max_position_embeddings). Ask for less, new tokens included, or choose another model."
            )
