#!/usr/bin/env python3
"""Who imports whom: reads the product's syntax tree, and draws docs/images/house.svg from it.

python docs/house.py
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PICTURE = ROOT / "docs" / "images" / "house.svg"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("foundations",),
    ("strategies", "retrieval"),
    ("datamodules",),
    ("lightning_modules",),
    ("studies",),
)
"""The folders from the ground up: one imports those below it and itself. The scripts stand on top."""

INNER_FLOORS: tuple[tuple[str, ...], ...] = (
    ("names", "vectors", "lightning_private", "models"),
    ("students",),
    ("teachers",),
    ("listed", "distillation"),
    ("evaluation",),
    ("run",),
    ("cli",),
    ("commands",),
)
"""The same inside ``lightning_modules``; modules and folders of one floor may import each other."""

FOLDERS = tuple(name for floor in FLOORS for name in floor)

SCRIPTS = "scripts"


@dataclass(frozen=True)
class Module:
    """One Python file.

    Args:
        name: as it is imported, e.g. ``strategies.mse``; that of a package is its folder's.
        path: the file.
        imports: line -> what is imported there as (module, name); the name is empty in ``import module``.
    """

    name: str
    path: Path
    imports: list[tuple[int, str, str]] = field(default_factory=list)

    @cached_property
    def text(self) -> str:
        """The source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def lines(self) -> int:
        """Lines of the file."""
        return self.text.count("\n")

    @property
    def is_package(self) -> bool:
        """Whether it is an ``__init__.py``."""
        return self.path.name == "__init__.py"


def read_product(root: Path = ROOT) -> dict[str, Module]:
    """All modules of the product by name: the folders in `FLOORS` and the scripts beside them."""
    modules = {}
    paths = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
    for path in [*paths, *sorted(root.glob("*.py"))]:
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, path)
        modules[name].imports.extend(_imports(modules[name]))
    return modules


def _imports(module: Module) -> Iterator[tuple[int, str, str]]:
    """All imports of a file, also those in functions and for type checking alone."""
    for node in module.nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: a relative import"
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def arrows(modules: dict[str, Module]) -> dict[str, dict[str, int]]:
    """Module -> the modules of the product that it imports -> the first line that does so."""
    graph: dict[str, dict[str, int]] = {name: {} for name in modules}
    for name, module in modules.items():
        for line, imported, member in module.imports:
            full = f"{imported}.{member}"
            target = full if full in modules else imported
            if target in modules and target != name:
                graph[name].setdefault(target, line)
    return graph


def room_of(name: str) -> str:
    """The room of a module: its folder, or within ``lightning_modules`` the folder or module in it.

    >>> room_of("strategies.transport.loss"), room_of("lightning_modules.run.plots"), room_of("train")
    ('strategies', 'lightning_modules.run', 'scripts')
    """
    first, *rest = name.split(".")
    if first not in FOLDERS:
        return SCRIPTS
    return f"{first}.{rest[0]}" if first == "lightning_modules" and rest else first
