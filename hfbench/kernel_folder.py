"""Whether a folder holds a built kernel with a layer, as far as can be told without importing it."""

import ast
from pathlib import Path

from hfbench.foundation.errors import UserError

_LAYOUT = "docs/kernels.md shows how a kernel's folder is laid out"


def check_kernel_folder(folder: Path, layer_name: str) -> None:
    """Raise `UserError` where the folder has no build of a kernel, or none of its builds has the layer `layer_name`.

    A build whose layers cannot be told from its source is taken to have them.
    """
    # Where the kernels library looks (`kernels.resolver.resolve_local_kernel`).
    builds = [path.parent for place in (".", "*", "build/*") for path in folder.glob(f"{place}/metadata.json")]
    if not builds:
        raise UserError(f"kernels names the folder {folder}, which has no build/VARIANT/metadata.json; {_LAYOUT}.")
    known = [_layers(build) for build in builds]
    if not any(names is None or layer_name in names for names in known):
        found = sorted({name for names in known if names for name, is_class in names.items() if is_class})
        raise UserError(
            f"kernels names the layer_name {layer_name}, which the kernel in {folder} does not have; "
            f"its layers module defines {', '.join(found) or 'no class'}."
        )


def _layers(build: Path) -> dict[str, bool] | None:
    """Return the names in the build's module `layers`, each with whether it is a class that is defined there.

    None where the source does not tell what it defines.
    """
    source = next((path for path in (build / "layers.py", build / "layers" / "__init__.py") if path.is_file()), None)
    if source is None:
        return None
    try:
        body = ast.parse(source.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError) as error:
        raise UserError(f"kernels names a folder in which {source} is not valid Python: {error}.") from None
    names: dict[str, bool] = {}
    for node in body:
        match node:
            case ast.ClassDef():
                names[node.name] = True
            case ast.ImportFrom() if all(alias.name != "*" for alias in node.names):
                names |= {alias.asname or alias.name: False for alias in node.names}
            case ast.Import() | ast.Expr() | ast.FunctionDef():
                continue
            case ast.Assign() if all(isinstance(target, ast.Name) for target in node.targets):
                names |= {target.id: False for target in node.targets if isinstance(target, ast.Name)}
            case _:  # anything may be defined in there
                return None
    return names
