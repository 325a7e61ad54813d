"""Trees of files as Linux shows them in /proc and /sys, in temporary folders."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

WriteTree = Callable[[Mapping[str, str | int]], Path]


@pytest.fixture
def write_tree(tmp_path: Path) -> WriteTree:
    """Write files below one root, which stands for `/`, and return it."""

    def write(files: Mapping[str, str | int]) -> Path:
        for name, content in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        return tmp_path / "root"

    return write
