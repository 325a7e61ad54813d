"""Where results lie, as dvc.yaml names it, and which points a person means by a word.

All paths are from the repository's root, in which stages run.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from hfbench.core.errors import UserError
from hfbench.core.point import INPUT_AXES, Configuration, joined

T = TypeVar("T", bound=Hashable)

# A variable that names another machine's description: results of that machine are put together here, none is measured.
STANDS_FOR = "HFBENCH_ENVIRONMENT"
LISTED_STAGE = "measure_listed@"
PARAMS = Path("params.yaml")
RESULTS = Path("results")
ENVIRONMENT = RESULTS / "environment.json"
CEILINGS = RESULTS / "ceilings.json"
SOURCES = RESULTS / "sources"
SETTINGS = RESULTS / "settings"
DTYPES = SETTINGS / "dtypes.json"
MODELS = RESULTS / "models"
ASSISTANTS = RESULTS / "assistants"
INPUTS = RESULTS / "inputs"
MEASUREMENTS = RESULTS / "measurements"
LOGS = RESULTS / "logs"
POINTS = LOGS / "points.json"  # of params.yaml, with the stage that measures each
RUN = LOGS / "run.json"  # how far the run is that measures
TABLES = RESULTS / "tables"
METRICS = RESULTS / "metrics.json"
METRICS_BY_POINT = RESULTS / "metrics_by_point.json"
REPORT = RESULTS / "report.html"
PLOTS = RESULTS / "plots"
PROFILES = RESULTS / "profiles"


def source_path(model: str) -> Path:
    """Return where what the manifest of a model depends on lies."""
    return SOURCES / f"{model}.json"


def manifest_path(model: str) -> Path:
    """Return where the manifest of a model lies."""
    return MODELS / f"{model}.json"


def assistant_path(assistant: str) -> Path:
    """Return where the manifest of a model that drafts lies; of `none` and `prompt_lookup` there is a file too."""
    return ASSISTANTS / f"{assistant}.json"


# Those whose values say which sections of params.yaml a point depends on, in the order of dvc.yaml.
SETTINGS_AXES = (
    *("attn_implementation", "compile_mode", "cache_implementation", "use_kernels"),
    *("quantization", "continuous_batching", "assistant", "request_rate"),
)


def settings_path(point: Configuration) -> Path:
    """Return where what a point depends on of params.yaml beside its axes lies; points that use the same share it."""
    return SETTINGS / f"{joined(getattr(point, axis) for axis in SETTINGS_AXES)}.json"


def workloads_path(model: str) -> Path:
    """Return where what the inputs of a model are made for lies; no attention has a name that begins so."""
    return SETTINGS / f"workloads-{model}.json"


def inputs_name(
    request_lengths: str, batch_size: int, sequence_length: int, max_new_tokens: int, context_depth: int
) -> str:
    """Return the name of a token batch in the folder of its model's inputs."""
    return f"{request_lengths}/b{batch_size}-s{sequence_length}-n{max_new_tokens}-d{context_depth}.safetensors"


def inputs_path(point: Configuration) -> Path:
    """Return where the token batch of a point lies."""
    return INPUTS / point.model / inputs_name(**{axis: getattr(point, axis) for axis in INPUT_AXES})


def record_path(point: Configuration, measurements: Path = MEASUREMENTS) -> Path:
    """Return where the record of a point lies."""
    return measurements / f"{point.file_name}.json"


def log_path(point: Configuration) -> Path:
    """Return where what the libraries said while a point ran lies."""
    return LOGS / f"{point.file_name}.log"


def sweep_stage(point: Configuration) -> str:
    """Return the stage that measures a point of the sweep, as DVC names it."""
    return "measure@" + "-".join(str(value) for value in vars(point).values())


def stages_before(point: Configuration) -> tuple[str, str]:
    """Return the stages that make ready what a point needs, as DVC names them."""
    return f"inputs@{point.model}", f"assistant@{point.assistant}"


def listed_stage(number: int, index: int) -> str:
    """Return the stage that measures an entry of `configurations:` in a round, as DVC names it."""
    return f"{LISTED_STAGE}{number}-is{index}"


_FITS: tuple[Callable[[str, str], bool], ...] = (
    lambda text, name: text == name,
    lambda text, name: set(text.split()) <= set(name.split()),
    lambda text, name: text in name or fnmatchcase(name, text),
)
_MOST_CANDIDATES = 20  # in an error message


def points_meant(text: str, names: Mapping[T, Sequence[str]]) -> list[T]:
    """Return the points that `text` means, none where it fits no name.

    `names` has the same kinds of names for each point, such as key, name of the files and stage. The first rule that a
    name fits decides, and of the kinds the first: the text is the whole name; all its words are words of it; it is a
    part of it, or a pattern with `*`, `?` and `[]`. A record's file stands for its name, and booleans may be spelt as
    DVC does in stages.
    """
    wanted = _plain(text.strip().removeprefix("./").removeprefix(f"{MEASUREMENTS.as_posix()}/").removesuffix(".json"))
    for fits in _FITS if wanted else ():
        for names_of_a_kind in zip(*names.values(), strict=True):
            found = [point for point, name in zip(names, names_of_a_kind, strict=True) if fits(wanted, _plain(name))]
            if found:
                return found
    return []


def _plain(name: str) -> str:
    """Return a name with booleans as in files: DVC names stages by Python's."""
    return name.replace("-False", "-false").replace("-True", "-true")


def configuration_meant(text: str, names: Mapping[T, Sequence[str]], *, among: str, asked: str = "--point") -> list[T]:
    """Return the points that `text` means, which are rounds of one configuration; see `points_meant`.

    The first name of each point is the key of its configuration. Raises `UserError` with the candidates where the text
    fits several configurations, or none; it names the argument that `asked`, and `among` what it was looked for.
    """
    found = points_meant(text, names)
    keys = list(dict.fromkeys(names[point][0] for point in found or names))
    if found and len(keys) == 1:
        return found
    trouble = "several points. Name one of" if found else f"no point of {among}. There are"
    more = f"\n  and {len(keys) - _MOST_CANDIDATES} more" if len(keys) > _MOST_CANDIDATES else ""
    raise UserError(
        f"{asked} {text!r} fits {trouble}:" + "".join(f"\n  {key}" for key in keys[:_MOST_CANDIDATES]) + more
    )
