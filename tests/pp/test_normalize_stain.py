"""Planted stains are estimated, sections become similar, glass stays white, and models store it."""

from __future__ import annotations

import json
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Scale, get_transformation

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._provenance import read_steps
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._tissue import TissueMask
from stpredict.io._shared._assemble import assemble_section
from stpredict.pp._stain import _fit as _stain_fit
from stpredict.pp._stain._map import transfer_colours, transfer_dyes
from stpredict.pp._tissue import _find as _tissue

#: Unit vectors of two dyes in optical density of red, green and blue.
BLUE = np.array([0.68, 0.66, 0.32])
PINK = np.array([0.12, 0.93, 0.35])
OTHER_BLUE = np.array([0.58, 0.74, 0.34])
OTHER_PINK = np.array([0.22, 0.92, 0.32])
METHODS = ("macenko", "vahadane", "reinhard")
DECOMPOSITIONS = ("macenko", "vahadane")


def unit(vector):
    return np.asarray(vector) / np.linalg.norm(vector)


def draw(dyes=(BLUE, PINK), strength=(1.0, 1.0), *, glass=(243, 242, 245), seed=0, size=200):
    """Round tissue on glass: nuclei of one dye in a ground of the other, and what lies between."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    tissue = x**2 + y**2 < 0.16
    nucleus = np.kron(rng.random((size // 4, size // 4)) < 0.3, np.ones((4, 4))) > 0
    blue = tissue * np.where(nucleus, rng.uniform(0.7, 1.4, x.shape), 0.02)
    pink = tissue * np.where(nucleus, 0.02, rng.uniform(0.3, 0.9, x.shape))
    density = sum(
        s * amount[..., None] * unit(dye)
        for s, amount, dye in zip(strength, (blue, pink), dyes, strict=True)
    )
    light = np.asarray(glass) * np.exp(-density) + rng.normal(0, 1, (*x.shape, 3))
    return np.clip(np.rint(light), 0, 255).astype(np.uint8), tissue


def section(name, image, *, n=4, mpp=1.0):
    height, width = image.shape[:2]
    rng = np.random.default_rng(3)
    return assemble_section(
        name,
        image=image,
        counts=rng.poisson(50, (n, 3)),
        obs_names=[f"s{i}" for i in range(n)],
        var_names=["A", "B", "C"],
        positions=rng.uniform(0.3, 0.7, (n, 2)) * (width, height),
        mpp=mpp,
        diameter_um=10,
    )


def two():
    """Two sections of the same tissue, stained differently."""
    first, _ = draw()
    second, _ = draw((OTHER_BLUE, OTHER_PINK), (0.7, 1.4), glass=(230, 236, 240))
    return stp.io.concat([section("S1", first), section("S2", second)])


def angle(one, other):
    return np.degrees(np.arccos(np.clip(unit(one) @ unit(other), -1, 1)))


def pixels(sdata, name="S1", *, normalized=True):
    spots = open_table(sdata)
    sections = spots.normalized_sections if normalized else spots.sections
    (section,) = (section for section in sections if section.name == name)
    return section.levels[0].compute().astype(int)


def record(sdata):
    return _provenance.recorded(sdata.tables["table"], "normalize_stain")


def contents(sdata):
    table = sdata.tables["table"]
    return sorted(sdata.images), repr(table.uns), sorted(table.obsm)


# --- what was planted ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", DECOMPOSITIONS)
def test_planted_stains_are_estimated(method):
    sdata = two()
    stp.pp.normalize_stain(sdata, method=method)
    for name, dyes in (("S1", (BLUE, PINK)), ("S2", (OTHER_BLUE, OTHER_PINK))):
        matrix = np.array(record(sdata)["stains"][name]["stain_matrix"])
        for column, dye in zip(matrix.T, dyes, strict=False):
            assert angle(column, dye) < (3 if method == "macenko" else 15), name
    np.testing.assert_allclose(record(sdata)["stains"]["S2"]["glass"], (230, 236, 240), atol=1)


def test_the_phantoms_stains_are_estimated():
    from stpredict.datasets._phantom_parts._draw_tissue import EOSIN, HAEMATOXYLIN

    sdata = stp.datasets.phantom(2, size_px=700, mpp=0.5, pitch_um=60, stain_variation=0.7)
    stp.pp.normalize_stain(sdata)
    for index, name in enumerate(("S1", "S2")):
        hue = np.random.default_rng([0, index + 1, 1]).normal(0, 0.08, (2, 3))
        matrix = np.array(record(sdata)["stains"][name]["stain_matrix"])
        # eosin is seen alone; a nucleus of the phantom keeps half of the eosin around it
        assert angle(matrix[:, 1], EOSIN + 0.7 * hue[1]) < 4
        assert angle(matrix[:, 0], HAEMATOXYLIN + 0.7 * hue[0]) < 12


@pytest.mark.parametrize("method", METHODS)
def test_differently_stained_tissue_becomes_similar(method):
    sdata = two()
    before = np.abs(
        pixels(sdata, "S1", normalized=False) - pixels(sdata, "S2", normalized=False)
    ).mean()
    stp.pp.normalize_stain(sdata, method=method)
    after = np.abs(pixels(sdata, "S1") - pixels(sdata, "S2")).mean()
    # Reinhard's does not know of dyes: it cannot turn one without the other
    assert after < before / (1 if method == "reinhard" else 3)


@pytest.mark.parametrize("method", METHODS)
def test_the_reference_itself_keeps_its_colours(method):
    sdata = two()
    stp.pp.normalize_stain(sdata, method=method, reference="S1")
    _, tissue = draw()
    raw = pixels(sdata, normalized=False)
    glass = np.array(record(sdata)["stains"]["S1"]["glass"])[:, None, None]
    white_balanced = np.minimum((raw + 1) * 256 / (glass + 1) - 1, 255)
    assert np.abs(pixels(sdata) - white_balanced)[:, tissue].max() <= 1
    assert record(sdata)["reference_sections"] == ["S1"]
    stain = record(sdata)["stains"]["S1"]
    glass, _ = stain.pop("glass"), stain.pop("tissue")
    assert stain == record(sdata)["reference"]
    np.testing.assert_allclose(glass, (243, 242, 245), atol=1)


@pytest.mark.parametrize("method", METHODS)
def test_glass_becomes_white(method):
    sdata = two()
    stp.pp.normalize_stain(sdata, method=method)
    _, tissue = draw()
    for name in ("S1", "S2"):
        glass = pixels(sdata, name)[:, ~tissue]
        assert np.median(glass) == 255
        assert glass.min() >= 245  # the camera's noise


def test_several_references_are_averaged():
    sdata = two()
    stp.pp.normalize_stain(sdata)
    values = record(sdata)
    assert values["reference_sections"] == ["S1", "S2"]
    stains = [np.array(values["stains"][name]["stain_matrix"]) for name in ("S1", "S2")]
    middle = np.array(values["reference"]["stain_matrix"])
    for column in (0, 1):
        parts = [angle(middle[:, column], matrix[:, column]) for matrix in stains]
        assert parts[0] == pytest.approx(parts[1])
    np.testing.assert_allclose(np.linalg.norm(middle, axis=0), 1)
    np.testing.assert_allclose(middle[:, 2] @ middle[:, :2], 0, atol=1e-12)
    by_list = two()
    stp.pp.normalize_stain(by_list, reference=["S2", "S1"])
    np.testing.assert_allclose(record(by_list)["reference"]["stain_matrix"], middle)


# --- what is written ----------------------------------------------------------------------------


def test_the_normalised_image_is_aligned_with_the_original():
    image, _ = draw(size=600)
    sdata = section("S1", image, mpp=0.7)
    stp.pp.normalize_stain(sdata)
    raw, twin = sdata.images["S1_image"], sdata.images["S1_image_normalized"]
    assert get_transformation(twin, get_all=True) == get_transformation(raw, get_all=True)
    assert list(twin.children) == list(raw.children)
    for scale in raw.children:
        ours, theirs = twin[scale].ds["image"], raw[scale].ds["image"]
        assert ours.dims == ("c", "y", "x")
        assert ours.dtype == np.uint8
        assert ours.shape == theirs.shape
        assert get_transformation(ours, get_all=True) == get_transformation(theirs, get_all=True)
    # moving one leaves the other
    sd.transformations.set_transformation(twin, Scale([9, 9], ("x", "y")), "S1_um")
    np.testing.assert_allclose(open_table(sdata).sections[0].mpp, 0.7)


def test_a_single_level_with_channels_last():
    image, _ = draw()
    sdata = section("S1", image)
    expected = stp.pp.normalize_stain(sdata, copy=True)
    transformations = get_transformation(sdata.images["S1_image"], get_all=True)
    del sdata.images["S1_image"]
    sdata.images["S1_image"] = Image2DModel.parse(
        da.from_array(image), dims=("y", "x", "c"), transformations=transformations
    )
    stp.pp.normalize_stain(sdata)
    np.testing.assert_allclose(pixels(sdata), pixels(expected), atol=2)


def test_lazy():
    """The full image is read through a counter: only a grid of it before anybody asks."""
    image, _ = draw(size=2000)
    read = []

    def counting(block):
        read.append(block.size)
        return block

    sdata = section("S1", da.from_array(image, chunks=(512, 512, 3)).map_blocks(counting))
    stp.pp.normalize_stain(sdata)
    read.clear()
    (normalized,) = open_table(sdata).normalized_sections
    assert hasattr(normalized.levels[0], "dask")
    assert not read
    corner = normalized.levels[0][:, :10, :10].compute()
    assert corner.shape == (3, 10, 10)
    assert sum(read) < image.size / 2


def test_the_stain_of_a_large_image_is_fitted_to_few_chunks_on_tissue(monkeypatch):
    image, tissue = draw(size=2000)
    read = []

    def counting(block, block_info):
        (y0, y1), (x0, x1) = block_info[0]["array-location"][1:]
        read.append(tissue[y0:y1, x0:x1].mean())
        return block

    (whole,) = open_table(section("S1", image, mpp=2.0)).sections  # read at its finest level
    mask = TissueMask(mask=tissue[::8, ::8], scale=(8.0, 8.0), shape_yx=tissue.shape)
    finest, *coarse = (level.compute() for level in whole.levels)
    meta = np.empty((0, 0, 0), np.uint8)
    lazy = da.from_array(finest, chunks=(3, 128, 128)).map_blocks(counting, meta=meta)
    large = replace(whole, levels=(lazy, *map(da.from_array, coarse)))
    fitted = _stain_fit.fit_section(whole, mask, "macenko").stain.stain_matrix
    monkeypatch.setattr(_stain_fit, "_MOST_READ", 30 * 128**2)
    from_chunks = _stain_fit.fit_section(large, mask, "macenko").stain.stain_matrix
    assert len(read) == 30  # of 256
    assert min(read) > 0.4
    assert angle(fitted[:, 0], from_chunks[:, 0]) < 1
    assert angle(fitted[:, 1], from_chunks[:, 1]) < 1


def test_survives_zarr(tmp_path):
    sdata = two()
    stp.pp.normalize_stain(sdata)
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    assert record(back) == record(sdata)
    assert json.loads(json.dumps(record(back))) == record(sdata)
    np.testing.assert_array_equal(pixels(back, "S2"), pixels(sdata, "S2"))
    # a stain read from disk is a reference like any other
    again = two()
    stp.pp.normalize_stain(
        again, reference=back.tables["table"].uns["stpredict"]["normalize_stain"]
    )
    assert record(again)["reference"] == record(sdata)["reference"]
    assert "reference_sections" not in record(again)
    np.testing.assert_array_equal(pixels(again, "S2"), pixels(sdata, "S2"))


def test_a_reference_of_squidpys():
    sdata = two()
    stp.pp.normalize_stain(sdata, reference="S2")
    reference = _stain_fit.to_stain(record(sdata)["reference"], "macenko")
    again = two()
    stp.pp.normalize_stain(again, reference=reference)
    assert record(again)["reference"] == record(sdata)["reference"]


def test_a_second_call_starts_from_the_raw_images():
    sdata, once = two(), two()
    stp.pp.normalize_stain(sdata, method="reinhard")
    stp.pp.normalize_stain(sdata)
    stp.pp.normalize_stain(once)
    np.testing.assert_array_equal(pixels(sdata, "S2"), pixels(once, "S2"))
    assert record(sdata) == record(once)


def test_copy():
    sdata = two()
    before = contents(sdata)
    changed = stp.pp.normalize_stain(sdata, copy=True)
    assert contents(sdata) == before
    assert "S1_image_normalized" in changed.images
    assert stp.pp.normalize_stain(sdata) is None
    assert contents(sdata) == contents(changed)


# --- degenerate ---------------------------------------------------------------------------------


def blank(size=200):
    rng = np.random.default_rng(0)
    image = rng.normal(243, 1, (size, size, 3))
    image[:6, :6] = 120, 60, 140  # a crumb
    return np.rint(image).astype(np.uint8)


def grey():
    image, _ = draw()
    return np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)


def one_dye():
    return draw((BLUE, BLUE))[0]


def constant():
    return np.full((200, 200, 3), 243, dtype=np.uint8)


DEGENERATE = [
    (blank, r"only 0\.\d+% of its image is stained tissue"),
    (constant, r"only 0\.00% of its image is stained tissue"),
    (grey, "greyscale, saved as RGB"),
    (one_dye, "stained with one dye only"),
]
degenerate = pytest.mark.parametrize(
    ("image", "message"), DEGENERATE, ids=[image.__name__ for image, _ in DEGENERATE]
)


@degenerate
@pytest.mark.parametrize("method", METHODS)
def test_degenerate_sections_are_refused(image, message, method):
    sdata = stp.io.concat([section("S1", draw()[0]), section("S2", image())])
    before = contents(sdata)
    with pytest.raises(ValueError, match=rf"section 'S2' .*{message}.*degenerate=\"skip\""):
        stp.pp.normalize_stain(sdata, method=method)
    assert contents(sdata) == before


@degenerate
def test_degenerate_sections_can_be_skipped(image, message, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    sdata = stp.io.concat([section("S1", draw()[0]), section("S2", image())])
    alone = section("S1", draw()[0])
    stp.pp.normalize_stain(sdata, degenerate="skip")
    assert "left unchanged: S2 (" in capsys.readouterr().out
    stp.pp.normalize_stain(alone)
    assert record(sdata)["skipped"] == ["S2"]
    assert record(sdata)["reference"] == record(alone)["reference"]
    assert "S2_image_normalized" not in sdata.images
    first, second = open_table(sdata).normalized_sections
    assert (first.normalized, second.normalized) == (True, False)
    stp.pp.embed(sdata, mean_colour, tile_um=20, n_subtiles=1, key_added="X_c")
    assert np.isfinite(sdata.tables["table"].obsm["X_c"]).all()


def test_all_reference_sections_are_degenerate():
    sdata = section("S1", grey())
    before = contents(sdata)
    with pytest.raises(
        ValueError, match=r"no reference section can be estimated: S1 \(its image is gr"
    ):
        stp.pp.normalize_stain(sdata, degenerate="skip")
    assert contents(sdata) == before


# --- tissue -------------------------------------------------------------------------------------


def mark(sdata, mask):
    """Store a mask as `pp.detect_tissue` does, at half the resolution of the image."""
    sdata.labels["S1_image_tissue"] = Labels2DModel.parse(
        mask[::2, ::2].astype(np.int32),
        dims=("y", "x"),
        transformations={"S1_um": Scale([2, 2], ("x", "y"))},
    )


def test_the_stain_is_fitted_to_stored_tissue(monkeypatch):
    # two pieces of tissue with other dyes: only one of them is marked
    (left, tissue), (right, _) = draw(), draw((OTHER_BLUE, OTHER_PINK))
    both = section("S1", np.hstack([left, right]))
    mark(both, np.hstack([tissue, np.zeros_like(tissue)]))
    alone = section("S1", left)
    stp.pp.normalize_stain(alone)
    assert record(alone)["stains"]["S1"]["tissue"] == "detected"
    monkeypatch.setattr(_tissue, "find_tissue", None)
    stp.pp.normalize_stain(both)
    assert record(both)["stains"]["S1"]["tissue"] == "stored"
    fitted, expected = (
        np.array(record(sdata)["stains"]["S1"]["stain_matrix"]) for sdata in (both, alone)
    )
    for column, dye, expected_column in zip(fitted.T, (BLUE, PINK), expected.T, strict=False):
        assert angle(column, dye) < 3
        assert angle(column, expected_column) < 1


def test_stored_tissue_that_is_glass():
    image, tissue = draw()
    sdata = section("S1", image)
    mark(sdata, ~tissue)
    before = contents(sdata)
    with pytest.raises(ValueError, match=r"only 0\.\d+% of its image is stained tissue"):
        stp.pp.normalize_stain(sdata)
    assert contents(sdata) == before


# --- bad input ----------------------------------------------------------------------------------


def fitted(method):
    sdata = section("S1", draw()[0])
    stp.pp.normalize_stain(sdata, method=method)
    return record(sdata)["reference"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "khan"}, ValueError, "method='khan' is not one of 'macenko', 'vahadane', 're"),
        ({"degenerate": "ignore"}, ValueError, "degenerate='ignore' is not one of 'error', 'skip'"),
        (
            {"reference": "S9"},
            KeyError,
            r"reference: the list of sections has no 'S9'; available: S1, S2",
        ),
        (
            {"reference": ["S1", "S9"]},
            KeyError,
            r"reference: the list of sections has no 'S9'; available: S1, S2",
        ),
        ({"reference": []}, ValueError, "reference= is empty"),
        ({"reference": 3}, TypeError, "reference must be a string or .* not int: 3"),
        (
            {"reference": {"tile_um": 3}},
            ValueError,
            "reference= is not a fitted stain .*model.recipe.stain",
        ),
        (
            {"reference": {"method": "macenko", "stain_matrix": [[1.0]], "white_point": [255] * 3}},
            ValueError,
            r"reference= is not a fitted stain \(stain_matrix must have shape",
        ),
    ],
)
def test_bad_input(options, error, message):
    sdata = two()
    before = contents(sdata)
    with pytest.raises(error, match=message):
        stp.pp.normalize_stain(sdata, **options)
    assert contents(sdata) == before


@pytest.mark.parametrize("method", METHODS)
def test_a_reference_of_another_method(method):
    sdata = two()
    before = contents(sdata)
    other = "reinhard" if method == "macenko" else "macenko"
    with pytest.raises(
        ValueError, match=f"with the method '{other}', not '{method}': give method='{other}'"
    ):
        stp.pp.normalize_stain(sdata, method=method, reference=fitted(other))
    assert contents(sdata) == before


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 200, 200), np.uint8), ((4, 200, 200), np.uint8), ((3, 9, 9), "u2")]
)
def test_images_other_than_8_bit_rgb_are_refused(shape, dtype):
    sdata = section("S1", draw()[0])
    del sdata.images["S1_image"]
    sdata.images["S1_image"] = Image2DModel.parse(
        np.zeros(shape, dtype),
        dims=("c", "y", "x"),
        transformations={"S1_um": Scale([1, 1], ("x", "y"))},
    )
    before = contents(sdata)
    with pytest.raises(ValueError, match=r"must have 3 channels \(RGB\) of uint8"):
        stp.pp.normalize_stain(sdata)
    assert contents(sdata) == before


# --- embeddings and models ----------------------------------------------------------------------


def mean_colour(tiles):
    return tiles.mean((-2, -1))


def embedded(sdata, **options):
    stp.pp.embed(sdata, mean_colour, tile_um=20, n_subtiles=1, key_added="X_c", **options)
    return sdata.tables["table"].obsm["X_c"]


def recipe(sdata):
    return _provenance.recorded(sdata.tables["table"], "embed")["X_c"]


def test_embeddings_come_from_the_normalised_images():
    sdata = two()
    raw = embedded(sdata).copy()
    assert "stain" not in recipe(sdata)
    stp.pp.normalize_stain(sdata)
    normalized = embedded(sdata).copy()
    assert recipe(sdata)["stain"] == record(sdata)["reference"]
    apart = [np.abs(x[:4] - x[4:]).mean() for x in (raw, normalized)]  # the same tissue
    assert apart[1] < apart[0] / 3
    del sdata.images["S1_image_normalized"]
    before = contents(sdata)
    with pytest.raises(
        ValueError, match=r"sections S1 have no normalised image, but S2 have: run stp\.pp"
    ):
        embedded(sdata)
    assert contents(sdata) == before
    del sdata.images["S2_image_normalized"]  # back to raw
    np.testing.assert_array_equal(embedded(sdata), raw)
    assert "stain" not in recipe(sdata)


def test_normalised_images_without_a_record_are_refused():
    sdata = two()
    stp.pp.normalize_stain(sdata)
    del sdata.tables["table"].uns["stpredict"]["normalize_stain"]
    with pytest.raises(ValueError, match=r"no reference stain is recorded for the images"):
        embedded(sdata)


def test_concat_keeps_a_common_reference_only():
    first, second = section("S1", draw()[0]), section("S2", draw(strength=(0.7, 1.3))[0])
    stp.pp.normalize_stain(first)
    stp.pp.normalize_stain(second, reference=record(first)["reference"])
    together = stp.io.concat([first, second])
    assert sorted(record(together)["stains"]) == ["S1", "S2"]
    assert recipe_after(together) == record(first)["reference"]
    stp.pp.normalize_stain(second)
    apart = stp.io.concat([first, second])
    with pytest.raises(ValueError, match="no reference stain is recorded"):
        embedded(apart)


def recipe_after(sdata):
    embedded(sdata)
    return recipe(sdata)["stain"]


def test_other_steps_see_one_image_per_section():
    sdata = stp.datasets.phantom(2, size_px=700, mpp=0.5, pitch_um=40, seed=2)
    raw = stp.pp.filter_spots(sdata, copy=True).tables["table"].obs["tissue_fraction"]
    stp.pp.normalize_stain(sdata)
    stp.pp.filter_spots(sdata)
    np.testing.assert_array_equal(sdata.tables["table"].obs["tissue_fraction"], raw)
    assert [s.image for s in open_table(sdata).sections] == ["S1_image", "S2_image"]
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.8)
    raw, twin = (sdata.images[f"S1_image{suffix}"] for suffix in ("", "_normalized"))
    assert get_transformation(twin, get_all=True) == get_transformation(raw, get_all=True)


def phantom(seed=0):
    return stp.datasets.phantom(
        2,
        size_px=600,
        mpp=0.5,
        pitch_um=40.0,
        n_morphology=2,
        n_neighborhood=2,
        n_null=2,
        stain_variation=1.0,
        seed=seed,
    )


def fit(*, normalized):
    sdata = phantom()
    stp.pp.normalize(sdata)
    if normalized:
        stp.pp.normalize_stain(sdata)
    embedded(sdata)
    return stp.tl.fit_deepspot(
        sdata,
        embedding="X_c",
        context="spot",
        standardize="training",  # few spots
        genes=["morphology_001"],
        network=stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=1, n_rho=1, n_networks=1),
        schedule=stp.tl.Schedule(max_epochs=1),
        device="cpu",
    )


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return fit(normalized=True)


def test_a_model_stores_its_stain(model, tmp_path):
    model.save(tmp_path / "model")
    assert "normalised to the reference" in (tmp_path / "model" / "README.md").read_text()
    loaded = stp.models.load(tmp_path / "model")
    reference = loaded.recipe.stain
    assert reference == model.recipe.stain
    new, by_hand = phantom(5), phantom(5)
    stp.pp.prepare(new, loaded, encoder=mean_colour)
    stp.pp.normalize_stain(by_hand, reference=reference)
    assert read_steps(new.tables["table"]).normalize_stain.reference == reference
    np.testing.assert_array_equal(new.tables["table"].obsm["X_c"], embedded(by_hand))
    stp.tl.predict(new, loaded)


def test_a_model_of_normalised_images_refuses_others(model):
    new = phantom(5)
    embedded(new)
    with pytest.raises(ValueError, match=r"images are raw.*'macenko'.*stp\.pp\.prepare") as raw:
        stp.tl.predict(new, model)
    stp.pp.normalize_stain(new)
    embedded(new)
    with pytest.raises(ValueError, match=r"to another reference.*stp\.pp\.prepare") as other:
        stp.tl.predict(new, model)
    for error in (raw, other):
        assert "0." not in str(error.value)  # no matrices
    stp.pp.prepare(new, model, encoder=mean_colour)  # also where other twins stand in the way
    stp.tl.predict(new, model)
    assert read_steps(new.tables["table"]).normalize_stain.reference == model.recipe.stain


def test_a_model_of_raw_images_refuses_normalised_ones():
    model = fit(normalized=False)
    new = phantom(5)
    stp.pp.normalize_stain(new)
    embedded(new)
    with pytest.raises(ValueError, match=r"trained on raw images.*stp\.pp\.prepare"):
        stp.tl.predict(new, model)
    stp.pp.prepare(new, model, encoder=mean_colour)
    np.testing.assert_array_equal(new.tables["table"].obsm["X_c"], embedded(phantom(5)))
    stp.tl.predict(new, model)


def test_prepare_respects_skipped_sections(model):
    new = stp.io.concat([section("S1", draw()[0]), section("S2", grey())])
    before = contents(new)
    with pytest.raises(ValueError, match=r"'S2' .* greyscale"):
        stp.pp.prepare(new, model, encoder=mean_colour)
    assert contents(new) == before
    stp.pp.normalize_stain(new, reference=model.recipe.stain, degenerate="skip")
    stp.pp.prepare(new, model, encoder=mean_colour)
    assert "S2_image_normalized" not in new.images
    stp.tl.predict(new, model)


# --- formulas -----------------------------------------------------------------------------------


def test_dyes_are_transferred_in_optical_density():
    from squidpy.experimental.im import StainReference

    rgb = np.random.default_rng(0).uniform(0, 255, (3, 20, 30)).astype(np.float32)
    stains = [
        StainReference(
            method="macenko",
            stain_matrix=np.column_stack([unit(blue), unit(pink), unit(np.cross(blue, pink))]),
            white_point=np.full(3, 255.0),
            max_concentrations=np.array(strength),
        )
        for blue, pink, strength in ((BLUE, PINK, (1.5, 1.0)), (OTHER_BLUE, OTHER_PINK, (1.0, 1.2)))
    ]
    source, reference = stains
    density = -np.log((rgb.astype(float) + 1) / 256).reshape(3, -1)
    amount = np.linalg.solve(source.stain_matrix, density)
    amount[:2] *= (reference.max_concentrations / source.max_concentrations)[:, None]
    expected = (256 * np.exp(-reference.stain_matrix @ amount) - 1).reshape(rgb.shape)
    np.testing.assert_allclose(
        transfer_dyes(rgb, source, reference), expected, rtol=1e-4, atol=1e-3
    )
    unchanged = transfer_dyes(rgb, source, source)
    np.testing.assert_allclose(unchanged, rgb, rtol=1e-4, atol=1e-3)


def test_colours_are_transferred_by_means_and_deviations():
    from squidpy.experimental.im import StainReference

    rgb = np.random.default_rng(0).uniform(20, 120, (3, 40, 50)).astype(np.float32)  # no glass
    same = StainReference(method="reinhard", mu=np.zeros(3), sigma=np.ones(3))
    np.testing.assert_allclose(transfer_colours(rgb, same, same), rgb, rtol=1e-3, atol=1e-2)
    # a factor on all log cone responses moves only the first axis, by its logarithm times root 3
    brighter = StainReference(
        method="reinhard", mu=np.array([np.sqrt(3) * np.log(1.1), 0, 0]), sigma=np.ones(3)
    )
    mapped = transfer_colours(rgb, same, brighter)
    np.testing.assert_allclose(mapped + 1, 1.1 * (rgb + 1), rtol=2e-3)
