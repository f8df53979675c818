"""What every public function keeps to: its signature, its docstring, and what it changes."""

from __future__ import annotations

import builtins
import inspect
import re

import numpy as np
import pytest
import scipy.sparse as sp

import stpredict as stp

MODULES = (
    "datasets",
    "encoders",
    "io",
    "metrics",
    "models",
    "pl",
    "pp",
    "report",
    "tl",
    "uncertainty",
)
FUNCTIONS = {
    f"{module}.{name}": function
    for module in MODULES
    for name in getattr(stp, module).__all__
    if inspect.isfunction(function := getattr(getattr(stp, module), name))
}
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def bare_slide(sdata):
    """Take away all that measured spots brought with them."""
    for name in [*sdata.tables, *sdata.shapes]:
        del sdata[name]


def mean_colour(tiles):
    return tiles.mean((-2, -1))


#: Functions that write to the object they are given, and how to call them in a test.
IN_PLACE = {
    "pp.balance": lambda sdata, model: {"by": "region_truth"},
    "pp.detect_tissue": lambda sdata, model: {},
    "pp.embed": lambda sdata, model: {"encoder": mean_colour, "key_added": "X_colour"},
    "pp.filter_spots": lambda sdata, model: {"min_counts": 4000},
    "pp.grid": lambda sdata, model: {"image": "S1_image", "pitch_um": 40, "diameter_um": 22},
    "pp.neighbors": lambda sdata, model: {"n_neighbors": 3},
    "pp.normalize": lambda sdata, model: {},
    "pp.normalize_stain": lambda sdata, model: {},
    "pp.prepare": lambda sdata, model: {"model": model, "encoder": mean_colour},
    "pp.rank_expression": lambda sdata, model: {"layer": None},
    "pp.realign": lambda sdata, model: {"shift_um": (2.0, -1.0)},
    "pp.register_embedding": lambda sdata, model: {
        "key": "features",
        "encoder": "my_model",
        "tile_um": 40.0,
    },
    "pp.select_genes": lambda sdata, model: {"n_top_genes": 3},
    "pp.smooth": lambda sdata, model: {"layer": None, "by": "expression", "n_neighbors": 3},
    "tl.attribute": lambda sdata, model: {"model": model, "gene": model.genes[0], "n_steps": 128},
    "tl.predict": lambda sdata, model: {"model": model},
}

every_function = pytest.mark.parametrize(
    "function", [pytest.param(function, id=name) for name, function in FUNCTIONS.items()]
)


def docstring_sections(function):
    text = inspect.getdoc(function) or ""
    parts = re.split(r"^([A-Z][\w ]+)\n-{3,}\n", text, flags=re.MULTILINE)
    return dict(zip(["Summary", *parts[1::2]], parts[::2], strict=True))


def documented(section):
    """Names at the left border of a section: ``a, b`` or ``a : type``."""
    lines = [line for line in section.splitlines() if line and not line.startswith(" ")]
    return [name.strip(" *") for line in lines for name in line.split(":")[0].split(",")]


def parameters(function):
    return list(inspect.signature(function).parameters.values())


def test_the_walk_finds_the_functions():
    assert {"pp.embed", "tl.fit_deepspot", "datasets.phantom", "metrics.pcc"} <= FUNCTIONS.keys()


@every_function
def test_at_most_three_positional_parameters(function):
    positional = [p for p in parameters(function) if p.kind in POSITIONAL]
    assert len(positional) <= 3
    assert not any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters(function))


@every_function
def test_everything_is_annotated(function):
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters(function))


@every_function
def test_the_docstring_describes_every_parameter_in_order(function):
    sections = docstring_sections(function)
    names = [p.name for p in parameters(function)]
    assert documented(sections.get("Parameters", "")) == names


@every_function
def test_the_docstring_has_what_a_reader_needs(function):
    sections = docstring_sections(function)
    summary = sections["Summary"].splitlines()
    assert summary[0].endswith(".")
    assert sections.get("Examples", "").count(">>> "), "no example"
    if inspect.signature(function).return_annotation != "None":
        assert sections.get("Returns", "").strip(), "does not say what it returns"
    if parameters(function):
        raises = documented(sections.get("Raises", ""))
        assert raises, "does not say what it raises"
        assert all(issubclass(getattr(builtins, error), Exception) for error in raises)


@every_function
def test_copy_comes_with_changing_in_place(function):
    name = f"{function.__module__.split('.')[1]}.{function.__name__}"
    names = [p.name for p in parameters(function)]
    assert ("copy" in names) == (name in IN_PLACE), "name it in IN_PLACE, with a call"
    if "copy" in names:
        assert names[0] == "sdata"
        assert inspect.signature(function).parameters["copy"].default is False
        assert inspect.signature(function).return_annotation == "SpatialData | None"


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def phantom():
    return stp.datasets.phantom(
        size_px=800, mpp=0.5, pitch_um=40, n_morphology=3, n_neighborhood=3, n_null=2
    )


@pytest.fixture(scope="module")
def model():
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = phantom()
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=4)
    stp.pp.embed(sdata, mean_colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_deepspot(
        sdata,
        embedding="X_colour",
        context="spot_neighbors",
        n_hidden=4,
        n_phi=1,
        n_rho=1,
        max_epochs=1,
    )
    stp.settings.verbosity = verbosity
    return model


def content(sdata):
    """All that a function could change, by slot."""
    found = {f"shapes/{name}": shapes.to_json() for name, shapes in sdata.shapes.items()}
    found |= {f"element/{kind}/{name}": "" for kind, name, _ in sdata.gen_elements()}
    for name, table in sdata.tables.items():
        found[f"{name}/obs"] = table.obs.to_json()
        found[f"{name}/var"] = table.var.to_json()
        found[f"{name}/uns"] = repr(table.uns)
        found[f"{name}/X"] = dense(table.X)
        for slots in ("layers", "obsm", "obsp"):
            for key, values in getattr(table, slots).items():
                found[f"{name}/{slots}/{key}"] = dense(values)
    return found


def dense(values):
    return np.asarray(values.toarray() if sp.issparse(values) else values).tobytes()


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_copy_is_changed_as_the_object_itself_would_be(name, model):
    sdata = phantom()
    if name in ("tl.attribute", "tl.predict"):
        stp.pp.prepare(sdata, model, encoder=mean_colour)
    if name == "tl.attribute":
        stp.tl.predict(sdata, model)
    if name == "pp.register_embedding":
        sdata["table"].obsm["features"] = np.ones((sdata["table"].n_obs, 3))
    if name == "pp.grid":
        bare_slide(sdata)
    function = FUNCTIONS[name]
    before = content(sdata)
    changed = function(sdata, **IN_PLACE[name](sdata, model), copy=True)
    assert content(sdata) == before
    assert content(changed) != before
    assert function(sdata, **IN_PLACE[name](sdata, model)) is None
    assert content(sdata) == content(changed)
