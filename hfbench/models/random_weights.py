"""The source `random`: an architecture with seeded random weights, and a tokenizer from elsewhere."""

from pathlib import Path
from typing import Any

from hfbench.foundation.errors import UserError
from hfbench.foundation.records import Manifest
from hfbench.foundation.sources import RandomSource
from hfbench.models.architecture_file import make_config, read_architecture_file
from hfbench.models.built import build, check_rebuilt, find_built
from hfbench.models.progress import one_line, quiet_libraries, say, size_text
from hfbench.models.tokenizer_source import Origin, copy_tokenizer, files_of, resolve_tokenizer


def resolve_random(name: str, source: RandomSource, previous: Manifest | None, params: Path) -> Manifest:
    """Return the manifest of a random model, `previous` itself where source, architecture and tokenizer are unchanged.

    Raises `UserError` where the architecture file or the tokenizer is wrong.
    """
    architecture = read_architecture_file(source.config)
    provenance = previous.provenance if previous is not None and previous.source.get("source") == "random" else {}
    tokenizer = resolve_tokenizer(name, source.tokenizer, params, provenance.get("tokenizer"))
    inputs = (name, source.model_dump(), architecture, tokenizer)
    if previous is not None and inputs == (
        previous.name,
        previous.source,
        provenance.get("architecture"),
        provenance.get("tokenizer"),
    ):
        return previous
    return _build(name, source, architecture, tokenizer)


def materialise_random(manifest: Manifest) -> Path:
    """Return the folder of a random model, built again where the cache lacks it.

    Raises `UserError` where what is built here differs from the manifest.
    """
    if folder := find_built(manifest):
        return folder
    source = RandomSource.model_validate(manifest.source)
    rebuilt = _build(manifest.name, source, manifest.provenance["architecture"], manifest.provenance["tokenizer"])
    return check_rebuilt(manifest, rebuilt)


def _build(name: str, source: RandomSource, architecture: str, tokenizer: Origin) -> Manifest:
    def make(folder: Path) -> dict[str, Any]:
        _write_weights(folder, name, source, architecture)
        copy_tokenizer(tokenizer, folder)
        return {}

    specification = {
        "source": "random",
        "architecture": architecture,
        "seed": source.seed,
        "tokenizer": files_of(tokenizer),
    }
    return build(name, source.model_dump(), specification, {"architecture": architecture, "tokenizer": tokenizer}, make)


def _write_weights(folder: Path, name: str, source: RandomSource, architecture: str) -> None:
    config = make_config(architecture, source.config)
    say(f"making random weights for {name}")
    import torch
    from transformers import AutoModelForCausalLM

    try:
        # A stream of its own: whoever asks for the folder keeps the state of torch's generator.
        with quiet_libraries(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(source.seed)
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    except Exception as error:  # sizes that do not fit each other fail in many ways
        raise UserError(
            f"{source.config}: transformers cannot build a {config.model_type} from it "
            f"({type(error).__name__}: {one_line(error)}). Correct the sizes in it."
        ) from error
    size_bytes = model.num_parameters() * torch.bfloat16.itemsize
    say(f"writing {name}: {model.num_parameters() / 1e6:,.1f} million parameters, {size_text(size_bytes)}")
    with quiet_libraries():
        model.save_pretrained(folder)
