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
    ("retrieval", "strategies"),
    ("datamodules",),
    ("lightning_modules",),
    ("studies",),
    ("potstill",),
)
"""The folders from the ground up: one imports those below it and itself. The scripts stand on top."""

INNER_FLOORS: tuple[tuple[str, ...], ...] = (
    ("names", "models", "lightning_private", "vectors", "step_values"),
    ("students",),
    ("teachers",),
    ("distillation", "listed"),
    ("evaluation", "export"),
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


def rooms(modules: dict[str, Module]) -> dict[str, int]:
    """Room -> the lines in it; a single file of ``lightning_modules`` is a room too."""
    lines: dict[str, int] = {}
    for name, module in modules.items():
        if not (module.is_package and name == "lightning_modules"):
            lines[room_of(name)] = lines.get(room_of(name), 0) + module.lines
    return lines


def room_arrows(modules: dict[str, Module]) -> set[tuple[str, str]]:
    """(importer, imported) for the rooms that do not already reach the imported one through another room."""
    direct: dict[str, set[str]] = {room: set() for room in rooms(modules)}
    for name, targets in arrows(modules).items():
        direct.setdefault(room_of(name), set()).update(room_of(target) for target in targets)
    for room, others in direct.items():
        others.discard(room)

    def reach(room: str) -> set[str]:
        found: set[str] = set()
        waiting = list(direct.get(room, ()))
        while waiting:
            target = waiting.pop()
            if target not in found:
                found.add(target)
                waiting.extend(direct.get(target, ()))
        return found

    return {
        (room, target)
        for room, targets in direct.items()
        for target in targets
        if not any(target in reach(between) for between in targets - {target})
    }


def draw(modules: dict[str, Module], path: Path = PICTURE) -> None:
    """Draw rooms as boxes by floor, and their imports as arrows: only those that no chain of others implies."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    inner = [[f"lightning_modules.{name}" for name in names] for names in INNER_FLOORS]
    floors = [list(names) for names in FLOORS[:3]] + inner + [list(FLOORS[4]), [SCRIPTS, *FLOORS[5]]]
    lines = rooms(modules)
    floors = [[room for room in floor if room in lines] for floor in floors]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "house", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9.6, 0.62 * len(floors) + 0.6))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 9.6), ylim=(-0.5, len(floors) - 0.4))
        axes.axis("off")
        first, last = len(FLOORS[:3]), len(FLOORS[:3]) + len(inner) - 1
        frame = FancyBboxPatch((0.25, first - 0.36), 9.1, last - first + 0.72, boxstyle="round,pad=0,rounding_size=0.1")
        frame.set(facecolor="#f2f5f9", edgecolor="#c3cfdd")
        axes.add_patch(frame)
        axes.text(9.2, last + 0.12, "lightning_modules", ha="right", va="center", color="#56708f", fontsize=10)
        boxes = {}
        for height, floor in enumerate(floors):
            for number, room in enumerate(floor):
                step = min(2.15, 8.95 / len(floor))
                x, half = 4.8 + (number - (len(floor) - 1) / 2) * step, step / 2 - 0.09
                boxes[room] = x, height
                label = "train.py, evaluate.py, ..." if room == SCRIPTS else room_label(modules, room)
                box = FancyBboxPatch(
                    (x - half, height - 0.24), 2 * half, 0.48, boxstyle="round,pad=0,rounding_size=0.06"
                )
                box.set(facecolor="white", edgecolor="#2b6cb0", zorder=3)
                axes.add_patch(box)
                axes.text(x, height, label, ha="center", va="center", fontsize=9, zorder=4)
        for importer, imported in sorted(room_arrows(modules)):
            (x, top), (to, bottom) = boxes[importer], boxes[imported]
            beside = 0.0 if top - bottom <= 1 else (0.14 if x < 4.8 else -0.14)
            ends = ((x, top - 0.25), (to, bottom + 0.25)) if top != bottom else ((x, top), (to, bottom))
            arrow = FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=9, connectionstyle=f"arc3,rad={beside}")
            arrow.set(color="#8a9bb0", linewidth=0.9, zorder=2)
            axes.add_patch(arrow)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def room_label(modules: dict[str, Module], room: str) -> str:
    """What the picture calls a room: ``run/`` or ``vectors.py``."""
    return room.rpartition(".")[2] + ("/" if modules[room].is_package else ".py")


if __name__ == "__main__":
    draw(read_product())
    print(PICTURE)
