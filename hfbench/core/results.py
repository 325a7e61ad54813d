"""Where results lie, as dvc.yaml names it: all paths are from the repository's root, in which stages run."""

from pathlib import Path

from hfbench.core.point import WORKLOAD_AXES, Configuration, joined

LISTED_STAGE = "measure_listed@"
PARAMS = Path("params.yaml")
RESULTS = Path("results")
ENVIRONMENT = RESULTS / "environment.json"
CEILINGS = RESULTS / "ceilings.json"
SOURCES = RESULTS / "sources"
SETTINGS = RESULTS / "settings"
DTYPES = SETTINGS / "dtypes.json"
MODELS = RESULTS / "models"
INPUTS = RESULTS / "inputs"
MEASUREMENTS = RESULTS / "measurements"
LOGS = RESULTS / "logs"
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


def settings_path(point: Configuration) -> Path:
    """Return where what a point depends on of params.yaml beside its axes lies; points that use the same share it."""
    used = (point.attn_implementation, point.compile_mode, point.use_kernels, point.continuous_batching)
    return SETTINGS / f"{joined(used)}.json"


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
    return INPUTS / point.model / inputs_name(**{axis: getattr(point, axis) for axis in WORKLOAD_AXES})


def record_path(point: Configuration, measurements: Path = MEASUREMENTS) -> Path:
    """Return where the record of a point lies."""
    return measurements / f"{point.file_name}.json"


def log_path(point: Configuration) -> Path:
    """Return where what the libraries said while a point ran lies."""
    return LOGS / f"{point.file_name}.log"


def sweep_stage(point: Configuration) -> str:
    """Return the stage that measures a point of the sweep, as DVC names it."""
    return "measure@" + "-".join(str(value) for value in vars(point).values())


def listed_stage(number: int, index: int) -> str:
    """Return the stage that measures an entry of `configurations:` in a round, as DVC names it."""
    return f"{LISTED_STAGE}{number}-is{index}"
