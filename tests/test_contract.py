"""The contract of all public functions: signature, docstring, and what they change."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import tempfile
import typing
from pathlib import Path

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
PACKAGES = (*MODULES, "nn", "results", "targets")
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


#: Functions that write to their first argument, with arguments for a test.
IN_PLACE = {
    "io.read_predictions": lambda sdata, model: {
        "predictions": sdata["table"].to_df("expected"),
        "layer": None,
    },
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
    "pp.score_programs": lambda sdata, model: {"gene_sets": one_set(), "layer": None},
    "pp.select_genes": lambda sdata, model: {"n_top_genes": 3},
    "pp.smooth": lambda sdata, model: {"layer": None, "by": "expression", "n_neighbors": 3},
    "tl.adapt": lambda sdata, model: {"model": model, "measured": every_fifth(sdata)},
    "tl.attribute": lambda sdata, model: {"model": model, "gene": model.genes[0], "n_steps": 128},
    "tl.denoise": lambda sdata, model: {"model": model},
    "tl.predict": lambda sdata, model: {"model": model},
    "tl.superresolve": lambda sdata, model: {
        "model": model,
        "resolution_um": 20,
        "match": None,
        "encoder": mean_colour,
    },
}

#: Functions in place without ``key_added``: their slots are named by an element, a section, a model
#: or the main argument, or they only drop rows.
NAMED_BY_ELEMENT = {
    "pp.detect_tissue",
    "pp.filter_spots",
    "pp.grid",
    "pp.normalize_stain",
    "pp.prepare",
    "pp.realign",
    "pp.register_embedding",
}
#: Functions of a SpatialData that read and write no table.
WITHOUT_TABLE = {"io.register_um"}
#: Objects that come first in a signature, the first of them in this order.
DATA = ("sdata", "slide", "slides", "scores", "model")
#: At most, not counting ``sdata`` and ``table_name``, which all ``fit_*`` share.
MOST_OPTIONS = 17


def bare_slide(sdata):
    """Remove the spots and their table, so that the image remains."""
    for name in [*sdata.tables, *sdata.shapes]:
        del sdata[name]


def one_set():
    path = Path(tempfile.mkdtemp()) / "sets.gmt"
    path.write_text("PROGRAMME\tdescription\tmorphology_001\tneighborhood_002\n")
    return path


def mean_colour(tiles):
    return tiles.mean((-2, -1))


def every_fifth(sdata):
    return np.arange(sdata["table"].n_obs) % 5 == 0


def name_of(function):
    return f"{function.__module__.split('.')[1]}.{function.__name__}"


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
def test_data_come_first_and_common_options_last(function):
    names = [p.name for p in parameters(function)]
    positional = [p.name for p in parameters(function) if p.kind in POSITIONAL]
    data = [name for name in DATA if name in positional]
    assert names[: len(data)] == data
    common = [name for name in ("table_name", "key_added", "copy") if name in names]
    assert sorted(common, key=names.index) == common
    if "copy" in names:
        assert names[-1] == "copy"


@every_function
def test_every_function_of_a_table_takes_its_name(function):
    arguments = inspect.signature(function).parameters
    if "sdata" in arguments and name_of(function) not in WITHOUT_TABLE:
        assert arguments["table_name"].default == "table"


@every_function
def test_every_function_that_writes_a_slot_takes_its_name(function):
    names = inspect.signature(function).parameters
    writes = name_of(function) in {*IN_PLACE, "tl.cross_validate", "tl.predict_slide"}
    assert ("key_added" in names) == (writes and name_of(function) not in NAMED_BY_ELEMENT)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name.startswith("tl.fit_")])
def test_fits_take_no_more_options_than_a_screen_shows(name):
    options = set(inspect.signature(FUNCTIONS[name]).parameters) - {"sdata", "table_name"}
    assert len(options) <= MOST_OPTIONS


@every_function
def test_choices_are_visible_in_the_signature(function):
    """An annotation spells out ``Literal[...]``, not an alias of it."""
    for parameter in parameters(function):
        names = {
            node.id
            for node in ast.walk(ast.parse(str(parameter.annotation), mode="eval"))
            if isinstance(node, ast.Name)
        }
        aliases = {name for name in names if is_literal(resolve(function, name))}
        assert not aliases, f"{parameter.name}: {parameter.annotation}"


def resolve(function, name):
    """The object that a name in an annotation stands for, if it is one of the package."""
    if name in function.__globals__:
        return function.__globals__[name]
    source = Path(inspect.getsourcefile(function)).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):  # also imports for type checking only
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("stpredict"):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    # aliases for type checking only do not exist at run time
                    return getattr(importlib.import_module(node.module), alias.name, None)
    return None


def is_literal(value):
    origin = typing.get_origin(value)
    return origin is typing.Literal or any(map(is_literal, typing.get_args(value)))


@every_function
def test_arguments_are_checked_against_their_annotations(function):
    simple = re.compile(
        r"\b(str|int|float|bool|Literal|SpatialData|Model|Scores|Values|Floats|ArrayLike)\b"
    )
    if any(simple.match(str(parameter.annotation)) for parameter in parameters(function)):
        assert hasattr(function, "__wrapped__"), "decorate it with @checked"


@pytest.mark.parametrize("name", PACKAGES)
def test_dir_lists_the_public_names_only(name):
    package = getattr(stp, name)
    assert dir(package) == sorted(package.__all__)


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
        assert sections.get("Returns", "").strip(), "the section Returns is empty"
    if parameters(function):
        raises = documented(sections.get("Raises", ""))
        assert raises, "the section Raises is empty"
        assert all(issubclass(getattr(builtins, error), Exception) for error in raises)


@every_function
def test_parameters_are_described_by_noun_phrases(function):
    section = docstring_sections(function).get("Parameters", "")
    first_lines = re.findall(r"^\S.*\n    +(\S.*)$", section, flags=re.MULTILINE)
    assert len(first_lines) >= len(parameters(function)) * bool(section) - section.count(", ")
    assert not [line for line in first_lines if line.startswith("Of ")]


@every_function
def test_functions_that_change_their_input_offer_a_copy(function):
    name = name_of(function)
    names = [p.name for p in parameters(function)]
    assert ("copy" in names) == (name in IN_PLACE), "add it to IN_PLACE, with arguments"
    if "copy" in names:
        assert inspect.signature(function).parameters["copy"].default is False
        assert inspect.signature(function).return_annotation == "SpatialData | None"


@pytest.fixture(scope="module", autouse=True)
def _silent():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        yield


def phantom():
    return stp.datasets.phantom(
        size_px=800, mpp=0.5, pitch_um=40, n_morphology=3, n_neighborhood=3, n_null=2
    )


@pytest.fixture(scope="module")
def model():
    sdata = phantom()
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=4)
    stp.pp.embed(sdata, mean_colour, key_added="X_colour", tile_um=40, n_subtiles=1)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_deepspot(
        sdata,
        embedding="X_colour",
        context="spot_neighbors",
        network=stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=1, n_rho=1, n_networks=1),
        schedule=stp.tl.Schedule(max_epochs=1),
    )
    return model


def content(sdata):
    """Everything that a function could change, by slot."""
    slots = {f"shapes/{name}": shapes.to_json() for name, shapes in sdata.shapes.items()}
    slots |= {f"element/{kind}/{name}": "" for kind, name, _ in sdata.gen_elements()}
    for name, table in sdata.tables.items():
        slots[f"{name}/obs"] = table.obs.to_json()
        slots[f"{name}/var"] = table.var.to_json()
        slots[f"{name}/uns"] = repr(table.uns)
        slots[f"{name}/X"] = dense(table.X)
        for kind in ("layers", "obsm", "obsp"):
            for key, values in getattr(table, kind).items():
                slots[f"{name}/{kind}/{key}"] = dense(values)
    return slots


def dense(values):
    return np.asarray(values.toarray() if sp.issparse(values) else values).tobytes()


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_copy_gets_the_changes_of_the_object_itself(name, model):
    sdata = phantom()
    if name in ("tl.adapt", "tl.attribute", "tl.denoise", "tl.predict"):
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
