"""The house keeps its shape: what may import what, and how large a folder, a file and a function may be.

All checks read the syntax tree of the product; nothing of it is imported. What is private in Lightning and jsonargparse
is read from their sources.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.house import (
    FLOORS,
    FOLDERS,
    INNER_FLOORS,
    PICTURE,
    ROOT,
    SCRIPTS,
    Module,
    arrows,
    read_product,
    room_label,
    room_of,
    rooms,
)

MOST_LINES = 32_500
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_MODULES_OF_A_FOLDER = 16
FEWEST_LINES_WITH_ONE_IMPORTER = 40

APART = ("strategies", "retrieval")
"""Folders of one floor that do not import each other."""

ONLY_IN = {
    "jsonargparse": "lightning_modules/cli/",
    "lightning.pytorch.cli": "lightning_modules/cli/",
    "wandb": "lightning_modules/run/loggers.py",
}
"""Library -> the only folder or file that imports it."""

PRIVATE = "lightning_modules/lightning_private.py"

LIBRARIES = ("lightning", "jsonargparse", "wandb")
"""Those whose private names no class of ours may inherit, outside of `PRIVATE`."""

OPEN = {"_asdict", "_replace", "_fields", "_make", "_field_defaults", "_exit"}
"""Names with an underscore that are public."""


@pytest.fixture(scope="module")
def product() -> dict[str, Module]:
    return read_product()


def where(module: Module, line: int = 1) -> str:
    return f"{module.path.relative_to(root_of(module))}:{line}"


def root_of(module: Module) -> Path:
    depth = module.name.count(".") + module.is_package
    return module.path.parents[depth]


# The checks: each gives a line for what breaks it.


def upward_imports(modules: dict[str, Module]) -> Iterator[str]:
    """Imports of a folder that stands higher, or of one that is to be kept apart."""
    floors = {folder: number for number, folders in enumerate(FLOORS) for folder in folders}
    floors[SCRIPTS] = len(FLOORS)
    inner = {name: number for number, names in enumerate(INNER_FLOORS) for name in names}
    graph = arrows(modules)
    for name, module in modules.items():
        ours = room_of(name).split(".")
        for target, line in graph[name].items():
            theirs = room_of(target).split(".")
            if floors[theirs[0]] > floors[ours[0]] or {ours[0], theirs[0]} == set(APART):
                yield f"{where(module, line)}: {ours[0]} imports {target}"
            if len(theirs) == len(ours) == 2 and inner.get(theirs[1], 0) > inner.get(ours[1], 0):
                yield f"{where(module, line)}: {ours[1]} imports {target}"
        for line, imported, _ in module.imports:
            if imported.split(".")[0] in ("tests", "benchmarks", "docs"):
                yield f"{where(module, line)}: the product imports {imported}"


def unknown_rooms(modules: dict[str, Module]) -> Iterator[str]:
    """Files of ``lightning_modules`` that have no floor."""
    known = {name for names in INNER_FLOORS for name in names}
    for name, module in modules.items():
        room = room_of(name).split(".")
        if len(room) == 2 and room[1] not in known:
            yield f"{where(module)}: {room[1]} has no floor in docs/house.py"


def circles(modules: dict[str, Module]) -> Iterator[str]:
    """Modules that import each other, directly or in a round."""
    graph = arrows(modules)
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> Iterator[str]:
        state[name] = 1
        for target, line in graph[name].items():
            if state.get(target) == 1:
                yield f"{where(modules[name], line)}: {' > '.join([*path[path.index(target) :], target])}"
            elif target not in state:
                yield from visit(target, [*path, target])
        state[name] = 2

    for name in modules:
        if name not in state:
            yield from visit(name, [name])


def foreign_imports(modules: dict[str, Module]) -> Iterator[str]:
    """Libraries that are imported outside of the one place for them."""
    for module in modules.values():
        for line, imported, member in module.imports:
            for library, place in ONLY_IN.items():
                is_it = any(f"{name}.".startswith(f"{library}.") for name in (imported, f"{imported}.{member}"))
                if is_it and not where(module).startswith(place):
                    yield f"{where(module, line)}: imports {library}, expected in {place} only"


def private_names(modules: dict[str, Module]) -> Iterator[str]:
    """Private names that no file of ours defines: they are a library's."""
    bases = _bases(modules)
    own = {name: _defined(module) for name, module in modules.items()}
    of_classes = {name for module in modules.values() for node in _classes(module) for name in _own_names(node)[0]}
    for module in modules.values():
        if where(module).startswith(PRIVATE):
            continue
        for line, imported, member in module.imports:
            if any(_is_private(part) for part in [*imported.split("."), member]):
                yield f"{where(module, line)}: imports {imported} {member}"
        for node in module.nodes:
            name = _private_attribute(node)
            if name and name not in own[module.name] and not (_is_of_self(node) and name in of_classes):
                yield f"{where(module, node.lineno)}: uses {ast.unparse(node)}"  # type: ignore[attr-defined]
        for node in _classes(module):
            inherited = set().union(*(library_privates(base) for base in _ancestors(node.name, bases)))
            for name, line in sorted(_own_names(node)[1].items()):
                if name in inherited:
                    yield f"{where(module, line)}: {node.name}.{name} is a private name of its base class"


def large_folders(modules: dict[str, Module]) -> Iterator[str]:
    """Folders of too many modules."""
    folders: dict[Path, int] = defaultdict(int)
    for module in modules.values():
        folders[module.path.parent] += not module.is_package
    for folder, count in folders.items():
        if count > MOST_MODULES_OF_A_FOLDER:
            yield f"{folder.name}:1: {count} modules, expected at most {MOST_MODULES_OF_A_FOLDER}"


def long_files(modules: dict[str, Module]) -> Iterator[str]:
    """Files of too many lines."""
    for module in modules.values():
        if module.lines > MOST_LINES_OF_A_FILE:
            yield f"{where(module)}: {module.lines} lines, expected at most {MOST_LINES_OF_A_FILE}"


def long_functions(modules: dict[str, Module]) -> Iterator[str]:
    """Functions of too many lines; the docstring does not count."""
    for module in modules.values():
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                has_text = ast.get_docstring(node) is not None
                text = (first.end_lineno or 0) - first.lineno + 1 if has_text else 0
                lines = (node.end_lineno or 0) - node.lineno + 1 - text
                if lines > MOST_LINES_OF_A_FUNCTION:
                    yield f"{where(module, node.lineno)}: {node.name} has {lines} lines"


def small_files(modules: dict[str, Module]) -> Iterator[str]:
    """Small modules that one other module imports: they belong there."""
    importers: dict[str, list[str]] = defaultdict(list)
    for name, targets in arrows(modules).items():
        for target in targets:
            importers[target].append(name)
    for name, module in modules.items():
        if module.lines < FEWEST_LINES_WITH_ONE_IMPORTER and not module.is_package and len(importers[name]) == 1:
            yield f"{where(module)}: {module.lines} lines, and {importers[name][0]} alone imports it"


def too_many_lines(modules: dict[str, Module]) -> Iterator[str]:
    """The product as a whole."""
    lines: dict[str, int] = defaultdict(int)
    for name, module in modules.items():
        lines[room_of(name).split(".")[0]] += module.lines
    if (total := sum(lines.values())) > MOST_LINES:
        folders = ", ".join(f"{folder} {count:,}" for folder, count in lines.items())
        yield f"{total:,} lines, expected at most {MOST_LINES:,}: {folders}"


# What the check of private names needs.


def _is_private(name: str) -> bool:
    return bool(re.fullmatch(r"_[^_].*", name)) and name not in OPEN


def _is_of_self(node: ast.AST) -> bool:
    """Whether a node is an attribute of ``self``, ``cls`` or ``super()``."""
    value = getattr(node, "value", None) if isinstance(node, ast.Attribute) else None
    if isinstance(value, ast.Call):
        return getattr(value.func, "id", "") == "super"
    return getattr(value, "id", "") in ("self", "cls")


def _classes(module: Module) -> list[ast.ClassDef]:
    return [node for node in module.nodes if isinstance(node, ast.ClassDef)]


def _private_attribute(node: ast.AST) -> str:
    """The private name that an expression reads or writes, also by ``getattr``; empty where it is none."""
    name = ""
    if isinstance(node, ast.Attribute):
        name = node.attr
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
        name = str(getattr(node.args[1], "value", ""))
    return name if _is_private(name) else ""


def _defined(module: Module) -> set[str]:
    """Private names that a file gives a meaning: functions, classes, attributes that are assigned."""
    names = set()
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_of_self(node):
            names.add(node.attr)
    return set(filter(_is_private, names))


@cache
def _own_names(node: ast.ClassDef) -> tuple[set[str], dict[str, int]]:
    """The private names that the body of a class defines; and those with the ones it uses on ``self`` -> a line."""
    defined: set[str] = set()
    names: dict[str, int] = {}
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef) and _is_private(each.name):
            defined.add(each.name)
            names.setdefault(each.name, each.lineno)
        elif isinstance(each, ast.Attribute) and _is_private(each.attr) and _is_of_self(each):
            names.setdefault(each.attr, each.lineno)
            if isinstance(each.ctx, ast.Store):
                defined.add(each.attr)
        elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store) and _is_private(each.id):
            defined.add(each.id)
    return defined, names


def _bases(modules: dict[str, Module]) -> dict[str, list[str]]:
    """Name of a class of ours -> the names of its base classes."""
    return {
        node.name: [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        for module in modules.values()
        for node in _classes(module)
    }


def _ancestors(name: str, bases: dict[str, list[str]]) -> set[str]:
    """The names of all classes outside of the product that a class of ours derives from."""
    found: set[str] = set()
    for base in bases[name]:
        if base != name:
            found |= _ancestors(base, bases) if base in bases else {base}
    return found


@cache
def _sources() -> dict[str, Path]:
    """Name of a class -> the file of Lightning or jsonargparse that defines it."""
    classes = {}
    for library in LIBRARIES:
        spec = importlib.util.find_spec(library)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted((folder / "pytorch").rglob("*.py") if library == "lightning" else folder.glob("*.py")):
            for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
                classes.setdefault(name, path)
    return classes


@cache
def library_privates(name: str) -> frozenset[str]:
    """The private names that a class of a library and its base classes define; none where it is not one of theirs."""
    path = _sources().get(name)
    if path is None:
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    node = next(each for each in ast.walk(tree) if isinstance(each, ast.ClassDef) and each.name == name)
    names = set(_own_names(node)[1])
    for base in node.bases:
        if (base_name := ast.unparse(base).rpartition(".")[2]) != name:
            names |= library_privates(base_name)
    return frozenset(names)


CHECKS = (
    upward_imports,
    unknown_rooms,
    circles,
    foreign_imports,
    private_names,
    large_folders,
    long_files,
    long_functions,
    small_files,
    too_many_lines,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house(product, check):
    broken = list(check(product))
    assert not broken, "\n" + "\n".join(broken)


def test_every_folder_is_read(product):
    """A folder that is missing here would be checked by nothing."""
    rooms = {room_of(name).split(".")[0] for name in product}
    assert rooms == {*FOLDERS, SCRIPTS}
    inner = {room_of(name).split(".")[1] for name in product if "." in room_of(name)}
    assert inner == {name for names in INNER_FLOORS for name in names}
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders <= {*FOLDERS, "tests", "benchmarks", "docs"}


def test_the_picture_has_all_rooms(product):
    """python docs/house.py draws it again."""
    drawn = set(re.findall(r">([\w.]+(?:/|\.py))</text>", PICTURE.read_text(encoding="utf-8")))
    expected = {room_label(product, room) for room in rooms(product) if room != SCRIPTS}
    assert drawn == expected, "draw it again: python docs/house.py"


# Each check can fail: a tree of a few lines that breaks it, and what it says.

GENEROUS = "x = 1\n" * FEWEST_LINES_WITH_ONE_IMPORTER
BROKEN = {
    "an import upwards": (upward_imports, {"retrieval/a.py": "def f():\n    import studies.b\n", "studies/b.py": ""}, [
        "retrieval/a.py:2: retrieval imports studies.b"
    ]),
    "folders that are kept apart": (upward_imports, {"retrieval/a.py": "", "strategies/b.py": "import retrieval.a"}, [
        "strategies/b.py:1: strategies imports retrieval.a"
    ]),
    "a room that imports a higher one": (
        upward_imports,
        {
            "lightning_modules/run/a.py": "x = 1\nfrom lightning_modules.cli import b\n",
            "lightning_modules/cli/b.py": "from lightning_modules.run import c",
            "lightning_modules/run/c.py": "",
        },
        ["lightning_modules/run/a.py:2: run imports lightning_modules.cli.b"],
    ),
    "the product imports a test": (upward_imports, {"train.py": "from tests.conftest import x"}, [
        "train.py:1: the product imports tests.conftest"
    ]),
    "a room without a floor": (unknown_rooms, {"lightning_modules/attic.py": ""}, [
        "lightning_modules/attic.py:1: attic has no floor in docs/house.py"
    ]),
    "a circle": (
        circles,
        {
            "studies/a.py": "import studies.b",
            "studies/b.py": "def f():\n    from studies import c",
            "studies/c.py": "if TYPE_CHECKING:\n    from studies.a import x",
        },
        ["studies/c.py:2: studies.a > studies.b > studies.c > studies.a"],
    ),
    "jsonargparse": (foreign_imports, {"studies/a.py": "\nfrom jsonargparse import Namespace"}, [
        "studies/a.py:2: imports jsonargparse, expected in lightning_modules/cli/ only"
    ]),
    "wandb": (
        foreign_imports,
        {
            "lightning_modules/run/plots.py": "def f():\n    import wandb",
            "lightning_modules/run/loggers.py": "import wandb",
            "lightning_modules/cli/cli.py": "from lightning.pytorch.cli import LightningCLI\nimport jsonargparse",
            "lightning_modules/run/cli.py": "from lightning.pytorch import cli",
        },
        [
            "lightning_modules/run/cli.py:1: imports lightning.pytorch.cli, expected in lightning_modules/cli/ only",
            "lightning_modules/run/plots.py:2: imports wandb, expected in lightning_modules/run/loggers.py only",
        ],
    ),
    "private imports": (private_names, {"studies/a.py": "from lightning.x import _y\nfrom lightning._z import u"}, [
        "studies/a.py:1: imports lightning.x _y", "studies/a.py:2: imports lightning._z u"
    ]),
    "private attributes": (
        private_names,
        {
            "studies/a.py": "self._ours = parser._actions\nself._ours._asdict()\ngetattr(parser, '_typehint')",
            PRIVATE: "trainer._anything",
        },
        ["studies/a.py:1: uses parser._actions", "studies/a.py:3: uses getattr(parser, '_typehint')"],
    ),
    "an inherited private name": (
        private_names,
        {
            "studies/a.py": "class Ours(ModelCheckpoint):\n    pass\n",
            "studies/b.py": "class More(a.Ours):\n    def _save_checkpoint(self): ...\n    def _ours(self): ...\n",
        },
        ["studies/b.py:2: More._save_checkpoint is a private name of its base class"],
    ),
    "a large folder": (large_folders, {f"studies/a{number}.py": "" for number in range(17)}, [
        "studies:1: 17 modules, expected at most 16"
    ]),
    "a long file": (long_files, {"studies/a.py": "\n" * 401, "studies/b.py": "\n" * 400}, [
        "studies/a.py:1: 401 lines, expected at most 400"
    ]),
    "a long function": (
        long_functions,
        {"studies/a.py": "def f():\n" + "    x = 1\n" * 60 + "def g():\n    '''A\n\n    B'''\n" + "    x = 1\n" * 59},
        ["studies/a.py:1: f has 61 lines"],
    ),
    "a small file": (
        small_files,
        {
            "studies/a.py": "import studies.b\nimport studies.c\nimport studies.d",
            "studies/b.py": GENEROUS,
            "studies/c.py": "x = 1\n",
            "studies/d.py": "x = 1\n",
            "studies/e.py": "import studies.d",
        },
        ["studies/c.py:1: 1 lines, and studies.a alone imports it"],
    ),
    "many lines": (too_many_lines, {"studies/a.py": "\n" * MOST_LINES, "train.py": "\n"}, [
        f"{MOST_LINES + 1:,} lines, expected at most {MOST_LINES:,}: studies {MOST_LINES:,}, scripts 1"
    ]),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_check_can_fail(tmp_path, case):
    check, files, expected = BROKEN[case]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert sorted(check(read_product(tmp_path))) == expected


def test_the_private_names_of_lightning_are_found():
    assert {"_save_checkpoint", "_every_n_train_steps"} <= library_privates("ModelCheckpoint")
    assert "_actions" not in library_privates("Callback")
    assert not library_privates("NoClassOfTheirs")
