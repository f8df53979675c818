"""Imports go down only, and what needs no SpatialData imports none."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import stpredict

ROOT = Path(stpredict.__file__).parent

#: Parts of the package, from the bottom up; a part imports none that stands above it.
LAYERS = (
    {"_keys", "_settings", "_log", "_validate", "_runtime"},
    {"nn"},
    {"training", "encoders", "tiles", "targets", "metrics", "alignment", "uncertainty"},
    {"models"},
    {"results"},
    {"_sdata"},
    {"io", "datasets"},
    {"pp", "pl"},
    {"tl"},
    {"report"},
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

#: Data structures of scverse, and what stands on them.
SCVERSE = {
    "anndata",
    "geopandas",
    "scanpy",
    "spatialdata",
    "spatialdata_io",
    "squidpy",
}
ARRAYS_ONLY = (
    "nn",
    "training",
    "encoders",
    "tiles",
    "targets",
    "metrics",
    "alignment",
    "uncertainty",
    "models",
)
TOUCH_SPATIALDATA = {"_sdata", "datasets", "io", "pl", "pp", "report", "tl"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def part_of(module: str) -> str:
    return ([*module.split("."), ""])[1]


class Imports(ast.NodeVisitor):
    """Modules that a source imports, also inside functions."""

    def __init__(self, *, type_checking: bool) -> None:
        self.type_checking = type_checking
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        only_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in node.orelse if only_types and not self.type_checking else node.body:
            self.visit(child)
        if not only_types:
            for child in node.orelse:
                self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "relative import"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            self.found.add(whole if whole in SOURCES else str(node.module))


def imports(module: str, *, type_checking: bool = False) -> set[str]:
    visitor = Imports(type_checking=type_checking)
    visitor.visit(ast.parse(SOURCES[module].read_text(encoding="utf-8")))
    return visitor.found


def own(modules: set[str]) -> set[str]:
    return {module for module in modules if module.split(".")[0] == "stpredict"}


def third_party(modules: set[str]) -> set[str]:
    roots = {module.split(".")[0] for module in modules}
    return roots - {"stpredict"} - sys.stdlib_module_names


def reachable(module: str) -> set[str]:
    """The module, all it imports when it runs, and the packages these lie in."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        waiting += own(imports(name)) & SOURCES.keys()
        parent = name.rpartition(".")[0]
        if parent:
            waiting.append(parent)
    return seen


def test_every_part_has_its_layer():
    parts = {part_of(module) for module in SOURCES} - {""}
    assert parts <= LEVEL.keys(), "give a new part of the package its place in LAYERS"


def test_every_own_import_is_a_module_of_the_package():
    for module in SOURCES:
        assert own(imports(module, type_checking=True)) <= SOURCES.keys(), module


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "stpredict"])
def test_imports_go_down_only(module):
    level = LEVEL[part_of(module)]
    above = {
        name
        for name in own(imports(module, type_checking=True)) - {"stpredict"}
        if LEVEL[part_of(name)] > level
    }
    assert not above


def test_parts_import_each_other_in_no_circle():
    graph: dict[str, set[str]] = {}
    for module in SOURCES:
        others = {part_of(name) for name in own(imports(module))} - {part_of(module), ""}
        graph.setdefault(part_of(module), set()).update(others)
    graph.pop("")
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_only_the_tools_lean_on_preprocessing():
    may = {"pp": {"pp"}, "pl": {"pl"}, "tl": {"pp", "tl"}}
    for module in SOURCES:
        if part_of(module) in may:
            others = {part_of(name) for name in own(imports(module))} & may.keys()
            assert others <= may[part_of(module)], module


@pytest.mark.parametrize("module", [name for name in SOURCES if part_of(name) == "nn"])
def test_networks_need_torch_numpy_and_timm_only(module):
    assert third_party(imports(module, type_checking=True)) <= {"torch", "numpy", "timm"}
    assert {part_of(name) for name in own(imports(module, type_checking=True))} <= {"nn", ""}


@pytest.mark.parametrize("module", [name for name in SOURCES if part_of(name) in ARRAYS_ONLY])
def test_what_works_on_arrays_reaches_no_spatialdata(module):
    for name in reachable(module):
        found = third_party(imports(name)) & SCVERSE
        assert not found, f"{module} reaches {name}, which imports {found}"


@pytest.mark.parametrize("module", list(SOURCES))
def test_only_the_boundary_touches_spatialdata(module):
    if part_of(module) not in TOUCH_SPATIALDATA:
        assert not third_party(imports(module, type_checking=True)) & SCVERSE


def test_what_works_on_arrays_imports_without_scverse_installed():
    parts = [f"stpredict.{part}" for part in ARRAYS_ONLY]
    code = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(SCVERSE)!r}))\n"  # None: ImportError
        f"[importlib.import_module(part) for part in {parts!r}]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
