"""Tiles of several sides around each spot: embedded in one pass, and used by every function."""

from __future__ import annotations

from collections import Counter

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import torch

import stpredict as stp
from stpredict import encoders, tiles
from stpredict._sdata import _provenance
from stpredict._sdata._spot_table import open_table
from stpredict._sdata._steps import EmbedStep
from stpredict.encoders._embed import embed_section
from stpredict.io._shared._assemble import assemble_section

FIELDS = [20.0, 40.0, 80.0]
SCHEDULE = stp.tl.Schedule(max_epochs=2)
NETWORK = stp.tl.DeepSpotNetwork(n_hidden=8, n_phi=1, n_rho=1, n_networks=1)


@pytest.fixture(autouse=True)
def _silent(monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)


def colour(batch):
    """Mean and contrast of each channel, which depends on the resolution."""
    return torch.cat([batch.mean((-2, -1)), batch.std((-2, -1))], dim=1)


def phantom(n_sections=1, seed=0):
    sdata = stp.datasets.phantom(
        n_sections, size_px=700, mpp=0.5, pitch_um=40, n_morphology=3, n_neighborhood=2, n_null=1,
        seed=seed,
    )  # fmt: skip
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, n_top_genes=3)
    return sdata


def trained(fit=stp.tl.fit_ridge, *, n_sections=1, n_subtiles=1, **options):
    sdata = phantom(n_sections)
    stp.pp.embed(sdata, colour, tile_um=FIELDS, n_subtiles=n_subtiles)
    stp.pp.neighbors(sdata)
    return sdata, fit(sdata, embedding="X_colour", **options)


def crops(sdata, side):
    """Tiles by plain slicing of the image padded with white."""
    section = open_table(sdata).sections[0]
    padded = np.pad(
        section.levels[0].compute(), ((0, 0), (side, side), (side, side)), constant_values=255
    )
    cut = []
    for x, y in section.centers:
        left, top = int(np.rint(x - side / 2)) + side, int(np.rint(y - side / 2)) + side
        cut.append(padded[:, top : top + side, left : left + side])
    return torch.from_numpy(np.stack(cut))


def test_each_part_embeds_one_field_with_as_many_pixels_as_the_first():
    sdata = phantom()
    for slot, n_subtiles in (("X_three", 1), ("X_split", 2)):
        stp.pp.embed(sdata, colour, tile_um=FIELDS, n_subtiles=n_subtiles, key_added=slot)
    encoder = encoders.load(colour)
    # 0.5 µm per pixel: fields of 40, 80 and 160 px
    expected = [encoder(tiles.resize(crops(sdata, side), 40)) for side in (40, 80, 160)]
    obsm = sdata["table"].obsm
    np.testing.assert_allclose(obsm["X_three"][:, :6], expected[0], rtol=1e-4, atol=1e-5)
    # wide fields are read from coarser levels of the image
    np.testing.assert_allclose(obsm["X_three"], np.hstack(expected), atol=0.03)
    np.testing.assert_array_equal(obsm["X_split"], obsm["X_three"])
    assert obsm["X_three"].dtype == np.float32
    # sub-tiles are those of the first field
    stp.pp.embed(sdata, colour, tile_um=FIELDS[0], n_subtiles=2, key_added="X_one")
    np.testing.assert_array_equal(obsm["X_split_subtiles"], obsm["X_one_subtiles"])
    record = _provenance.recorded(sdata["table"], "embed")["X_split"]
    assert record["tile_um"] == [20.0, 40.0, 80.0]
    assert record["mpp"] == [0.5, 1.0, 2.0]


def test_encoders_with_an_input_size_see_all_fields_at_that_size():
    sides = set()

    class Network(torch.nn.Module):
        def forward(self, batch):
            sides.add(batch.shape[-1])
            return colour(batch)

    record = encoders.EncoderRecord("sized", Network, dimension=6, input_px=32)
    sdata = phantom()
    stp.pp.embed(sdata, record, tile_um=(20, 40), n_subtiles=2)
    assert sides == {32}
    step = open_table(sdata).steps.embed["X_sized"]
    assert step.mpp_of_fields == {20.0: 20 / 32, 40.0: 40 / 32}
    assert sdata["table"].obsm["X_sized"].shape[1] == 12


def test_a_list_of_one_field_is_one_number():
    sdata = phantom()
    for slot, tile_um in (("X_a", 30), ("X_b", [30]), ("X_c", np.array([30.0]))):
        stp.pp.embed(sdata, colour, tile_um=tile_um, key_added=slot)
    obsm, record = sdata["table"].obsm, _provenance.recorded(sdata["table"], "embed")
    for slot in ("X_b", "X_c"):
        np.testing.assert_array_equal(obsm[slot], obsm["X_a"])
        assert record[slot]["tile_um"] == 30.0
        assert record[slot]["mpp"] == record["X_a"]["mpp"] == 0.5


def test_all_fields_are_read_in_one_pass():
    decoded = Counter()

    def decode(block, block_info=None):
        decoded[tuple(block_info[0]["chunk-location"])] += 1
        return block

    image = np.random.default_rng(0).integers(0, 256, (3, 512, 640), dtype=np.uint8)
    level = da.from_array(image, chunks=(3, 128, 128)).map_blocks(decode, dtype=np.uint8)
    decoded.clear()  # dask calls the function to learn its type
    centers = np.random.default_rng(1).uniform((80, 80), (560, 430), (300, 2))
    encoder = encoders.load(colour)
    options = {"mpp": 1.0, "n_subtiles": 1, "batch_size": 16}
    together, _ = embed_section((level,), centers, encoder, fields_um=[20, 40, 80], **options)
    assert set(decoded.values()) == {1}
    assert len(decoded) == 4 * 5
    for k, side in enumerate([20, 40, 80]):
        windows = tiles.tile_windows((level,), centers, side=side, tile_px=40)
        for rows, batch in tiles.read_tiles(windows, tile_px=40):
            np.testing.assert_allclose(
                together[rows, 6 * k : 6 * (k + 1)], encoder(batch), atol=1e-5
            )


def test_fields_are_read_from_the_levels_of_a_pyramid():
    fine = np.kron(np.random.default_rng(0).integers(0, 256, (3, 60, 80)), np.ones((1, 8, 8)))
    levels = [
        da.from_array(fine[:, ::step, ::step].astype(np.uint8), chunks=-1) for step in (1, 2, 4)
    ]
    centers = np.array([[320.0, 240.0], [200.0, 160.0]])
    options = {"mpp": 0.5, "n_subtiles": 1, "fields_um": [32.0, 64.0, 128.0]}
    encoder = encoders.load(lambda batch: batch.mean((-2, -1)), name="mean")
    read, _ = embed_section(levels, centers, encoder, **options)
    # pixels are constant in blocks of 8, so that all levels show the same
    alone, _ = embed_section(levels[:1], centers, encoder, **options)
    np.testing.assert_allclose(read, alone, atol=1e-3)


@pytest.mark.parametrize(
    ("tile_um", "error", "message"),
    [
        ([], ValueError, "tile_um= is empty"),
        ([40, 20], ValueError, r"tile_um=\[40, 20\] must ascend, without repetition: \[20, 40\]"),
        ([20, 20], ValueError, "must ascend, without repetition"),
        ([20, 0], ValueError, r"tile_um must be a number above 0 \(µm\): 0"),
        ([20, float("nan")], ValueError, r"tile_um must be a number above 0 \(µm\): nan"),
        (["20"], TypeError, "tile_um must be a finite number, not str: '20'"),
        ([[20]], TypeError, "tile_um must be a finite number, not list"),
        (b"5", TypeError, "tile_um must be a finite number, not bytes"),
        (None, TypeError, "tile_um must be a finite number, not NoneType"),
        ([20, 400], ValueError, "a tile of 400 µm is 800 px .* larger than the image of .* 'S1'"),
    ],
)
def test_invalid_fields_change_nothing(tile_um, error, message):
    sdata = phantom()
    stp.pp.embed(sdata, colour, tile_um=30)
    before = sdata["table"].obsm["X_colour"].copy()
    with pytest.raises(error, match=message):
        stp.pp.embed(sdata, colour, tile_um=tile_um)
    np.testing.assert_array_equal(sdata["table"].obsm["X_colour"], before)
    assert _provenance.recorded(sdata["table"], "embed")["X_colour"]["tile_um"] == 30.0


def test_fields_survive_zarr_and_a_saved_model(tmp_path):
    sdata, model = trained()
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    assert loaded.recipe == model.recipe
    assert loaded.recipe.embed.fields_um == (20.0, 40.0, 80.0)
    assert "tiles: 20 and 40 and 80 µm" in repr(loaded)
    sdata.write(tmp_path / "sections.zarr")
    back = sd.read_zarr(tmp_path / "sections.zarr")
    for one in (sdata, back):
        stp.tl.predict(one, loaded)
    np.testing.assert_array_equal(back["predicted"].X, sdata["predicted"].X)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tile_um": (40.0, 20.0)}, "does not ascend"),
        ({"tile_um": (20.0, 20.0)}, "does not ascend"),
        ({"tile_um": (20.0, 40.0), "mpp": 0.5}, "differ in length"),
        ({"tile_um": 20.0, "mpp": (0.5, 1.0)}, "differ in length"),
    ],
)
def test_damaged_records_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        EmbedStep("colour", **values)


def test_no_part_dominates_the_inputs_of_a_model():
    sdata, model = trained(stp.tl.fit_ridge, context="spot", alpha=1.0)
    scaled = model.inputs.transform(sdata["table"].obsm["X_colour"]).reshape(-1, 3, 6)
    np.testing.assert_allclose(scaled.var(axis=0).sum(axis=1), 6, rtol=1e-3)


@pytest.mark.parametrize("context", ["spot_neighbors", "spot_subspot_neighbors"])
@pytest.mark.parametrize("fit", [stp.tl.fit_ridge, stp.tl.fit_deepspot])
def test_new_sections_are_prepared_and_predicted(fit, context, tmp_path):
    options = (
        {"schedule": SCHEDULE, "network": NETWORK, "standardize": "training"}
        if fit is stp.tl.fit_deepspot
        else {}
    )
    options = options or {"alpha": 1.0}
    n_sections = 2 if fit is stp.tl.fit_deepspot else 1  # one is held out
    _, model = trained(fit, context=context, n_subtiles=2, n_sections=n_sections, **options)
    model.save(tmp_path / "model")
    model = stp.models.load(tmp_path / "model")
    new = phantom(seed=1)
    stp.pp.prepare(new, model, encoder=colour)
    stp.tl.predict(new, model)
    table = new["table"]
    subtiles = table.obsm["X_colour_subtiles"] if "subspot" in context else None
    section = open_table(new).graph
    # spot 0 by hand: its own embedding, its sub-tiles and its neighbours
    neighbors = table.obsm["X_colour"][section[[0]].indices][None]
    alone = model.predict_array(
        table.obsm["X_colour"][:1],
        subtiles=None if subtiles is None else subtiles[:1],
        neighbors=neighbors,
    )
    np.testing.assert_allclose(new["predicted"].X[:1], alone, atol=1e-4)
    whole = stp.tl.predict_slide(phantom(seed=1), model, encoder=colour, key_added="again")
    np.testing.assert_allclose(whole["again"].X, new["predicted"].X, atol=1e-4)
    stp.tl.superresolve(new, model, resolution_um=20, match=None, encoder=colour)
    assert np.isfinite(new["superresolved"].X).all()
    if subtiles is not None:
        wide = np.zeros((1, 4, 18), dtype=np.float32)
        with pytest.raises(ValueError, match=r"subtiles has 18 features, .* trained on 6"):
            model.predict_array(table.obsm["X_colour"][:1], wide, neighbors)


def test_other_fields_are_reported():
    _, model = trained(context="spot", alpha=1.0)
    new = phantom(seed=1)
    stp.pp.embed(new, colour, tile_um=20)
    with pytest.raises(ValueError, match=r"tile_um is 20\.0, .* trained with \(20\.0, 40\.0, 80"):
        stp.tl.predict(new, model)


def test_a_section_smaller_than_a_field_is_refused_by_prepare():
    _, model = trained(context="spot", alpha=1.0)
    image = np.full((150, 150, 3), 200, dtype=np.uint8)
    small = assemble_section(
        "S9", image=image, counts=np.ones((1, 1)), obs_names=["s"], var_names=["A"],
        positions=np.array([[75.0, 75.0]]), mpp=0.5, diameter_um=10,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"a tile of 80 µm is 160 px .* of section 'S9'"):
        stp.pp.prepare(small, model, encoder=colour)
    assert "X_colour" not in small["table"].obsm


def test_models_are_cross_validated_calibrated_and_attributed():
    sdata, model = trained(n_sections=3)
    scores = stp.tl.cross_validate(
        sdata, {"ridge": lambda part: stp.tl.fit_ridge(part, embedding="X_colour")}
    )
    assert not scores.failures
    model = stp.tl.calibrate(sdata, model)
    assert model.calibration.familiarity.mean.shape == (18,)
    stp.tl.predict(sdata, model)
    assert sdata["predicted"].obs["familiarity"].between(0, 1).all()
    stp.tl.attribute(sdata, model, model.genes[0], key_added="attribution")
    assert list(sdata["predicted"].obsm["attribution"].columns) == ["spot", "neighbors"]


def test_lazyslide_passes_all_fields_next_to_each_other():
    sdata, model = trained(context="spot", alpha=1.0)
    predictor = model.as_feature_predictor()
    features = sdata["table"].obsm["X_colour"]
    predicted = np.column_stack(list(predictor.predict(features).values()))
    np.testing.assert_allclose(predicted, model.predict_array(features), rtol=1e-6)
    with pytest.raises(ValueError, match="'colour' on tiles of 20 and 40 and 80 µm around"):
        predictor.predict(features[:, :6])


def test_tiles_are_drawn_with_their_wider_fields():
    sdata, _ = trained(context="spot", alpha=1.0)
    axes = stp.pl.tiles(sdata, n=1)
    yellow = [patch for patch in axes[1, 0].patches if patch.get_linewidth() == 2]
    assert [patch.get_width() for patch in yellow] == FIELDS
    left, right = sorted(axes[1, 0].get_xlim())
    assert right - left > FIELDS[-1]
