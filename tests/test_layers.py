"""Imports go down only, array packages know no SpatialData, folders show the public functions."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import stpredict as stp

ROOT = Path(stp.__file__).parent

#: Parts of the package, from the bottom up; a part imports none of a higher layer.
LAYERS = (
    {"_arguments", "_atomic", "_describe", "_keys", "_settings", "_log", "_validate"}
    | {"_download", "_registry", "_runtime", "_workers"},
    {"nn"},
    {"training", "encoders", "tiles", "targets", "metrics", "alignment", "uncertainty"},
    {"results"},
    {"_sdata"},
    {"models"},
    {"io", "datasets"},
    {"pp", "pl"},
    {"tl"},
    {"report"},
    {"cli", "__main__"},
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
#: The only modules of the boundary that models may import: they need no scverse package.
STEPS = {f"stpredict._sdata.{name}" for name in ("_links", "_parse", "_recipe", "_steps")}
#: Packages of arrays and tensors, and the models, which can be used without a SpatialData.
ARRAYS_ONLY = sorted(set.union(*LAYERS[1:4]) | {"models"})
#: Packages whose folder shows their public functions, one file or folder each.
SHOWN = ("tl", "pp", "pl", "io")

#: Data structures of scverse, and packages that need them.
SCVERSE = {
    "anndata",
    "geopandas",
    "scanpy",
    "spatialdata",
    "spatialdata_io",
    "squidpy",
}


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
        self.modules: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        only_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in node.orelse if only_types and not self.type_checking else node.body:
            self.visit(child)
        if not only_types:
            for child in node.orelse:
                self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.modules.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "relative import"
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            self.modules.add(whole if whole in SOURCES else str(node.module))


@cache  # some tests follow the imports of hundreds of modules
def imports(module: str, *, type_checking: bool = False) -> set[str]:
    visitor = Imports(type_checking=type_checking)
    visitor.visit(ast.parse(SOURCES[module].read_text(encoding="utf-8")))
    return visitor.modules


def in_package(modules: set[str]) -> set[str]:
    return {module for module in modules if module.split(".")[0] == "stpredict"}


def third_party(modules: set[str]) -> set[str]:
    roots = {module.split(".")[0] for module in modules}
    return roots - {"stpredict"} - sys.stdlib_module_names


@cache
def reachable(module: str) -> set[str]:
    """The module, all modules that it imports at run time, and their packages."""
    visited: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in visited:
            continue
        visited.add(name)
        waiting += in_package(imports(name)) & SOURCES.keys()
        parent = name.rpartition(".")[0]
        if parent:
            waiting.append(parent)
    return visited


def test_every_part_has_its_layer():
    parts = {part_of(module) for module in SOURCES} - {""}
    assert parts == LEVEL.keys(), "add a new part of the package to LAYERS"


def test_every_internal_import_is_a_module_of_the_package():
    for module in SOURCES:
        assert in_package(imports(module, type_checking=True)) <= SOURCES.keys(), module


@pytest.mark.parametrize("module", [name for name in SOURCES if name != "stpredict"])
def test_imports_go_down_only(module):
    level = LEVEL[part_of(module)]
    above = {
        name
        for name in in_package(imports(module, type_checking=True)) - {"stpredict"}
        if LEVEL[part_of(name)] > level
    }
    assert not above


def test_files_import_each_other_in_no_circle():
    """Imports for type checking count, too."""
    graph = {
        module: (in_package(imports(module, type_checking=True)) & SOURCES.keys()) - {"stpredict"}
        for module in SOURCES.keys() - {"stpredict"}
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_parts_import_each_other_in_no_circle():
    graph: dict[str, set[str]] = {}
    for module in SOURCES.keys() - {"stpredict"}:
        others = in_package(imports(module, type_checking=True)) - {"stpredict"}
        parts = {part_of(name) for name in others} - {part_of(module)}
        graph.setdefault(part_of(module), set()).update(parts)
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_only_the_tools_import_preprocessing():
    allowed = {"pp": {"pp"}, "pl": {"pl"}, "tl": {"pp", "tl"}}
    for module in SOURCES:
        if part_of(module) in allowed:
            others = {part_of(name) for name in in_package(imports(module))} & allowed.keys()
            assert others <= allowed[part_of(module)], module


@pytest.mark.parametrize("module", [name for name in SOURCES if part_of(name) == "models"])
def test_models_know_only_the_steps_of_the_boundary(module):
    modules = in_package(imports(module, type_checking=True))
    assert {name for name in modules if part_of(name) == "_sdata"} <= STEPS
    for step_module in STEPS:
        assert not third_party(imports(step_module, type_checking=True)) & SCVERSE


@pytest.mark.parametrize("package", SHOWN)
def test_the_folder_shows_one_module_for_each_public_function(package):
    module = getattr(stp, package)
    public = {
        name: value.__module__.split(".")[2:]
        for name in module.__all__
        if inspect.isfunction(value := getattr(module, name))
    }
    for name, path in public.items():
        assert path[-1] == f"_{name}", f"{name} is defined in {'.'.join(path)}"
        assert len(path) <= 2, f"{name} is more than one folder deep"
    files = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert files <= {f"_{name}" for name in public}


@pytest.mark.parametrize("module", [name for name in SOURCES if part_of(name) == "nn"])
def test_networks_need_torch_numpy_and_timm_only(module):
    assert third_party(imports(module, type_checking=True)) <= {"torch", "numpy", "timm"}
    assert {part_of(name) for name in in_package(imports(module, type_checking=True))} <= {"nn", ""}


@pytest.mark.parametrize("module", [name for name in SOURCES if part_of(name) in ARRAYS_ONLY])
def test_array_packages_reach_no_spatialdata(module):
    for name in reachable(module):
        packages = third_party(imports(name)) & SCVERSE
        assert not packages, f"{module} reaches {name}, which imports {packages}"


@pytest.mark.parametrize("module", list(SOURCES))
def test_only_the_boundary_and_the_layers_above_import_scverse(module):
    below = LEVEL.get(part_of(module), 0) < LEVEL["_sdata"] or part_of(module) == "models"
    if below and module != "stpredict":
        assert not third_party(imports(module, type_checking=True)) & SCVERSE


def test_array_packages_import_without_scverse_installed():
    parts = [f"stpredict.{part}" for part in ARRAYS_ONLY]
    code = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(SCVERSE)!r}))\n"  # None: ImportError
        f"[importlib.import_module(part) for part in {parts!r}]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
