"""A grid has its pitch, covers the tissue only and completely, and can be predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Affine, Scale, get_transformation, set_transformation

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import open_table


def slide(mask, *, mpp=1.0, coarse=8, name="slide_image"):
    """Slide of which the tissue is known: a mask at a coarser resolution than the image's."""
    to_um = Scale([mpp, mpp], axes=("x", "y"))
    height, width = (size * coarse for size in mask.shape)
    return sd.SpatialData(
        images={
            name: Image2DModel.parse(
                np.full((3, height, width), 240, dtype=np.uint8),
                dims=("c", "y", "x"),
                transformations={f"{name.removesuffix('_image')}_um": to_um},
            )
        },
        labels={
            f"{name}_tissue": Labels2DModel.parse(
                mask.astype(np.int32),
                dims=("y", "x"),
                transformations={
                    f"{name.removesuffix('_image')}_um": Scale(
                        [mpp * coarse, mpp * coarse], axes=("x", "y")
                    )
                },
            )
        },
    )


def blob(seed, shape=(60, 80)):
    """Smooth random tissue."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 8) > 0


DISC = np.hypot(*np.mgrid[-30:30, -40:40]) < 25
APART = {"hexagonal": (6, np.sqrt(3)), "square": (4, np.sqrt(2))}


@given(
    seed=st.integers(0, 1000),
    layout=st.sampled_from(["hexagonal", "square"]),
    pitch=st.floats(15, 120),
    diameter=st.floats(5, 60),
    mpp=st.sampled_from([0.25, 0.5, 1.0]),
    least=st.sampled_from([0.1, 0.5, 0.9]),
)
@settings(deadline=None, max_examples=30)
def test_geometry(seed, layout, pitch, diameter, mpp, least):
    mask = blob(seed)
    sdata = slide(mask, mpp=mpp)
    coarse_um = 8 * mpp
    try:
        stp.pp.grid(
            sdata,
            "slide_image",
            pitch_um=pitch,
            diameter_um=diameter,
            layout=layout,
            min_tissue_fraction=least,
        )
    except ValueError as error:
        assert "no spot of" in str(error)  # noqa: PT017 - a pitch as wide as the slide
        assert pitch > 0.2 * min(mask.shape) * coarse_um or diameter > pitch
        return
    section = open_table(sdata).sections[0]
    um = section.centers_um
    np.testing.assert_allclose(section.radius_um, diameter / 2)
    # nearest neighbours are one pitch apart, never less
    n_nearest, across = APART[layout]
    if len(um) > 1:
        tree = cKDTree(um)
        nearest = tree.query(um, k=2)[0][:, 1]
        assert nearest.min() >= pitch * (1 - 1e-9)
        if np.count_nonzero(np.isclose(nearest, pitch)):
            pairs = tree.query_pairs(pitch * (1 + 1e-6), output_type="ndarray")
            apart = np.linalg.norm(um[pairs[:, 0]] - um[pairs[:, 1]], axis=1)
            np.testing.assert_allclose(apart, pitch)
            assert np.bincount(pairs.ravel()).max() <= n_nearest
    # none is off the tissue: counted on fine pixels
    fine = np.kron(mask, np.ones((4, 4), dtype=bool))
    y, x = (np.mgrid[: fine.shape[0], : fine.shape[1]] + 0.5) * coarse_um / 4
    fraction = sdata.tables["table"].obs["tissue_fraction"].to_numpy()
    assert fraction.min() >= least
    for center, share in list(zip(um, fraction, strict=True))[:20]:
        near = (x - center[0]) ** 2 + (y - center[1]) ** 2 <= (diameter / 2) ** 2
        on = fine[near].sum() * (coarse_um / 4) ** 2 / (np.pi * diameter**2 / 4)
        assert on == pytest.approx(share, abs=0.05 + 2 * coarse_um / 4 / diameter)
    # and no tissue is left out: what lies deep enough in it has a spot as near as the lattice does
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] * coarse_um
    reach = pitch / np.sqrt(3) if layout == "hexagonal" else pitch / across
    deep = np.argwhere(depth > reach + diameter / 2 + 2 * coarse_um)
    if len(deep):
        points = (deep[:, ::-1] + 0.5) * coarse_um
        assert cKDTree(um).query(points)[0].max() <= reach * (1 + 1e-6)


def test_slots():
    sdata = slide(DISC, mpp=0.5)
    assert stp.pp.grid(sdata, "slide_image", pitch_um=20, diameter_um=11) is None
    table = sdata.tables["table"]
    assert table.n_vars == 0
    assert table.n_obs > 50
    assert list(table.obs) == ["region", "instance_id", "tissue_fraction"]
    assert (table.obs["region"] == "slide").all()
    assert list(table.obs["instance_id"]) == list(sdata.shapes["slide"].index)
    section = open_table(sdata).sections[0]
    np.testing.assert_allclose(section.centers, table.obsm["spatial"])
    assert section.mpp == 0.5
    assert _provenance.recorded(table, "grid")["slide"] == {
        "image": "slide_image",
        "pitch_um": 20.0,
        "diameter_um": 11.0,
        "layout": "hexagonal",
        "min_tissue_fraction": 0.5,
    }
    # the middle of the disc is covered, the glass is not
    middle = np.hypot(*(section.centers_um - [160, 120]).T)
    assert middle.min() < 12
    assert middle.max() < 25 * 4 + 1


def test_defaults_are_visium():
    sdata = slide(np.ones((100, 130), dtype=bool))
    stp.pp.grid(sdata, "slide_image")
    section = open_table(sdata).sections[0]
    np.testing.assert_allclose(section.radius_um, 27.5)
    np.testing.assert_allclose(
        cKDTree(section.centers_um).query(section.centers_um, k=2)[0][:, 1], 100
    )


def test_spots_follow_the_image_wherever_it_lies():
    sdata = slide(DISC)
    turned = np.array([[0, -3, 70], [3, 0, 5], [0, 0, 1.0]])
    to_other = Affine(turned, input_axes=("x", "y"), output_axes=("x", "y"))
    set_transformation(sdata.images["slide_image"], to_other, "other")
    stp.pp.grid(sdata, "slide_image", pitch_um=40)
    assert set(get_transformation(sdata.shapes["slide"], get_all=True)) == {"slide_um", "other"}


def test_tissue_is_looked_for_where_there_are_no_labels():
    sdata = stp.datasets.phantom(size_px=800, mpp=0.5, pitch_um=40, off_tissue=4)
    truth = sdata.tables["table"].obs["tissue_fraction"] = np.nan  # not looked at
    assert np.isnan(truth)
    alone = sdata.subset(["S1_image"])
    stp.pp.grid(alone, "S1_image", pitch_um=40, diameter_um=22)
    assert not alone.labels
    before = alone.tables["table"].obs
    again = sdata.subset(["S1_image"])
    stp.pp.detect_tissue(again)
    stp.pp.grid(again, "S1_image", pitch_um=40, diameter_um=22)
    pd.testing.assert_frame_equal(again.tables["table"].obs, before)


def test_several_slides():
    sdata = slide(DISC)
    other = slide(blob(0), name="other")
    sdata.images["other"], sdata.labels["other_tissue"] = other["other"], other["other_tissue"]
    stp.pp.grid(sdata, "slide_image", pitch_um=30)
    first = sdata.tables["table"].obs.copy()
    sdata.tables["table"].obsm["X_colour"] = np.zeros((len(first), 2))
    with pytest.raises(ValueError, match=r"has an element 'other' already: .*section="):
        stp.pp.grid(sdata, "other", pitch_um=30, layout="square")
    stp.io.register_um(sdata, "second", image="other", mpp=1.0)
    stp.pp.grid(sdata, "other", pitch_um=30, layout="square", section="second")
    table = sdata.tables["table"]
    assert [section.name for section in open_table(sdata).sections] == ["slide", "second"]
    pd.testing.assert_frame_equal(
        table.obs[: len(first)], first, check_categorical=False, check_dtype=False
    )
    assert list(table.obsm) == ["spatial"]
    assert set(_provenance.recorded(table, "grid")) == {"slide", "second", "stpredict_version"}
    stp.pp.neighbors(sdata, n_neighbors=3)


@pytest.mark.parametrize("layout", ["hexagonal", "square"])
def test_a_model_predicts_it(layout, tmp_path):
    train = stp.datasets.phantom(
        size_px=800, mpp=0.5, pitch_um=40, n_morphology=3, n_neighborhood=3, n_null=2, spots=layout
    )
    stp.pp.normalize(train)
    options = {"key_added": "X_colour", "tile_um": 40, "n_subtiles": 1}
    stp.pp.embed(train, mean_colour, **options)
    stp.pp.neighbors(train)
    stp.pp.select_genes(train, n_top_genes=8)
    model = stp.tl.fit_deepspot(
        train,
        embedding="X_colour",
        context="spot_neighbors",
        standardize="training",  # few spots
        network=stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=1, n_rho=1, n_networks=1),
        schedule=stp.tl.Schedule(max_epochs=1),
    )
    new = stp.datasets.phantom(size_px=900, mpp=0.5, pitch_um=40, seed=1).subset(["S1_image"])
    stp.pp.grid(new, "S1_image", pitch_um=40, diameter_um=22, layout=layout)
    new.write(tmp_path / "a.zarr")
    new = sd.read_zarr(tmp_path / "a.zarr")
    stp.pp.prepare(new, model, encoder=mean_colour)
    table = new.tables["table"]
    ring = {"hexagonal": 6, "square": 8}[layout]
    assert np.diff(table.obsp["spatial_connectivities"].indptr).max() == ring
    assert _provenance.recorded(table, "neighbors")["grid"] == layout
    stp.tl.predict(new, model)
    assert new.tables["predicted"].shape == (table.n_obs, 8)
    assert np.isfinite(new.tables["predicted"].X).all()
    axes = stp.pl.prediction(new, model.genes[0])
    assert len(axes) == 2


def mean_colour(tiles):
    return tiles.mean((-2, -1))


def test_copy():
    sdata = slide(DISC)
    changed = stp.pp.grid(sdata, "slide_image", pitch_um=30, copy=True)
    assert set(changed.shapes) == {"slide"}
    assert "table" in changed.tables
    assert not sdata.shapes
    assert not sdata.tables


def test_the_number_of_spots_is_logged(capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    sdata = slide(DISC)
    stp.pp.grid(sdata, "slide_image", pitch_um=30)
    n = sdata.tables["table"].n_obs
    assert f"grid: {n} spots on the tissue of slide_image" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image": "S9"}, KeyError, "no image 'S9'; images: slide_image"),
        ({"pitch_um": 0}, ValueError, r"pitch_um must be a number above 0 \(µm\): 0"),
        ({"diameter_um": np.nan}, ValueError, "diameter_um must be a finite number"),
        ({"layout": "round"}, ValueError, "layout='round' is not one of 'hexagonal', 'square'"),
        ({"min_tissue_fraction": 1.5}, ValueError, "min_tissue_fraction must lie between 0 and 1"),
        ({"section": "S2"}, ValueError, r"µm per pixel of .* are not known: .*register_um\("),
        ({"pitch_um": 0.01}, ValueError, r"pitch_um=0.01 would place .* 640 × 480 µm"),
        ({"diameter_um": 900}, ValueError, r"no spot of diameter_um=900 .* maximum share is 0\."),
    ],
)  # fmt: skip
def test_bad_options(options, error, message):
    sdata = slide(DISC)
    with pytest.raises(error, match=message):
        stp.pp.grid(sdata, **{"image": "slide_image", **options})
    assert not sdata.shapes
    assert not sdata.tables


def test_unknown_mpp():
    sdata = slide(DISC)
    image = sdata.images["slide_image"]
    set_transformation(image, {"global": Scale([1, 1], ("x", "y"))}, set_all=True)
    del sdata.labels["slide_image_tissue"]
    message = r"give them with stp\.io\.register_um\(sdata, 'slide', image='slide_image', mpp=…\)"
    with pytest.raises(ValueError, match=message):
        stp.pp.grid(sdata, "slide_image")


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (4, np.uint8), (3, np.uint16)], ids=str
)
def test_images_other_than_rgb_are_refused(channels, dtype):
    sdata = slide(DISC)
    to_um = get_transformation(sdata.images.pop("slide_image"), get_all=True)
    sdata.images["slide_image"] = Image2DModel.parse(
        np.full((channels, 480, 640), 240, dtype), dims=("c", "y", "x"), transformations=to_um
    )
    with pytest.raises(ValueError, match=f"has {channels} channels of {np.dtype(dtype)}; an H&E"):
        stp.pp.grid(sdata, "slide_image")
    assert not sdata.shapes
    assert not sdata.tables


def test_blank_glass():
    sdata = slide(DISC)
    del sdata.labels["slide_image_tissue"]
    with pytest.raises(ValueError, match="diameter_um=55 every pitch_um=100 lies on the tissue"):
        stp.pp.grid(sdata, "slide_image")
    assert not sdata.shapes
    assert not sdata.tables
    assert not sdata.labels


def test_measured_sections_are_not_extended():
    sdata = stp.datasets.phantom(size_px=800, mpp=0.5, pitch_um=40)
    with pytest.raises(ValueError, match="has an element 'S1' already"):
        stp.pp.grid(sdata, "S1_image")
    new = slide(DISC)
    sdata.images["slide_image"] = new["slide_image"]
    with pytest.raises(ValueError, match=r"has counts of \d+ genes.*separate object.*subset"):
        stp.pp.grid(sdata, "slide_image")
    assert set(sdata.shapes) == {"S1"}
    # what the message says
    alone = sdata.subset(["slide_image"])
    alone.labels["slide_image_tissue"] = new["slide_image_tissue"]
    stp.pp.grid(alone, "slide_image", pitch_um=30)


def test_the_only_image_needs_no_name():
    named, unnamed = slide(DISC), slide(DISC)
    # the normalised twin of an image is no second one
    unnamed.images["slide_image_normalized"] = unnamed.images["slide_image"].copy()
    stp.pp.grid(named, "slide_image", pitch_um=30)
    stp.pp.grid(unnamed, pitch_um=30)
    assert unnamed.tables["table"].obs_names.equals(named.tables["table"].obs_names)
    assert list(unnamed.shapes) == ["slide"]


def test_one_of_several_images_is_named():
    sdata = slide(DISC)
    sdata.images["other"] = sdata.images["slide_image"].copy()
    with pytest.raises(ValueError, match=r"has 2 images: slide_image, other\. Select one"):
        stp.pp.grid(sdata)
    with pytest.raises(ValueError, match="has 0 images: none"):
        stp.pp.grid(sd.SpatialData())
    assert not sdata.shapes
    assert not sdata.tables


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="sdata must be a SpatialData"):
        stp.pp.grid(None, "slide")
