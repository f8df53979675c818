"""Arguments that many functions share are checked before anything is fitted or written."""

from __future__ import annotations

import inspect

import pytest

import stpredict as stp
from stpredict import _validate

FUNCTIONS = {name: getattr(stp.tl, name) for name in stp.tl.__all__}
FUNCTIONS = {name: each for name, each in FUNCTIONS.items() if inspect.isfunction(each)}


def never(*_, **__):
    raise AssertionError("was called before the checks were done")


#: Main arguments that would fail later, by the name of the parameter.
MAIN = {
    "bases": {"a": never, "b": never},
    "candidates": {"a": never, "b": never},
    "method": never,
    "methods": {"a": never},
    "gene": "no gene",
    "measured": "no column",
    "out": "no folder",
    "resolution_um": 1000.0,
    "slide": "no slide",
    "slides": ["no slide"],
    "tables": "no table",
}


@pytest.fixture(scope="module")
def sdata():
    return stp.datasets.phantom(2, size_px=300, mpp=0.5, pitch_um=40)


@pytest.fixture(scope="module", autouse=True)
def _model(sdata):
    prepared = stp.pp.normalize(sdata, copy=True)
    stp.pp.embed(prepared, tile_um=40.0)
    genes = prepared.tables["table"].var_names[:2].tolist()
    MAIN["model"] = stp.tl.fit_ridge(prepared, genes=genes, alpha=1.0, context="spot")


def functions_with(argument):
    names = [n for n, each in FUNCTIONS.items() if argument in inspect.signature(each).parameters]
    return pytest.mark.parametrize("name", names)


def call(name, sdata, **options):
    function = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty]
    return function(**{part: {"sdata": sdata, **MAIN}[part] for part in required}, **options)


@pytest.mark.parametrize("value", [-1, 1.0, "0", True, 2**32, None], ids=repr)
@functions_with("seed")
def test_a_bad_seed_is_refused_at_once(sdata, name, value):
    with pytest.raises((ValueError, TypeError), match="seed must be"):
        call(name, sdata, seed=value)


@pytest.mark.parametrize("argument", ["groups", "sample_weight"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_several_columns_are_refused_at_once(sdata, name, argument):
    if argument not in inspect.signature(FUNCTIONS[name]).parameters:
        pytest.skip("takes no such argument")
    with pytest.raises(TypeError, match=f"{argument} must be"):
        call(name, sdata, **{argument: ["patient"]})


@pytest.mark.parametrize("value", ["gpu", "cuda:99", "meta", "", None, 7], ids=repr)
@functions_with("device")
def test_a_device_that_is_not_available_is_refused_at_once(sdata, name, value):
    with pytest.raises((ValueError, TypeError), match=r"device=.* is not available|device must be"):
        call(name, sdata, device=value)


@pytest.mark.parametrize("value", [0, -1, 2.5, "8"], ids=repr)
@functions_with("n_factors")
def test_a_bad_number_of_factors_is_refused_at_once(sdata, name, value):
    with pytest.raises((ValueError, TypeError), match="n_factors must be"):
        call(name, sdata, targets="svd", n_factors=value)


@pytest.mark.parametrize("value", [0, 2.5], ids=repr)
def test_a_bad_number_of_components_is_refused_at_once(sdata, value):
    with pytest.raises((ValueError, TypeError), match="n_components must be"):
        stp.tl.fit_ridge(sdata, n_components=value)


@pytest.mark.parametrize("value", [0, 2**32 - 1])
def test_seeds_that_all_libraries_take_are_valid(value):
    _validate.seed(value)
