"""A stage run as a person runs it, a hub on loopback, and the default model."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hfbench.core.errors import UserError
from hfbench.core.files import write_json
from hfbench.core.record import Manifest
from hfbench.core.results import PARAMS, source_path
from hfbench.core.sources import Source, source_from
from hfbench.model.manifest import fingerprint, read_previous, resolve
from hfbench.params.schema import load_params
from tests.model.fake_hub import FakeHub

ROOT = Path(__file__).resolve().parents[2]
_NOT_INHERITED = ("HF_", "HUGGINGFACE", "TRANSFORMERS", "HFBENCH", "PYTEST")


class Project:
    """A folder with a params.yaml, and a machine with caches of its own; the user's where it is None."""

    def __init__(self, folder: Path, machine: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.models: dict[str, Source] = {}
        self._monkeypatch = monkeypatch
        folder.mkdir()
        self.environment = dict(os.environ)
        if machine is not None:
            self.environment = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}
            self.move_to(machine)

    def move_to(self, machine: Path) -> None:
        """Use the caches of this machine from now on, in this process and in those it starts."""
        self.huggingface = machine / "huggingface" / "hub"
        self.set("HFBENCH_CACHE", str(machine / "hfbench"))
        self.set("HF_HOME", str(machine / "huggingface"), HF_HUB_CACHE=str(self.huggingface))

    def set(self, variable: str, value: str, **constants: Any) -> None:
        """Set an environment variable, and what huggingface_hub made of it when it was imported."""
        self.environment[variable] = value
        self._monkeypatch.setenv(variable, value)
        for name, constant in constants.items():
            self._monkeypatch.setattr(f"huggingface_hub.constants.{name}", constant)

    def write(self, **models: dict[str, Any]) -> None:
        """Have these entries of `models` in params.yaml."""
        self.models = {name: source_from(content) for name, content in models.items()}

    def manifest_path(self, name: str) -> Path:
        return self.folder / "results" / "models" / f"{name}.json"

    def resolve(self, name: str) -> Manifest:
        """Do what the stage does in this process, which has the libraries imported; return what was written."""
        path = self.manifest_path(name)
        previous = read_previous(path)
        manifest = resolve(name, fingerprint(name, self.models), previous)
        if manifest is not previous:
            manifest.save(path)
        assert Manifest.load(path) == manifest, "what is written reads back the same"
        return manifest

    def run(self, name: str, python: tuple[str, ...] = ("-m", "stages.model")) -> subprocess.CompletedProcess[str]:
        """Run the stage as DVC does, in a process of its own, after what the stage `environment` does for it."""
        try:
            write_json(self.folder / source_path(name), fingerprint(name, self.models))
        except UserError as error:
            return subprocess.CompletedProcess([], 1, "", f"hfbench: {error}")
        return subprocess.run(
            [sys.executable, *python, name],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def assert_fails(self, name: str, *expected: str) -> None:
        """Run the stage, which must end soon, with a sentence that holds what is expected.

        The manifest says it too, and keeps what was known; where the stage before it fails, there is none.
        """
        path = self.manifest_path(name)
        before = read_previous(path)
        start = time.perf_counter()
        result = self.run(name)
        assert time.perf_counter() - start < 25, "a person waits; huggingface_hub alone would retry for half a minute"
        assert "Traceback" not in result.stderr
        for text in expected:
            assert text in result.stderr
        if result.returncode == 0:
            manifest = Manifest.load(path)
            assert (manifest.unavailable or "") in result.stderr
            assert manifest.unavailable
            assert before is None or before.source != manifest.source or read_previous(path) == before
        else:
            assert (result.returncode, path.exists()) == (1, before is not None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project on a machine with empty caches."""
    return Project(tmp_path / "project", tmp_path / "machine", monkeypatch)


@pytest.fixture
def project_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty project that shares the user's caches, and so the default model."""
    return Project(tmp_path / "project", None, monkeypatch)


@pytest.fixture
def hub(project: Project) -> Iterator[FakeHub]:
    """A hub without repositories, which the project asks."""
    server = FakeHub()
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    project.set("HF_ENDPOINT", server.endpoint, ENDPOINT=server.endpoint, HUGGINGFACE_CO_URL_TEMPLATE=template)
    yield server
    server.close()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of hfbench for this process."""
    monkeypatch.setenv("HFBENCH_CACHE", str(tmp_path / "own-cache"))
    return tmp_path / "own-cache"


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have transformers copy the code that models bring to a folder of this test, not to the user's."""
    folder = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("HF_MODULES_CACHE", folder)


@pytest.fixture
def model_folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to change at will."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(scope="session")
def smollm2() -> Manifest:
    """The default model, from its wheel; it is built once in the user's own cache, which takes about 20 seconds."""
    name = "smollm2-135m-instruct"
    return resolve(name, fingerprint(name, load_params(ROOT / PARAMS).models), None)
