"""The phantom: planted effects are recovered, and records are correct."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import ndimage
from scipy.spatial import cKDTree
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler
from spatialdata.transformations import get_transformation

import stpredict as stp

# many spots on little image
FINE = {"mpp": 0.5, "pitch_um": 40.0}
SMALL = {"size_px": 640, **FINE, "n_morphology": 4, "n_neighborhood": 4, "n_null": 4}


def pixels(sdata, section="S1"):
    return np.asarray(sdata.images[f"{section}_image"]["scale0"].ds["image"].data)


def log1p(table):
    counts = table.X.toarray()
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


def pearson(a, b):
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def ring_mean(values, positions, *, n_neighbors, reach_px):
    """Mean over the neighbours of every spot, by a plain loop."""
    distances, indices = cKDTree(positions).query(positions, k=n_neighbors + 1)
    means = np.zeros_like(values)
    for i in range(len(values)):
        neighbors = [j for d, j in zip(distances[i], indices[i], strict=True) if 0 < d < reach_px]
        if neighbors:
            means[i] = values[neighbors].mean(axis=0)
    return means


def held_out(features, targets, train):
    """Ridge prediction of the rows that are not in `train`."""
    scaler = StandardScaler().fit(features[train])
    ridge = RidgeCV(np.logspace(-3, 4, 15)).fit(scaler.transform(features[train]), targets[train])
    return ridge.predict(scaler.transform(features[~train]))


@pytest.mark.parametrize(
    ("spots", "n_neighbors", "reach"),
    [("hexagonal", 6, 1.1), ("square", 8, 1.5), ("cells", 6, np.inf)],
)
def test_genes_depend_on_their_planted_morphology(spots, n_neighbors, reach):
    sdata = stp.datasets.phantom(2, size_px=1200, **FINE, spots=spots, seed=3)
    table = sdata.tables["table"]
    region = table.obs["region"].astype(str).to_numpy()
    morphology = table.obsm["truth_morphology"].astype(float)
    neighborhood = np.vstack(
        [
            ring_mean(
                morphology[region == section],
                table.obsm["spatial"][region == section],
                n_neighbors=n_neighbors,
                reach_px=reach * 80,
            )
            for section in ("S1", "S2")
        ]
    )
    train = region == "S1"
    measured, expected = log1p(table), table.layers["expected"][~train]

    def score(features, kind):
        genes = (table.var["planted"] == kind).to_numpy()
        return pearson(held_out(features, measured, train), expected)[genes].mean()

    both = np.hstack([morphology, neighborhood])
    assert score(morphology, "morphology") >= 0.85
    assert abs(score(morphology, "neighborhood")) <= 0.2
    assert score(both, "neighborhood") >= 0.8
    assert abs(score(morphology, "null")) <= 0.06
    assert abs(score(both, "null")) <= 0.06


def test_morphology_can_be_seen_in_the_image():
    sdata = stp.datasets.phantom(3, size_px=1100, **FINE, seed=1, n_neighborhood=0)
    table = sdata.tables["table"]
    region = table.obs["region"].astype(str).to_numpy()
    features = []
    for section in ("S1", "S2", "S3"):
        density = -np.log((pixels(sdata, section).astype(np.float32) + 1) / 255)
        haematoxylin, eosin = density[0], density[1] - density[0]
        blobs = [
            np.maximum(-ndimage.gaussian_laplace(haematoxylin, sigma) * sigma**2, 0)
            for sigma in (2, 4, 8)
        ]
        peaks = (blobs[1] == ndimage.maximum_filter(blobs[1], 7)) & (blobs[1] > 0.1)
        maps = np.stack([haematoxylin, eosin, haematoxylin > 0.4, peaks, *blobs])
        for x, y in table.obsm["spatial"][region == section].round().astype(int):
            features.append(maps[:, y - 40 : y + 40, x - 40 : x + 40].mean(axis=(1, 2)))
    train = region != "S3"
    truth = table.obsm["truth_morphology"].astype(float)
    residual = held_out(np.array(features), truth, train) - truth[~train]
    explained = 1 - residual.var(axis=0) / truth[~train].var(axis=0)
    assert explained.mean() >= 0.8
    assert explained.min() >= 0.65


def test_counts_follow_the_expectation():
    table = stp.datasets.phantom(size_px=1000, **FINE, seed=2).tables["table"]
    expected = table.layers["expected"]
    assert expected.dtype == np.float32
    np.testing.assert_allclose(np.expm1(expected.astype(float)).sum(axis=1), 1e4, rtol=1e-3)
    assert pearson(log1p(table), expected).min() > 0.7
    counts = table.X.toarray()
    assert (counts == counts.round()).all()
    assert (counts >= 0).all()
    assert 4000 < counts.sum(axis=1).mean() < 6000
    # more variable than Poisson: negative binomial around a varying total
    rate = np.expm1(expected) / 1e4 * counts.sum(axis=1, keepdims=True)
    dispersion = (((counts - rate) ** 2 - rate) / rate**2).mean()
    assert 0.03 < dispersion < 0.07


def test_normalisation_leaks_nothing_between_kinds():
    table = stp.datasets.phantom(**SMALL).tables["table"]
    shares = np.expm1(table.layers["expected"].astype(float))
    for kind in ("morphology", "neighborhood", "null"):
        total = shares[:, (table.var["planted"] == kind).to_numpy()].sum(axis=1)
        np.testing.assert_allclose(total, total[0], rtol=1e-4)


def test_genes_are_described_in_var():
    table = stp.datasets.phantom(**SMALL).tables["table"]
    assert table.var["planted"].value_counts().to_dict() == {
        "morphology": 4,
        "neighborhood": 4,
        "null": 4,
    }
    names = table.uns["stpredict"]["phantom"]["morphology"]
    weights = table.var[[f"weight_{name}" for name in names]].to_numpy()
    null = (table.var["planted"] == "null").to_numpy()
    assert (weights[null] == 0).all()
    assert (np.abs(weights[~null]).sum(axis=1) > 0).all()
    assert table.var["share"].sum() == pytest.approx(1)


def test_the_same_seed_gives_the_same_data():
    first, again = (stp.datasets.phantom(**SMALL, stain_variation=0.5, seed=4) for _ in range(2))
    other = stp.datasets.phantom(**SMALL, stain_variation=0.5, seed=5)
    assert pixels(first).tobytes() == pixels(again).tobytes()
    assert pixels(first).tobytes() != pixels(other).tobytes()
    a, b = first.tables["table"], again.tables["table"]
    assert a.X.toarray().tobytes() == b.X.toarray().tobytes()
    assert a.layers["expected"].tobytes() == b.layers["expected"].tobytes()
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)


def test_a_section_does_not_depend_on_the_others():
    one, three = (stp.datasets.phantom(n, **SMALL) for n in (1, 3))
    alone, together = one.tables["table"], three.tables["table"]
    rows = (together.obs["region"] == "S1").to_numpy()
    assert pixels(one).tobytes() == pixels(three).tobytes()
    assert (together.X[rows] != alone.X).nnz == 0
    np.testing.assert_array_equal(alone.layers["expected"], together.layers["expected"][rows])
    pd.testing.assert_frame_equal(alone.var, together.var)
    assert pixels(three, "S1").tobytes() != pixels(three, "S2").tobytes()
    assert together.obs_names.is_unique


def test_options_do_not_change_the_tissue():
    plain = stp.datasets.phantom(**SMALL)
    stained = stp.datasets.phantom(**SMALL, stain_variation=0.8)
    assert not np.array_equal(pixels(plain), pixels(stained))
    cells = stp.datasets.phantom(**SMALL, spots="cells")
    np.testing.assert_array_equal(pixels(plain), pixels(cells))
    for key in ("truth_morphology", "truth_neighborhood", "spatial"):
        np.testing.assert_array_equal(
            plain.tables["table"].obsm[key], stained.tables["table"].obsm[key]
        )


@pytest.mark.parametrize(("spots", "n_neighbors"), [("hexagonal", 6), ("square", 4)])
def test_pitch_is_exact(spots, n_neighbors):
    sdata = stp.datasets.phantom(size_px=1000, mpp=0.4, pitch_um=37.0, spots=spots, n_null=1)
    assert sdata.shapes["S1"]["radius"].iloc[0] * 0.4 == pytest.approx(0.55 * 37 / 2)
    um = sdata.tables["table"].obsm["spatial"] * 0.4
    distances = cKDTree(um).query(um, k=n_neighbors + 1)[0][:, 1:]
    np.testing.assert_allclose(distances.min(axis=1), 37.0)
    # a spot inside the tissue has all its neighbours at one pitch
    assert np.isclose(distances, 37.0).all(axis=1).mean() > 0.4


def test_image_and_spots_agree_in_axes_and_units():
    sdata = stp.datasets.phantom(**SMALL | {"size_px": (500, 800), "mpp": 0.6, "pitch_um": 36.0})
    image = pixels(sdata)
    assert image.shape == (3, 500, 800)
    assert image.dtype == np.uint8
    circles = sdata.shapes["S1"]
    for element in (sdata.images["S1_image"], circles):
        matrix = get_transformation(element, "S1_um").to_affine_matrix(("x", "y"), ("x", "y"))
        np.testing.assert_allclose(np.diag(matrix), [0.6, 0.6, 1.0])
    x, y = circles.geometry.x.to_numpy().astype(int), circles.geometry.y.to_numpy().astype(int)
    assert x.max() > 500
    # light: glass is bright in green, tissue is not
    tiles = [image[1, b - 20 : b + 20, a - 20 : a + 20].mean() for a, b in zip(x, y, strict=True)]
    assert max(tiles) < 220
    assert image[1, :10, :10].mean() > 235


def test_off_tissue_spots_lie_on_glass():
    sdata = stp.datasets.phantom(2, **SMALL, off_tissue=3)
    table = sdata.tables["table"]
    off = ~table.obs["on_tissue"].to_numpy()
    assert table.obs["on_tissue"].dtype == bool
    assert table.obs.loc[off, "region"].value_counts().to_dict() == {"S1": 3, "S2": 3}
    assert (table.obs.loc[off, "region_truth"] == "glass").all()
    assert (table.obs.loc[~off, "region_truth"] != "glass").all()
    assert (table.obsm["truth_neighborhood"][off] == 0).all()
    assert np.isfinite(table.layers["expected"]).all()
    totals = np.asarray(table.X.sum(axis=1)).ravel()
    assert totals[off].max() < 0.2 * totals[~off].min()
    for section in ("S1", "S2"):
        rows = off & (table.obs["region"] == section).to_numpy()
        for x, y in table.obsm["spatial"][rows].astype(int):
            assert pixels(sdata, section)[:, y - 20 : y + 20, x - 20 : x + 20].mean() > 235
    # the spots on the tissue are the same as without them
    plain = stp.datasets.phantom(2, **SMALL).tables["table"]
    assert (table.X[~off] != plain.X).nnz == 0


def test_misalignment_is_recorded():
    plain = stp.datasets.phantom(2, **SMALL).tables["table"]
    moved = stp.datasets.phantom(2, **SMALL, misalignment_um=(12.0, -5.0), misalignment_deg=4.0)
    table = moved.tables["table"]
    np.testing.assert_array_equal(table.obsm["spatial_true"], plain.obsm["spatial"])
    np.testing.assert_array_equal(plain.obsm["spatial_true"], plain.obsm["spatial"])
    assert (table.X != plain.X).nnz == 0
    for section in ("S1", "S2"):
        rows = (table.obs["region"] == section).to_numpy()
        affine = table.uns["stpredict"]["phantom"]["misalignment"][section]
        true = np.column_stack([table.obsm["spatial_true"][rows] * 0.5, np.ones(rows.sum())])
        recorded = table.obsm["spatial"][rows] * 0.5
        np.testing.assert_allclose((true @ affine.T)[:, :2], recorded)
        shapes = moved.shapes[section].geometry
        np.testing.assert_allclose(np.column_stack([shapes.x, shapes.y]) * 0.5, recorded)
    # by hand: the image's centre only shifts, and x turns towards y
    np.testing.assert_allclose(affine @ [160, 160, 1], [172, 155, 1])
    turned = affine @ [161, 160, 1] - affine @ [160, 160, 1]
    np.testing.assert_allclose(turned[:2], [np.cos(np.deg2rad(4)), np.sin(np.deg2rad(4))])


def test_cells_lie_on_nuclei():
    sdata = stp.datasets.phantom(**SMALL, spots="cells", off_tissue=5)
    table = sdata.tables["table"]
    on = table.obs["on_tissue"].to_numpy()
    assert on.sum() > 150
    assert (~on).sum() == 5
    x, y = table.obsm["spatial"].astype(int).T
    red = pixels(sdata)[0]
    assert np.median(red[y[on], x[on]]) < 130  # haematoxylin takes red away
    assert (red[y[~on], x[~on]] > 230).all()
    assert sdata.shapes["S1"]["radius"].iloc[0] * 0.5 == pytest.approx(4.0)
    size = table.obsm["truth_morphology"][on, 1]
    assert 0.5 < size.std() < 1.5


def test_sections_are_assigned_to_patients_in_turn():
    def patients(**options):
        obs = stp.datasets.phantom(3, **SMALL, **options).tables["table"].obs
        return obs.groupby("region", observed=True)["patient"].first().to_dict()

    assert patients() == {"S1": "P1", "S2": "P2", "S3": "P3"}
    assert patients(n_patients=2) == {"S1": "P1", "S2": "P2", "S3": "P1"}


# spatialdata writes through an ome_zarr and a zarr that deprecate parts of themselves
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_phantom_survives_zarr(tmp_path):
    sdata = stp.datasets.phantom(2, **SMALL, off_tissue=2, misalignment_um=(3.0, 1.0))
    sdata.write(tmp_path / "phantom.zarr")
    back = sd.read_zarr(tmp_path / "phantom.zarr")
    table, read = sdata.tables["table"], back.tables["table"]
    np.testing.assert_array_equal(pixels(sdata), pixels(back))
    np.testing.assert_array_equal(table.layers["expected"], read.layers["expected"])
    for key in ("spatial_true", "truth_morphology", "truth_neighborhood"):
        np.testing.assert_array_equal(table.obsm[key], read.obsm[key])
    for column in ("on_tissue", "region_truth", "patient"):
        assert (table.obs[column].astype(str) == read.obs[column].astype(str)).all()
    pd.testing.assert_frame_equal(table.var, read.var, check_dtype=False, check_categorical=False)
    written = table.uns["stpredict"]["phantom"]
    parameters = read.uns["stpredict"]["phantom"]
    assert set(written) == set(parameters)
    assert parameters["seed"] == 0
    assert parameters["spots"] == "hexagonal"
    assert list(parameters["morphology"]) == ["nuclear_density", "nuclear_size", "eosin"]
    np.testing.assert_array_equal(parameters["misalignment"]["S2"], written["misalignment"]["S2"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_sections": 0}, "n_sections must be a whole number of at least 1: 0"),
        ({"n_sections": 2.0}, "n_sections must be a whole number"),
        ({"n_sections": 2, "n_patients": 3}, "n_patients=3 is more than n_sections=2"),
        ({"n_patients": 0}, "n_patients must be a whole number of at least 1"),
        (
            {"spots": "triangular"},
            "spots='triangular' is not one of 'hexagonal', 'square', 'cells'",
        ),
        ({"size_px": 50}, "no spot of pitch_um=100 .* Choose a larger size_px="),
        ({"size_px": 600, "tile_um": 650.0}, "no spot of .* tile_um=650"),
        ({"size_px": -5}, "size_px must be a whole number of at least 1"),
        ({"mpp": 0.0}, "mpp must be a number above 0"),
        ({"pitch_um": -1.0}, "pitch_um must be a number above 0"),
        ({"pitch_um": 4.0}, "pitch_um=4 is only 4 px .* At least 8 px"),
        ({"counts_per_spot": np.nan}, "counts_per_spot must be a finite number: nan"),
        ({"pitch_um": 1e9}, r"no spot of pitch_um=1e\+09 \(1e\+09 px\) fits the image"),
        ({"stain_variation": -0.1}, "stain_variation must be a number of at least 0"),
        ({"off_tissue": -1}, "off_tissue must be a whole number of at least 0"),
        ({"size_px": 640, "off_tissue": 500}, "off_tissue=500, but only .* Choose fewer"),
        ({"size_px": 640, "misalignment_um": (200.0, 0.0)}, "the misalignment moves .* smaller"),
        ({"size_px": 10**7}, "size_px must be at most 30000"),
        ({"n_null": 10**9}, "n_null must be at most 100000"),
        ({"counts_per_spot": 1e30}, r"counts_per_spot=1e\+30 is above 1e\+09"),
        ({"n_null": -1}, "n_null must be a whole number of at least 0"),
        ({"n_morphology": 0, "n_neighborhood": 0, "n_null": 0}, "no genes: n_morphology"),
        ({"seed": -1}, "seed must be a whole number of at least 0: -1"),
    ],
)
def test_bad_options_raise(options, message):
    with pytest.raises(ValueError, match=message):
        stp.datasets.phantom(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"size_px": (500, 500, 3)},
        {"misalignment_um": (1.0, np.inf)},
        {"misalignment_um": "ab"},
    ],
)
def test_pairs_must_be_two_numbers(options):
    (name,) = options
    with pytest.raises(TypeError, match=rf"{name} must be .*\(a \w+ number, a \w+ number\)"):
        stp.datasets.phantom(**options)
