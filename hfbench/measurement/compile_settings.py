"""The `CompileConfig` that a point asks for, and whether this torch knows what it asks."""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
import torch._inductor
from transformers import CompileConfig

from hfbench.foundation.configuration import Configuration, Settings
from hfbench.foundation.errors import UserError

_OURS = ("measure_warm_start",)  # what hfbench asks beside torch.compile's own arguments
INDUCTOR = "inductor"


def compile_config(configuration: Configuration, settings: Settings) -> CompileConfig | None:
    """Return the `CompileConfig` asked for. Without `_compile_all_devices`, transformers skips the CPU in silence.

    torch.compile takes a mode or options. A mode is a set of options of inductor, so where there are both, those of the
    mode come first and the others are added to them.
    """
    if configuration.compile_mode == "off":
        return None
    asked = {name: value for name, value in (settings.compile or {}).items() if name not in _OURS}
    mode, options = configuration.compile_mode, asked.pop("options", {})
    if options and asked.get("backend", INDUCTOR) == INDUCTOR:
        added = {name.replace("-", "_"): value for name, value in options.items()}  # as torch.compile reads them
        options = {**torch._inductor.list_mode_options(mode, asked.get("dynamic")), **added}
    config = CompileConfig(**asked, mode=None if options else mode, options=options or None)  # type: ignore[arg-type]
    config._compile_all_devices = True  # type: ignore[assignment]
    return config


def options_of(config: CompileConfig) -> dict[str, Any]:
    """Return the options of inductor that the config stands for; none for another backend."""
    if config.backend != INDUCTOR:
        return {}
    return config.options or torch._inductor.list_mode_options(config.mode, config.dynamic)


def check_compile_config(config: CompileConfig) -> None:
    """Raise `UserError` for a backend, an option or a value of one that this torch does not know. Compiles nothing."""
    backends = torch.compiler.list_backends(exclude_tags=())
    if config.backend not in backends:
        raise UserError(
            f"compile.backend is {config.backend!r}, which torch {torch.__version__} does not know. "
            f"{_hint(str(config.backend), backends)}Expected one of: {', '.join(torch.compiler.list_backends())}, or "
            "eager and aot_eager, which find what a failure comes from."
        )
    known = torch._inductor.list_options()
    for name in options_of(config):
        if name not in known:
            raise UserError(
                f"compile.options has {name!r}, which is no option of inductor in torch {torch.__version__}. "
                f"{_hint(name, known)}`torch._inductor.list_options()` lists all {len(known)}."
            )
    try:
        torch.compile(_nothing, **config.to_dict())
    except RuntimeError as error:
        raise UserError(f"compile: {' '.join(str(error).split())}. Change it in params.yaml.") from None


def _nothing() -> None:
    """Do nothing: what torch.compile is given to look at its other arguments."""


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}? " if close else ""
