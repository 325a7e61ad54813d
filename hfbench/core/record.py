"""The frozen dataclasses that cross stages, and their JSON form.

All times are float64 seconds. Times called `at` or `start_seconds` count from the start of the measure stage, on the
one monotonic clock that its processes share; durations are named for what they last.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from hfbench.core.errors import UserError
from hfbench.core.files import read_json, write_json
from hfbench.core.point import Configuration

SCHEMA_VERSION = 2

OK = "ok"
UNSUPPORTED = "unsupported"  # this machine or these libraries cannot run the configuration
REJECTED = "rejected"  # it ran, and what ran is not what was asked for
FAILED = "failed"  # an exception
OUT_OF_MEMORY = "out_of_memory"
TIMED_OUT = "timed_out"
CRASHED = "crashed"  # the worker died by a signal
UNAVAILABLE = "unavailable"  # what it needed could not be had this time; `dvc repro` tries it again
STATUSES = (OK, UNSUPPORTED, REJECTED, FAILED, OUT_OF_MEMORY, TIMED_OUT, CRASHED, UNAVAILABLE)


def require_version(path: Path, content: Any) -> None:
    """Raise `UserError` where what a file holds is of another version."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}, and this hfbench reads version {SCHEMA_VERSION}. "
            "Delete it and run `dvc repro`."
        )


class Stored:
    """A dataclass with a JSON form, of which a file holds one."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the schema version first where there is one."""
        return dataclasses.asdict(self, dict_factory=_plain)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Return what `to_json` gave. Raises `ValueError` where it is of another form."""
        from pydantic import TypeAdapter  # not by whom only writes

        return TypeAdapter(cls).validate_python(content)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises `UserError` where there is none, or one of another version."""
        content = read_json(path)
        if "schema_version" in cls.__annotations__:
            require_version(path, content)
        try:
            return cls.from_json(content)
        except ValueError as error:
            raise UserError(
                f"{path} is not as this hfbench writes it ({error}). Delete it and run `dvc repro`."
            ) from None


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in pairs}


@dataclass(frozen=True)
class Settings(Stored):
    """What of params.yaml a point depends on beside its axes; None or empty where it does not use it.

    `compile`, `quantized_cache` and `continuous_batching` hold the section of that name, `kernels` the entries of
    `kernels:`, a local one with the `sha256` of its folder, `quantization` the entry that the axis names,
    `assisted_decoding` what of that section the assistant takes, and `arrivals` that section.
    """

    compile: dict[str, Any] | None = None
    kernels: tuple[dict[str, Any], ...] = ()
    quantization: dict[str, Any] | None = None
    quantized_cache: dict[str, Any] | None = None
    continuous_batching: dict[str, Any] | None = None
    assisted_decoding: dict[str, Any] | None = None
    arrivals: dict[str, Any] | None = None


@dataclass(frozen=True)
class Sampling:
    """How many iterations a measurement takes, and when it stops."""

    OUT_OF_TIME: ClassVar[str] = "max_seconds reached"  # why it stopped
    stopping_rule: str
    min_warmup_iterations: int
    max_warmup_iterations: int
    min_iterations: int
    max_iterations: int
    target_precision: float
    max_seconds: float
    unobserved_every: int
    timeout_seconds: float
    monitor_interval_seconds: float
    min_watched_seconds: float = 2.0


# Samples that are taken whatever an iteration takes: fewer have no middle one.
FEWEST_SAMPLES = 3


@dataclass(frozen=True)
class ModelFile:
    """One file of a model folder."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest(Stored):
    """The content address of a model: any process can make the same folder from it.

    `source` is the entry of `models:` in params.yaml; `provenance` what it resolved to (a commit, a wheel's sha256, …).
    `max_position_embeddings` is None for an architecture without such a limit. `unavailable` says why the model cannot
    be had now: there are no files then, or those that an earlier run found. `quant_method` is how its weights are
    quantised, by transformers' name.
    """

    schema_version: int
    name: str
    source: dict[str, Any]
    provenance: dict[str, Any]
    architecture: str
    model_type: str
    vocab_size: int
    max_position_embeddings: int | None
    files: tuple[ModelFile, ...]
    unavailable: str | None = None
    quant_method: str | None = None


@dataclass(frozen=True)
class Iteration:
    """One call of `generate` or of continuous batching, or all calls of `generate` that a workload takes.

    `phase` is `first` (it holds compilation), `warmup` or `sample`. `end_to_end_seconds` ends with the call for
    `generate` and with the last token for continuous batching, whose call then also waits for its thread to stop.
    `token_seconds` counts from the iteration's start, when all requests arrive (or the first of those that arrive one
    by one, each at its `arrival_seconds`): one list for the whole batch with
    `generate` on rows of one length, which advance in step, and else one list a request; it is empty where the
    iteration ran without the observer. Tokens that assisted decoding accepts in one step have the same time.
    `new_tokens` counts the tokens of each row or request, without those that a padded batch made beyond a request's own
    number.
    """

    phase: str
    observed: bool
    start_seconds: float
    end_to_end_seconds: float
    call_seconds: float
    new_tokens: tuple[int, ...]
    token_seconds: tuple[tuple[float, ...], ...]
    arrival_seconds: tuple[float, ...] = ()


@dataclass
class Record(Stored):
    """Everything known of one measurement. A configuration that could not be measured has one too."""

    schema_version: int = field(default=SCHEMA_VERSION, kw_only=True)
    configuration: Configuration
    device: str
    sampling: Sampling
    status: str = FAILED
    reason: str | None = None
    phase: str | None = None
    requested: dict[str, Any] = field(default_factory=dict)
    effective: dict[str, Any] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    started_at: str = ""
    timeline: dict[str, float] = field(default_factory=dict)
    load_seconds: float | None = None
    first_call_seconds: float | None = None
    warm_start: dict[str, Any] = field(default_factory=dict)
    warmup_steady: bool | None = None
    stopped_because: str | None = None
    memory: dict[str, Any] = field(default_factory=dict)
    accounting: dict[str, Any] = field(default_factory=dict)
    machine_before: dict[str, Any] = field(default_factory=dict)
    monitoring: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    iterations: list[Iteration] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    log_tail: list[str] = field(default_factory=list)
