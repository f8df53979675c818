"""Bad arguments of every public function: a clear error, and nothing has changed."""

from __future__ import annotations

import inspect
import os
import resource
import signal
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stpredict as stp
from stpredict._sdata._spot_table import copy_of
from stpredict.encoders import EncoderRecord
from stpredict.metrics import Metric
from stpredict.metrics._scores import Pair

#: Inputs for each function; the session `hostile` asks for more.
N_INPUTS = int(os.environ.get("STPREDICT_HOSTILE_INPUTS", "3"))
#: Limits of a single call: one that takes as many seconds does not end by itself.
MOST_SECONDS, MOST_BYTES = 600, 2 << 30

MODULES = ("datasets", "encoders", "io", "metrics", "pl", "pp", "report", "tl", "uncertainty")
#: Functions of files, which `test_files` attacks, and of another object.
LEFT_OUT = ("io.read_", "io.concat", "report.write_slides")
FUNCTIONS = {
    f"{module}.{name}": function
    for module in MODULES
    for name in getattr(stp, module).__all__
    if inspect.isfunction(function := getattr(getattr(stp, module), name))
    and inspect.signature(function).parameters
    and not f"{module}.{name}".startswith(LEFT_OUT)
}
#: Errors that design and documentation promise.
PROMISED = (ValueError, KeyError, TypeError, OSError)


def mean_colour(tiles):
    return tiles.mean((-2, -1))


SCHEDULE = stp.tl.Schedule(max_epochs=1)
SMALL = {"schedule": SCHEDULE, "embedding": "X_colour", "context": "spot"}
SPOTS = SMALL | {"standardize": "training"}  # few spots
PIXELS = {"schedule": SCHEDULE, "tile_um": 40.0}
RANDOM = np.random.default_rng(0)
MATRICES = {"measured": RANDOM.poisson(2.0, (60, 3)), "predicted": RANDOM.random((60, 3))}
GRAPH = sp.diags_array([np.ones(59), np.ones(59)], offsets=[1, -1]).tocsr()
GROUPS = np.repeat(["a", "b", "c"], 20)
#: Valid arguments by name, for functions of arrays.
ARRAYS = MATRICES | {
    "values": MATRICES["predicted"],
    "counts": MATRICES["measured"],
    "graph": GRAPH,
    "positions": RANDOM.random((60, 2)) * 500,
    "generator": RANDOM,
    "pcc": np.linspace(0, 1, 5),
    "ranking": np.arange(5),
    "groups": GROUPS,
    "sections": GROUPS,
    "level": 0.8,
    "lower": MATRICES["predicted"] - 1,
    "upper": MATRICES["predicted"] + 1,
}
TWO = {"a": lambda sdata: fit_ridge(sdata), "b": lambda sdata: fit_ridge(sdata)}
#: Valid arguments apart from the data, the model and the scores, which are filled in by name.
VALID = {
    "datasets.her2st": {"sections": ["C2"], "directory": "absent"},
    "datasets.phantom": {"size_px": 300},
    "encoders.record": {"name": "uni"},
    "encoders.register": {"record": EncoderRecord("colour", lambda: torch.nn.Flatten())},
    "metrics.cluster_agreement": {"n_clusters": 2},
    "metrics.register": {"metric": Metric("errors", "errors", function=Pair.rmse)},
    "io.register_um": {"section": "S1", "image": "S1_image", "mpp": 0.5},
    "io.write_geojson": {"path": "spots.geojson", "section": "S1"},
    "pl.attribution": {"gene": "morphology_001"},
    "pl.precision_recall": {"genes": ["morphology_001"], "key": "high"},
    "pl.prediction": {"genes": ["morphology_001"]},
    "pl.scatter": {"genes": ["morphology_001"]},
    "pp.balance": {"by": "region_truth"},
    "pp.embed": {"encoder": "texture", "tile_um": 40.0, "key_added": "X_new"},
    "pp.grid": {"image": "S1_image", "pitch_um": 40.0, "section": "S1"},
    "pp.prepare": {"encoder": mean_colour},
    "pp.rank_expression": {"layer": None},
    "pp.realign": {"shift_um": (2.0, -1.0)},
    "pp.register_embedding": {"key": "features", "encoder": "mine", "tile_um": 40.0},
    "pp.score_programs": {"gene_sets": "programs.gmt"},
    "pp.select_genes": {"n_top_genes": 3},
    "report.write_html": {"path": "report.html"},
    "tl.adapt": {"measured": "sequenced"},
    "tl.attribute": {"gene": "morphology_001", "n_steps": 4},
    "tl.calibrate": {"method": "ridge"},
    "tl.cross_validate": {"methods": {"ridge": lambda sdata: fit_ridge(sdata)}},
    "tl.finetune": {"schedule": SCHEDULE},
    "tl.fit_cnn": PIXELS | {"network": stp.tl.CNNNetwork(tile_px=32)},
    "tl.fit_deepcell": SMALL | {"context": "cell"},
    "tl.fit_deepspot": SPOTS,
    "tl.fit_multiscale": PIXELS | {"network": stp.tl.MultiScaleNetwork(widths=(4, 4, 4))},
    "tl.fit_ridge": {"embedding": "X_colour", "context": "spot"},
    "tl.fit_stacking": {"bases": TWO},
    "tl.fit_trees": {"embedding": "X_colour", "context": "spot", "n_trees": 2},
    "tl.fit_tuned": {"candidates": TWO},
    "tl.predict_slide": {"encoder": mean_colour},
    "tl.predict_slides": {"slides": ["absent.svs"], "out": "slides"},
    "tl.split_ladder": {"method": lambda sdata: fit_ridge(sdata), "n_folds": 2},
    "tl.superresolve": {"encoder": mean_colour, "resolution_um": 25.0},
    "uncertainty.region_means": {"n_spots": 7},
}
#: Arguments that are data: bad tables are the subject of other tests.
DATA = ("sdata", "sdatas", "model", "scores", "ladder", "axes", "ax")


def fit_ridge(sdata):
    return stp.tl.fit_ridge(sdata, embedding="X_colour", context="spot", alpha=1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Sections with everything that the functions read, a model and scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        patch.chdir(tmp_path_factory.mktemp("hostile"))
        Path("programs.gmt").write_text("planted\t\tmorphology_001\tmorphology_002\n")
        sdata = stp.datasets.phantom(
            2, size_px=600, mpp=0.5, pitch_um=40, n_morphology=3, n_neighborhood=3, n_null=2
        )
        stp.pp.normalize(sdata)
        stp.pp.select_genes(sdata, n_top_genes=4)
        stp.pp.embed(sdata, mean_colour, key_added="X_colour", tile_um=40)
        stp.pp.neighbors(sdata)
        stp.pp.detect_tissue(sdata)
        sdata["table"].obs["sequenced"] = np.arange(sdata["table"].n_obs) % 3 == 0
        sdata["table"].obsm["features"] = np.ones((sdata["table"].n_obs, 3))
        model = fit_ridge(sdata)
        network = stp.tl.fit_deepspot(sdata, **SPOTS)
        scores = stp.tl.cross_validate(sdata, {"ridge": fit_ridge})
        stp.tl.predict(sdata, model)
        drawn = copy_of(sdata)
        stp.tl.attribute(drawn, model, model.genes[0])
        high = stp.tl.fit_ridge(drawn, embedding="X_colour", context="spot", targets="high")
        stp.tl.predict(drawn, high, key_added="high")
        stp.pp.realign(drawn, shift_um=(2.0, -1.0))
        stp.pp.normalize_stain(drawn)
        stp.pp.embed(drawn, "texture", tile_um=40)
        yield {
            "sdata": sdata,
            "drawn": drawn,
            "model": model,
            "network": network,
            "scores": scores,
            "ladder": stp.tl.split_ladder(sdata, fit_ridge, n_folds=2),
        }


def content(sdata):
    """Everything that a function could change, by slot."""
    slots = {f"shapes/{name}": shapes.to_json() for name, shapes in sdata.shapes.items()}
    slots |= {f"element/{kind}/{name}": id(e) for kind, name, e in sdata.gen_elements()}
    for name, table in sdata.tables.items():
        slots[name] = (table.obs.to_json(), table.var.to_json(), repr(table.uns))
        for kind in ("layers", "obsm", "obsp"):
            for key, values in getattr(table, kind).items():
                values = values.toarray() if sp.issparse(values) else np.asarray(values)
                slots[f"{name}/{kind}/{key}"] = values.tobytes()
    return slots


@contextmanager
def limits():
    """Interrupt a call that takes too long or too much memory."""

    def interrupt(*_):
        raise TimeoutError(f"more than {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + MOST_BYTES, hard))
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.signal(signal.SIGALRM, before)


NAMES = ("", "spatial", "a/b", "absent", "X_colour", "log1p", "table", "S1", ".", "µ", "X_<s>", "$")
BAD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 10**6, 10**12, np.int64(3), np.float32(0.5)]),
    st.integers(-5, 5),
    st.floats(),
    st.sampled_from(NAMES),
    st.text(max_size=4),
    st.binary(max_size=4),
    st.lists(st.one_of(st.sampled_from(NAMES), st.integers(), st.floats()), max_size=3),
    st.dictionaries(st.sampled_from(NAMES), st.integers(), max_size=2),
    st.builds(object),
    st.just(np.full((2, 2), np.nan)),
    st.just(ad.AnnData(np.zeros((2, 2)))),
)


def arguments_of(name, world):
    function = FUNCTIONS[name]
    names = list(inspect.signature(function).parameters)
    arguments = {key: world[key] for key in ("model", "scores", "ladder") if key in names}
    if name in ("pl.loss_curve", "tl.finetune"):
        arguments["model"] = world["network"]
    if "sdata" in names:
        arguments["sdata"] = copy_of(world["drawn" if name.startswith("pl.") else "sdata"])
    if name == "io.register_um":  # images are shared with the other calls
        images = arguments["sdata"].images
        for key in list(images):
            images[key] = images.pop(key).copy(deep=True)  # overwriting would cause a warning
    if "slide" in names:
        arguments["slide"] = copy_of(world["sdata"]).subset(["S1_image"])
    if name == "pp.grid":
        for element in [*arguments["sdata"].tables, *arguments["sdata"].shapes]:
            del arguments["sdata"][element]
    if name.startswith(("metrics.", "uncertainty.")):
        arguments |= {key: ARRAYS[key] for key in names if key in ARRAYS}
    return arguments | VALID.get(name, {})


def options(name):
    names = [one for one in inspect.signature(FUNCTIONS[name]).parameters if one not in DATA]
    return [one for one in names if one not in ("copy",)]


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "datasets.her2st"])
def test_the_valid_call_succeeds(name, world):
    FUNCTIONS[name](**arguments_of(name, world))
    plt.close("all")


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_bad_argument_is_refused_and_nothing_changes(name, world):
    function = FUNCTIONS[name]

    @settings(
        max_examples=N_INPUTS,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(option=st.sampled_from(options(name)), value=BAD_VALUES)
    def attack(option, value):
        arguments = arguments_of(name, world) | {option: value}
        sdata = arguments.get("sdata")
        before = None if sdata is None else content(sdata)
        try:
            with limits(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                function(**arguments)
        except PROMISED as error:
            check_error(error, option, value)
            assert before is None or content(sdata) == before, "changed although it failed"
        finally:
            plt.close("all")

    attack()


def check_error(error, option, value):
    """Our own error, which names the argument or the value."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert "stpredict" in last.filename, f"{option}={value!r}: {type(error).__name__}: {error}"
    message = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    parts = (option, repr(value), repr(value)[1:-1] or option, str(value) or option)
    assert any(part in message for part in parts), f"{option}={value!r}: {message}"
