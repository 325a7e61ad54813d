"""Which point a person means: by its key, its stage, its record, or a part of one of them."""

from collections.abc import Callable, Sequence

from hfbench.foundation.errors import UserError
from hfbench.tables.record_files import MeasuredPoint

_LISTED = 12  # candidates in an error message


def choose_point(
    text: str, known: Sequence[MeasuredPoint], *, asked: str = "--point", among: str = "the results"
) -> list[MeasuredPoint]:
    """Return the rounds of the one configuration that `text` means, or one round where it names a stage or record.

    It is, the first that fits: a configuration's key, a stage (`measure@…`) or the file of a record; words of a key; a
    part of a key; a part of a stage. Raises `UserError` with the candidates where it fits several, or none; it names
    the argument that `asked` for the point, and `among` what it was looked for.
    """
    wanted = (
        text.strip()
        .removesuffix(".json")
        .removeprefix("measure@")
        .replace("-False", "-false")
        .replace("-True", "-true")
    )
    wanted = wanted.removeprefix("./").removeprefix("results/measurements/")
    words = set(wanted.split())
    fits: tuple[Callable[[MeasuredPoint], bool], ...] = (
        lambda point: wanted == point.key,
        lambda point: wanted == point.name,
        lambda point: words <= set(point.key.split()),
        lambda point: wanted in point.key,
        lambda point: wanted in point.name,
    )
    for fit in fits if wanted else ():
        found = [point for point in known if fit(point)]
        if len({point.key for point in found}) == 1:
            return found
        if found:
            raise UserError(f"{asked} {text!r} fits several points. Name one of:{_listed(found)}")
    raise UserError(f"{asked} {text!r} fits no point of {among}. There are:{_listed(known)}")


def _listed(found: Sequence[MeasuredPoint]) -> str:
    keys = list(dict.fromkeys(point.key for point in found))
    more = f"\n  and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return "".join(f"\n  {key}" for key in keys[:_LISTED]) + more
