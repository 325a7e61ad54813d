"""What `kernels:` asks for, in the terms of transformers and the kernels library."""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import LayerRepository, LocalLayerRepository, Mode, get_kernel
from transformers import KernelConfig, PreTrainedModel
from transformers.utils.import_utils import get_device_type

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.foundation.errors import UserError
from hfbench.measurement.device import Device
from hfbench.models.hashing import folder_sha256


class PinnedKernels(KernelConfig):
    """A mapping that stands above transformers' own, for the models that it is given to.

    What is registered with the kernels library beforehand does not: transformers registers its own mapping over it
    whenever it replaces layers. The checks of KernelConfig are left out, as they refuse the CPU.
    """

    def __init__(self, mapping: dict[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pinned = mapping

    def sanitize_kernel_mapping(self, model: PreTrainedModel) -> None:
        """Accept the mapping: the entries were checked with params.yaml, and what they did is verified later."""

    def create_compatible_mapping(self, model: PreTrainedModel, compile: bool = False) -> None:
        """Hand over the mapping, which is in the kernels library's terms already."""
        del model, compile
        self.kernel_mapping = self._pinned


@dataclass(frozen=True)
class Kernels:
    """What `from_pretrained` takes: the name of the attention, the mapping, and whether any publisher is trusted."""

    attn_implementation: str
    config: PinnedKernels | None = None
    trust_remote_code: bool = False


def open_kernels(configuration: Configuration, settings: Settings, device: Device) -> Kernels:
    """Import the kernels of the entries that this point uses on this device.

    They are imported before the model is loaded: a kernel that cannot be had is told as such (transformers keeps the
    model's own layers then), and fetching one is no part of the load seconds. Raises `UserError` where a local one was
    edited, and whatever the kernels library raises.
    """
    check_unedited(settings)
    mapping: dict[str, Any] = {}
    if configuration.use_kernels:
        for entry in entries_on(kernel_device(device), settings):
            repository = _repository(entry)
            _load(repository)
            mapping[entry["layer"]] = {entry["device"]: {Mode.INFERENCE: repository}}
    pin = attention_pin(configuration, settings)
    if pin is not None:
        get_kernel(pin["repository"], revision=pin["revision"], trust_remote_code=pin["trust_remote_code"])
    return Kernels(
        attn_implementation=_pinned_name(configuration.attn_implementation, pin),
        config=PinnedKernels(mapping) if mapping else None,
        trust_remote_code=pin is not None and pin["trust_remote_code"],
    )


def check_unedited(settings: Settings) -> None:
    """Raise `UserError` where a local kernel is not the one that the point is to be measured with."""
    for entry in settings.kernels:
        if "path" in entry and folder_sha256(kernel_folder(entry)) != entry["sha256"]:
            raise UserError(
                f"the kernel in {entry['path']} was edited since this run began. "
                "Run again: the points that use it are measured with what is there then."
            )


def kernel_device(device: Device) -> str:
    """Return the device as the kernels library names it: an AMD GPU is rocm, and not cuda."""
    return str(get_device_type(device.torch_device))


def kernel_folder(entry: dict[str, Any]) -> Path:
    """Return the folder of a local kernel's entry."""
    return Path(entry["path"]).expanduser()


def entries_on(kind: str, settings: Settings) -> list[dict[str, Any]]:
    """Return the entries that replace a layer on this kind of device."""
    return [entry for entry in settings.kernels if entry.get("device") == kind]


def attention_pin(configuration: Configuration, settings: Settings) -> dict[str, Any] | None:
    """Return an entry of the repository that the attention is from; all of one repository have the same revision."""
    repository = configuration.attn_implementation.partition(":")[0]
    return next((entry for entry in settings.kernels if entry.get("repository") == repository), None)


def _pinned_name(attn_implementation: str, pin: dict[str, Any] | None) -> str:
    """Return OWNER/NAME:FUNCTION as transformers takes it with a revision, OWNER/NAME@REVISION:FUNCTION."""
    repository, colon, function = attn_implementation.partition(":")
    return attn_implementation if pin is None else f"{repository}@{pin['revision']}{colon}{function}"


def _repository(entry: dict[str, Any]) -> Any:
    if "path" in entry:
        return LocalLayerRepository(repo_path=kernel_folder(entry).resolve(), layer_name=entry["layer_name"])
    return LayerRepository(
        repo_id=entry["repository"],
        layer_name=entry["layer_name"],
        revision=entry["revision"],
        trust_remote_code=entry["trust_remote_code"],
    )


def _load(repository: Any) -> None:
    """Import a kernel from its source: byte code beside it may be of another content with the same time and size."""
    before = sys.pycache_prefix
    sys.pycache_prefix = str(Path(tempfile.gettempdir()) / "kernels")  # in the scratch folder of this point
    try:
        repository.load()
    finally:
        sys.pycache_prefix = before
