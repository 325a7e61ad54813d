"""The `CompileConfig` that a point asks for."""

import torch._inductor
from transformers import CompileConfig

from hfbench.foundation.configuration import Configuration, Settings


def compile_config(configuration: Configuration, settings: Settings) -> CompileConfig | None:
    """Return the `CompileConfig` asked for. Without `_compile_all_devices`, transformers skips the CPU in silence.

    torch.compile takes a mode or options. A mode is a set of options of inductor, so where there are both, those of the
    mode come first and the others are added to them.
    """
    if configuration.compile_mode == "off":
        return None
    asked = dict(settings.compile or {})
    mode, options = configuration.compile_mode, asked.pop("options", {})
    if options:
        options = {**torch._inductor.list_mode_options(mode), **options}
    config = CompileConfig(**asked, mode=None if options else mode, options=options or None)  # type: ignore[arg-type]
    config._compile_all_devices = True  # type: ignore[assignment]
    return config
