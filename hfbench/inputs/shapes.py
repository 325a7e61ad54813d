"""The shapes of a sweep, and how long the requests of a workload are: as listed, or drawn from a distribution."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hfbench.core.errors import UserError
from hfbench.core.point import UNIFORM, WORKLOAD_AXES, Configuration
from hfbench.core.record import Manifest
from hfbench.core.results import inputs_name
from hfbench.params.sections import ListedLengths, LogNormalLengths


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
        """The name of this shape's file in the model's folder of inputs."""
        return inputs_name(**vars(self))


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
                "(max_position_embeddings or max_seq_len). Ask for less, new tokens included, or choose another model."
            )


@dataclass(frozen=True)
class Requests:
    """The prompt and new tokens of each request, in the order in which they are handed over."""

    prompt_tokens: tuple[int, ...]
    new_tokens: tuple[int, ...]


def requests_of(
    shape: Shape, lengths: Mapping[str, ListedLengths | LogNormalLengths], prefix_tokens: int, model: str
) -> Requests | None:
    """Return the requests of a shape, the longest with its prompt and new tokens, or None where all are alike.

    `lengths` is the section `request_lengths` of the params, which has the shape's entry; `prefix_tokens` is what the
    tokenizer puts before each text, and each prompt has at least one more. Raises `UserError` where a listed one has
    not.
    """
    if shape.request_lengths == UNIFORM:
        return None
    entry = lengths[shape.request_lengths]
    if isinstance(entry, LogNormalLengths):
        return draw(entry, shape.sequence_length, shape.max_new_tokens, prefix_tokens + 1)
    shortest = min(entry.prompt_tokens)
    if shortest <= prefix_tokens:
        raise UserError(
            f"request_lengths.{shape.request_lengths} has a prompt of {shortest} token(s), and the tokenizer of "
            f"{model!r} begins each row with {prefix_tokens} special token(s), which leaves no room for text. "
            f"Ask for at least {prefix_tokens + 1}."
        )
    return Requests(tuple(entry.prompt_tokens), tuple(entry.new_tokens))


def draw(entry: LogNormalLengths, longest_prompt: int, most_new_tokens: int, shortest_prompt: int) -> Requests:
    """Return lengths drawn from the log-normal distribution with mean 0 and `sigma` of the logarithm.

    They are scaled so that the longest is the one asked for, and rounded. Prompts are drawn first, then new tokens,
    from Python's `random.Random(seed)`, which gives the same numbers everywhere.
    """
    source = random.Random(entry.seed)
    prompts, new_tokens = (
        [source.lognormvariate(0, entry.sigma) for _ in range(entry.requests)] for _ in ("prompts", "new tokens")
    )
    return Requests(_scaled(prompts, longest_prompt, shortest_prompt), _scaled(new_tokens, most_new_tokens, 1))


def _scaled(draws: list[float], longest: int, shortest: int) -> tuple[int, ...]:
    largest = max(draws)
    return tuple(max(shortest, round(value / largest * longest)) for value in draws)
