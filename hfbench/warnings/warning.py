"""A warning: what makes a number less than it seems, and what to do about it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MeasurementWarning:
    """`code` names the kind, such as `few_rounds`; `what` is a clause with the numbers; `remedy` a sentence."""

    code: str
    what: str
    remedy: str

    @property
    def title(self) -> str:
        """The code as words: `few rounds`."""
        return self.code.replace("_", " ")
