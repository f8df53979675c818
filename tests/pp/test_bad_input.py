"""Invalid objects: every step reports the problem and changes nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import shapely
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation

import stpredict as stp
from stpredict._sdata._spot_table import copy_of
from stpredict.io._shared._assemble import assemble_section

N = 25


@pytest.fixture
def sdata():
    """A section of 5 x 5 spots with results of earlier steps, which a failure must not lose."""
    rng = np.random.default_rng(0)
    y, x = (a.ravel() for a in np.mgrid[:5, :5])
    section = assemble_section(
        "S1",
        image=rng.integers(0, 256, (120, 160, 3), dtype=np.uint8),
        counts=rng.poisson(60.0, (N, 4)),
        obs_names=[f"s{i}" for i in range(N)],
        var_names=list("ABCD"),
        positions=np.column_stack([x * 25 + 10, y * 25 + 10]),
        mpp=2.0,
        diameter_um=20,
    )
    table = section.tables["table"]
    table.layers["log1p"] = np.log1p(table.X.toarray())
    table.obsm["X_mean_colour"] = np.zeros((N, 3), dtype=np.float32)
    table.obsp["spatial_connectivities"] = sp.eye(N, format="csr")
    table.var["selected"] = [True, False, True, False]
    table.uns["stpredict"] = {"embed": {"X_mean_colour": {"tile_um": 9.0}}}
    return section


def digest(values):
    """What an array holds, so that two can be compared, NaN or not."""
    if sp.issparse(values):
        return ("sparse", values.shape, digest(values.toarray()))
    if isinstance(values, pd.DataFrame):
        return values.astype(str).to_csv()
    array = np.asarray(values)
    return (array.shape, str(array.dtype), array.tobytes())


def state(sdata):
    """All that a step could change."""
    tables = {}
    for name, table in sdata.tables.items():
        tables[name] = {
            "X": digest(table.X),
            "obs": digest(table.obs),
            "var": digest(table.var),
            "uns": repr(dict(table.uns)),
            **{
                slot: {key: digest(values) for key, values in getattr(table, slot).items()}
                for slot in ("obsm", "obsp", "layers", "varm")
            },
        }
    elements = {**sdata.images, **sdata.shapes, **sdata.labels}
    return {
        "tables": tables,
        "shapes": {name: shapes.to_wkt().to_csv() for name, shapes in sdata.shapes.items()},
        "transformations": {
            name: {k: repr(t) for k, t in get_transformation(e, get_all=True).items()}
            for name, e in elements.items()
        },
    }


def mean_colour(tiles):
    return tiles.mean((-2, -1))


STEPS = {
    "filter_spots": lambda sdata: stp.pp.filter_spots(sdata),
    "normalize": lambda sdata: stp.pp.normalize(sdata),
    "genes by list": lambda sdata: stp.pp.select_genes(sdata, ["A"]),
    "genes by residuals": lambda sdata: stp.pp.select_genes(sdata, n_top_genes=2),
    "neighbors": lambda sdata: stp.pp.neighbors(sdata),
    "neighbors by radius": lambda sdata: stp.pp.neighbors(sdata, radius_um=60),
    "embed": lambda sdata: stp.pp.embed(sdata, mean_colour, tile_um=40),
}
ALL = tuple(STEPS)
SPATIAL = ("filter_spots", "neighbors", "neighbors by radius", "embed")
COUNTS = ("filter_spots", "normalize", "genes by residuals")


@pytest.mark.parametrize("step", ALL)
def test_good_input(sdata, step):
    before = state(sdata)
    assert STEPS[step](sdata) is None
    assert state(sdata) != before


def unannotated(sdata):
    del sdata.tables["table"].uns[TableModel.ATTRS_KEY]


def no_table(sdata):
    del sdata.tables["table"]


def no_rows(sdata):
    table = sdata.tables["table"][:0].copy()
    table.uns[TableModel.ATTRS_KEY]["region"] = []
    sdata.tables["table"] = table


def shapes_gone(sdata):
    del sdata.shapes["S1"]


def apart(sdata):
    set_transformation(sdata.shapes["S1"], {"elsewhere": Identity()}, set_all=True)


def two_images(sdata):
    sdata.images["again"] = Image2DModel.parse(
        np.zeros((3, 9, 9), dtype=np.uint8),
        dims=("c", "y", "x"),
        transformations={"S1_um": Scale([3.0, 3.0], ("x", "y"))},
    )


def pixels_only(sdata):
    for element in (sdata.images["S1_image"], sdata.shapes["S1"]):
        set_transformation(element, {"global": Identity()}, set_all=True)


def no_image(sdata):
    del sdata.images["S1_image"]


def image_of(channels, dtype):
    def spoil(sdata):
        del sdata.images["S1_image"]
        sdata.images["S1_image"] = Image2DModel.parse(
            np.zeros((channels, 120, 160), dtype=dtype),
            dims=("c", "y", "x"),
            transformations={"S1_um": Scale([2.0, 2.0], ("x", "y"))},
        )

    return spoil


def moved(x, y):
    def spoil(sdata):
        circles = sdata.shapes["S1"]
        points = circles.geometry.to_numpy().copy()
        points[[3, 7]] = shapely.Point(x, y)
        del sdata.shapes["S1"]
        sdata.shapes["S1"] = ShapesModel.parse(circles.set_geometry(points))

    return spoil


def duplicated_ids(sdata):
    ids = sdata.tables["table"].obs["instance_id"].tolist()
    sdata.tables["table"].obs["instance_id"] = [*ids[:-1], ids[0]]


def empty_section(sdata):
    sdata.tables["table"].uns[TableModel.ATTRS_KEY]["region"] = ["S1", "S2"]


def stretched(sdata):
    set_transformation(sdata.images["S1_image"], Scale([2.0, 3.0], ("x", "y")), "S1_um")


def count(value):
    def spoil(sdata):
        table = sdata.tables["table"]
        counts = table.X.toarray()
        counts[4, 1] = value
        table.X = sp.csr_matrix(counts)

    return spoil


def counts_of(values):
    def spoil(sdata):
        table = sdata.tables["table"]
        table.X = None if values is None else np.asarray(values(table.X.toarray()))

    return spoil


def repeated_genes(sdata):
    sdata.tables["table"].var_names = ["A", "A", "B", "C"]


def too_large(counts):
    counts = counts.astype(float)
    counts[0, 0] = 1e39
    return counts


REGISTER = r"stp\.io\.register_um\(sdata, 'S1', image=…, mpp=…\)"
#: What is spoiled, for which steps, what they say.
CASES = {
    "no annotation": (
        unannotated,
        ALL,
        r"tables\['table'\] annotates no shapes: .*TableModel.parse",
    ),
    "no table": (no_table, ALL, r"tables has no 'table'; available: none"),
    "no rows": (no_rows, ALL, r"tables\['table'\] has no rows"),
    "no shapes": (shapes_gone, SPATIAL, "annotates 'S1', but there are no such shapes"),
    "empty section": (empty_section, SPATIAL, "section 'S2' has no rows in the table"),
    "no image": (no_image, SPATIAL, r"shares no coordinate system with an image; images: none"),
    "no common system": (apart, SPATIAL, r"\(coordinate systems elsewhere\) shares no coordinate"),
    "several images": (
        two_images,
        SPATIAL,
        "several images .*'S1': S1_image, again: .*" + REGISTER,
    ),
    "no mpp": (pixels_only, SPATIAL, r"µm per pixel of images\['S1_image'\] are not .*" + REGISTER),
    "stretched image": (stretched, SPATIAL, "stretches its axes by 3 and 2"),
    "repeated ids": (duplicated_ids, SPATIAL, "in the table are not unique, repeated: s0"),
    "grey image": (image_of(1, np.uint8), SPATIAL, "has 1 channels of uint8; .*3 channels"),
    "4 channels": (image_of(4, np.uint8), SPATIAL, "has 4 channels of uint8; .*3 channels"),
    "16 bit": (image_of(3, np.uint16), SPATIAL, "has 3 channels of uint16; .*of uint8"),
    "outside": (
        moved(161.0, 5.0),
        ("neighbors", "neighbors by radius", "embed"),
        "2 of 25 spots of section 'S1' .*160 × 120 px .*x=161, y=5.*stp.pp.filter_spots",
    ),
    "NaN positions": (
        moved(np.nan, np.nan),
        ("neighbors", "neighbors by radius", "embed"),
        "2 of 25 spots of section 'S1' have NaN positions.*stp.pp.filter_spots",
    ),
    "NaN counts": (count(np.nan), COUNTS, "1 values are NaN or infinite and 0 are negative"),
    "no counts": (counts_of(None), COUNTS, "counts in X must be numbers, but are missing"),
    "counts as text": (
        counts_of(lambda counts: counts.astype(str)),
        COUNTS,
        "counts in X must be numbers, but are of the type <U",
    ),
    "complex counts": (counts_of(lambda counts: counts + 0j), COUNTS, "of the type complex"),
    "counts above float32": (counts_of(too_large), COUNTS, "1 values are NaN or infinite"),
    "repeated genes": (
        repeated_genes,
        ALL,
        r"gene names of tables\['table'\] are not unique, repeated: A",
    ),
    "negative counts": (count(-3), COUNTS, "0 values are NaN or infinite and 1 are negative"),
}


@pytest.mark.parametrize(
    ("case", "step"), [(case, step) for case, (_, steps, _) in CASES.items() for step in steps]
)
@pytest.mark.filterwarnings("ignore:The table is annotating:UserWarning")  # spatialdata's
def test_the_error_names_the_problem_and_nothing_changes(sdata, case, step):
    spoil, _, message = CASES[case]
    spoil(sdata)
    before = state(sdata)
    with pytest.raises((ValueError, KeyError, TypeError), match=message):
        STEPS[step](sdata)
    assert state(sdata) == before


@pytest.mark.parametrize("step", COUNTS)
def test_counts_of_half_precision_give_the_same_result(sdata, step):
    half = copy_of(sdata)
    half.tables["table"].X = sdata.tables["table"].X.toarray().astype(np.float16)
    for each in (sdata, half):
        each.tables["table"].obs["tissue_fraction"] = 1.0
        STEPS[step](each)
    for slot in ("obs", "var"):
        pd.testing.assert_frame_equal(*(getattr(x.tables["table"], slot) for x in (sdata, half)))


@pytest.mark.parametrize("case", ["outside", "NaN positions"])
def test_filter_spots_removes_bad_positions(sdata, case):
    CASES[case][0](sdata)
    sdata.tables["table"].obs["tissue_fraction"] = 1.0
    stp.pp.filter_spots(sdata)
    for step in ("neighbors", "neighbors by radius", "embed"):
        STEPS[step](sdata)
    assert sdata.tables["table"].n_obs == N - 2


@pytest.mark.parametrize("case", ["several images", "no mpp"])
def test_register_um_links_image_and_section(sdata, case):
    CASES[case][0](sdata)
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=2.0)
    for step in SPATIAL:
        STEPS[step](sdata)


def test_tile_larger_than_the_image(sdata):
    before = state(sdata)
    with pytest.raises(ValueError, match=r"tile of 250 µm is 125 px .*larger .*\(160 × 120 px\)"):
        stp.pp.embed(sdata, mean_colour, tile_um=250)
    assert state(sdata) == before


def test_absent_gene(sdata):
    before = state(sdata)
    with pytest.raises(KeyError, match="1 of 2 genes are not in the table: ERBB2; it has 4 genes"):
        stp.pp.select_genes(sdata, ["A", "ERBB2"])
    assert state(sdata) == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_layer_with_nan(sdata, value):
    sdata.tables["table"].layers["log1p"][2, 2] = value
    before = state(sdata)
    with pytest.raises(ValueError, match=r"layers\['log1p'\] has 1 values that are NaN or infin"):
        stp.pp.select_genes(sdata, n_top_genes=2, flavor="variance")
    assert state(sdata) == before


#: Numeric arguments of every step, with the other options that it needs.
NUMERIC = {
    "balance": ({}, ["resolution", "seed"]),
    "embed": ({"encoder": mean_colour}, ["tile_um", "n_subtiles"]),
    "filter_spots": ({}, ["min_counts", "min_tissue_fraction"]),
    "grid": ({"image": "S1_image"}, ["pitch_um", "diameter_um", "min_tissue_fraction"]),
    "neighbors": ({}, ["n_rings", "n_neighbors", "radius_um"]),
    "normalize": ({}, ["target_sum"]),
    "realign": ({}, ["max_shift_um"]),
    "register_embedding": (
        {"key": "X_mean_colour", "encoder": "mine", "tile_um": 40},
        ["tile_um", "mpp", "n_subtiles"],
    ),
    "select_genes": ({}, ["n_top_genes"]),
    "smooth": ({"by": "expression"}, ["n_neighbors"]),
}
NOT_NUMBERS = [np.nan, np.inf, -np.inf, -1, True, "5", b"5", [], ["1"], {}, 1j, object(), 10**400]


@pytest.mark.parametrize("value", NOT_NUMBERS, ids=lambda value: repr(value)[:8])
@pytest.mark.parametrize(
    ("step", "argument"), [(step, name) for step, (_, names) in NUMERIC.items() for name in names]
)
def test_numeric_arguments_are_checked_before_anything_changes(sdata, step, argument, value):
    before = state(sdata)
    with pytest.raises((ValueError, TypeError), match=argument):
        getattr(stp.pp, step)(sdata, **{**NUMERIC[step][0], argument: value})
    assert state(sdata) == before


# --- steps that make sections comparable ----------------------------------------------------------


def blank(sdata):
    del sdata.images["S1_image"]
    sdata.images["S1_image"] = Image2DModel.parse(
        np.full((3, 120, 160), 240, dtype=np.uint8),
        dims=("c", "y", "x"),
        transformations={"S1_um": Scale([2.0, 2.0], ("x", "y"))},
    )


def nan_in_layer(sdata):
    sdata.tables["table"].layers["log1p"][2, 2] = np.nan


def realigned(sdata):
    stp.pp.realign(sdata, shift_um=(6, -4))


def as_it_is(sdata):
    pass


STAIN_OF_REINHARD = {"method": "reinhard", "mu": [1.0, 2.0, 3.0], "sigma": [1.0, 1.0, 1.0]}
#: What is spoiled, the step, its options, what it says.
COMPARABLE = {
    f"{what}, {step}": (image_of(n, dtype), step, {}, f"has {n} channels of {dtype}; .* of uint8")
    for what, n, dtype in (
        ("grey", 1, "uint8"),
        ("4 channels", 4, "uint8"),
        ("16 bit", 3, "uint16"),
    )
    for step in ("detect_tissue", "normalize_stain", "realign")
} | {
    "no tissue": (blank, "detect_tissue", {}, r"images\['S1_image'\] has no tissue"),
    "no tissue to stain": (blank, "normalize_stain", {}, r"only 0\.00% of its image is stained"),
    "stain of another method": (
        as_it_is,
        "normalize_stain",
        {"method": "macenko", "reference": STAIN_OF_REINHARD},
        "fitted with the method 'reinhard', not 'macenko': give method='reinhard'",
    ),
    "realigned": (realigned, "realign", {}, "'S1' is realigned already: .*undo=True"),
    "realigned by hand": (realigned, "realign", {"shift_um": (1, 1)}, "is realigned already"),
    "not invertible": (
        as_it_is,
        "realign",
        {"transform": [[1, 2, 0], [2, 4, 0], [0, 0, 1]]},
        "transform of section 'S1' cannot be inverted",
    ),
    "NaN ranked": (nan_in_layer, "rank_expression", {}, r"layers\['log1p'\] has 1 values .* NaN"),
    "NaN smoothed": (nan_in_layer, "smooth", {}, r"layers\['log1p'\] has 1 values .* NaN"),
    "NaN balanced": (nan_in_layer, "balance", {}, r"layers\['log1p'\] has 1 values .* NaN"),
    "single cluster": (
        as_it_is,
        "balance",
        {"resolution": 1e-6},
        r"section 'S1' forms a single cluster.*give a higher resolution=",
    ),
    "repeated genes selected": (
        as_it_is,
        "select_genes",
        {"genes": ["A", "B", "A"]},
        "genes are not unique, repeated: A",
    ),
    "repeated genes ranked": (
        as_it_is,
        "rank_expression",
        {"genes": ["A", "B", "A"]},
        "genes are not unique, repeated: A",
    ),
}


@pytest.mark.parametrize("case", COMPARABLE)
def test_steps_across_sections_refuse_bad_input_and_change_nothing(sdata, case):
    spoil, step, options, message = COMPARABLE[case]
    spoil(sdata)
    before = state(sdata)
    with pytest.raises(ValueError, match=message):
        getattr(stp.pp, step)(sdata, **options)
    assert state(sdata) == before


def test_an_image_of_glass_moves_no_spots(sdata):
    # both signals may be uninformative, which is not an error
    blank(sdata)
    where = get_transformation(sdata.shapes["S1"], get_all=True)
    stp.pp.realign(sdata)
    assert get_transformation(sdata.shapes["S1"], get_all=True) == where
    record = sdata.tables["table"].uns["stpredict"]["realign"]["S1"]
    assert not record["moved"]
    assert np.isfinite(record["surface"]).all()


@pytest.mark.parametrize("step", ALL)
@pytest.mark.parametrize("wrong", [None, pd.DataFrame(), "C2"])
def test_other_objects_are_refused(step, wrong):
    with pytest.raises(
        TypeError, match=f"sdata must be a SpatialData .*, not {type(wrong).__name__}"
    ):
        STEPS[step](wrong)


@pytest.mark.parametrize(
    "step",
    [
        lambda sdata: stp.pp.filter_spots(sdata, copy=True),
        lambda sdata: stp.pp.normalize(sdata, copy=True),
        lambda sdata: stp.pp.select_genes(sdata, n_top_genes=1, copy=True),
        lambda sdata: stp.pp.neighbors(sdata, copy=True),
        lambda sdata: stp.pp.embed(sdata, mean_colour, tile_um=40, copy=True),
    ],
)
def test_a_copy_leaves_the_original_alone(sdata, step):
    before = state(sdata)
    changed = step(sdata)
    assert state(sdata) == before
    assert state(changed) != before


@pytest.mark.parametrize(
    "step",
    [
        lambda sdata: stp.pp.filter_spots(sdata, copy=True),
        lambda sdata: stp.pp.normalize(sdata, copy=True),
        lambda sdata: stp.pp.neighbors(sdata, copy=True),
        lambda sdata: stp.pp.embed(sdata, mean_colour, tile_um=40, copy=True),
    ],
)
def test_copies_need_a_spatialdata(step):
    with pytest.raises(TypeError, match=r"sdata must be a SpatialData .*, not NoneType"):
        step(None)
