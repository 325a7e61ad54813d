"""Numbers in the words of a warning."""


def percent(share: float) -> str:
    """Return a share as a percentage with two significant digits: 1.2%, 0.34%, 15%, 120%."""
    value = 100 * share
    return f"{value:.2g}%" if abs(value) < 99.5 else f"{value:.0f}%"


def counted(rounds: int, of: int) -> str:
    """Return `2 of 3 rounds`, or `the only round`."""
    return "the only round" if rounds == of == 1 else f"{rounds} of {of} rounds"
