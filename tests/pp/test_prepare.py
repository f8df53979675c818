"""prepare runs exactly the steps a model was trained with, or says why it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
import torch
from torch import nn

import stpredict as stp
from stpredict._sdata import _provenance
from stpredict._sdata._inputs import check_recipe
from stpredict._sdata._spot_table import open_table

SMALL = {"size_px": 600, "mpp": 0.5, "pitch_um": 40.0, "n_morphology": 2, "n_neighborhood": 2}
TINY = {
    "standardize": "training",  # few spots
    "network": stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=2, n_rho=2, n_networks=1),
    "schedule": stp.tl.Schedule(max_epochs=1),
    "device": "cpu",
}


class Colour(nn.Module):
    """A small network with one weight."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([gain]))

    def forward(self, tiles):
        return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1) * self.gain


def new_sections(seed=7):
    return stp.datasets.phantom(2, **SMALL, n_null=2, seed=seed)


def fit(context, encoder, **embed):
    sdata = stp.datasets.phantom(2, **SMALL, n_null=2)
    stp.pp.normalize(sdata, target_sum=5000)
    stp.pp.select_genes(sdata, n_top_genes=3)
    stp.pp.embed(sdata, encoder, key_added="X_mine", **embed)
    stp.pp.neighbors(sdata, n_neighbors=4)
    return stp.tl.fit_deepspot(sdata, embedding="X_mine", context=context, **TINY)


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return fit("spot_subspot_neighbors", Colour(), tile_um=30, n_subtiles=2)


@pytest.fixture(scope="module")
def spot_model():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stp.settings, "verbosity", 0)
        return fit("spot", "texture", tile_um=30, n_subtiles=1)


def contents(sdata):
    table = sdata.tables["table"]
    return {
        slot: sorted(map(str, getattr(table, slot)))
        for slot in ("obsm", "obsp", "layers", "uns", "obs", "var")
    } | {"steps": sorted(table.uns["stpredict"]), "spots": table.n_obs}


def test_prepare_equals_the_steps_by_hand(model):
    new, by_hand = new_sections(), new_sections()
    stp.pp.prepare(new, model, encoder=Colour())
    stp.pp.normalize(by_hand, target_sum=5000)
    stp.pp.embed(by_hand, Colour(), tile_um=30, n_subtiles=2, key_added="X_mine")
    stp.pp.neighbors(by_hand, n_neighbors=4)
    table, other = new.tables["table"], by_hand.tables["table"]
    for slot in ("X_mine", "X_mine_subtiles"):
        np.testing.assert_array_equal(table.obsm[slot], other.obsm[slot])
    for slot in ("spatial_connectivities", "spatial_distances"):
        assert (table.obsp[slot] != other.obsp[slot]).nnz == 0
    assert (table.layers["log1p"] != other.layers["log1p"]).nnz == 0
    for step in ("embed", "neighbors", "normalize"):
        assert _provenance.recorded(table, step) == _provenance.recorded(other, step)
    stp.tl.predict(new, model)
    assert new.tables["predicted"].shape == (table.n_obs, 3)


def test_fits_a_model_without_context(spot_model):
    new = new_sections()
    stp.pp.prepare(new, spot_model)
    table = new.tables["table"]
    assert "X_mine" in table.obsm
    assert "X_mine_subtiles" not in table.obsm
    assert not list(table.obsp)
    assert _provenance.recorded(table, "embed")["X_mine"]["tile_um"] == 30
    stp.tl.predict(new, spot_model)


def test_model_from_disk(model, tmp_path):
    model.save(tmp_path / "model")
    loaded = stp.models.load(tmp_path / "model")
    new = new_sections()
    stp.pp.prepare(new, loaded, encoder=Colour())
    check_recipe(open_table(new), model.recipe, subtiles=True)


def test_prepared_sections_survive_zarr(model, tmp_path):
    new = new_sections()
    stp.pp.prepare(new, model, encoder=Colour())
    new.write(tmp_path / "new.zarr")
    back = sd.read_zarr(tmp_path / "new.zarr")
    check_recipe(open_table(back), model.recipe, subtiles=True)
    stp.tl.predict(new, model)
    stp.tl.predict(back, model)
    np.testing.assert_array_equal(new.tables["predicted"].X, back.tables["predicted"].X)


def test_inputs_that_were_computed_differently_are_replaced(model):
    new = new_sections()
    stp.pp.embed(new, Colour(), tile_um=50, n_subtiles=3, key_added="X_mine")
    stp.pp.neighbors(new)
    with pytest.raises(ValueError, match=r"tile_um is 50\.0.*trained with 30\.0.*stp\.pp\.prepare"):
        stp.tl.predict(new, model)
    stp.pp.prepare(new, model, encoder=Colour())
    stp.tl.predict(new, model)


def other_encoder(new):
    stp.pp.embed(new, Colour(gain=3.0), tile_um=30, n_subtiles=2, key_added="X_mine")


def other_neighbors(new):
    stp.pp.neighbors(new, n_neighbors=5)


def no_embedding(new):
    del new.tables["table"].obsm["X_mine"]


def no_subtiles(new):
    del new.tables["table"].obsm["X_mine_subtiles"]


def no_graph(new):
    del new.tables["table"].obsp["spatial_connectivities"]


def nan_embedding(new):
    new.tables["table"].obsm["X_mine"][2, 1] = np.nan


def nan_subtiles(new):
    new.tables["table"].obsm["X_mine_subtiles"][2, 1, 0] = np.inf


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (other_encoder, ValueError, "embed step was run differently: weights_hash .*pp.prepare"),
        (other_neighbors, ValueError, "neighbors step .* n_neighbors is 5, .* with 4.*pp.prepare"),
        (no_embedding, KeyError, r"obsm has no embedding 'X_mine'.*stp.pp.embed.*stp.pp.prepare"),
        (no_subtiles, KeyError, r"obsm has no sub-tiles .*X_mine_subtiles.*: run stp\.pp\.embed"),
        (no_graph, KeyError, "no neighbourhood graph .*stp.pp.neighbors.*stp.pp.prepare"),
        (nan_embedding, ValueError, r"obsm\['X_mine'\] has 1 values that are NaN or infinite"),
        (nan_subtiles, ValueError, r"obsm\['X_mine_subtiles'\] has 1 values that are NaN or inf"),
    ],
)
def test_invalid_inputs_are_refused_and_prepared_again(model, spoil, error, message):
    new = new_sections()
    stp.pp.prepare(new, model, encoder=Colour())
    spoil(new)
    before = contents(new)
    with pytest.raises(error, match=message):
        stp.tl.predict(new, model)
    assert contents(new) == before
    assert set(new.tables) == {"table"}
    stp.pp.prepare(new, model, encoder=Colour())  # the call in the message
    stp.tl.predict(new, model)


def test_no_spot_is_removed(model):
    new = stp.datasets.phantom(**SMALL, n_null=2, off_tissue=2)
    n = new.tables["table"].n_obs
    stp.pp.prepare(new, model, encoder=Colour())
    assert new.tables["table"].n_obs == n


def test_copy(model):
    new = new_sections()
    before = contents(new)
    prepared = stp.pp.prepare(new, model, encoder=Colour(), copy=True)
    assert isinstance(prepared, sd.SpatialData)
    assert contents(new) == before
    assert "X_mine" in prepared.tables["table"].obsm
    assert stp.pp.prepare(new, model, encoder=Colour()) is None
    assert contents(new) == contents(prepared)


def test_other_weights(model):
    new = new_sections()
    before = contents(new)
    with pytest.raises(ValueError, match=r"the encoder .* has other weights than recorded"):
        stp.pp.prepare(new, model, encoder=Colour(gain=2.0))
    assert contents(new) == before


def test_a_custom_encoder_is_required(model):
    new = new_sections()
    before = contents(new)
    with pytest.raises(KeyError, match=r"mine.*encoder="):
        stp.pp.prepare(new, model)
    assert contents(new) == before


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.0}, {"device": "gpu"}],
    ids=str,
)
def test_bad_options_are_refused_and_write_nothing(spot_model, options):
    new = new_sections()
    before = contents(new)
    with pytest.raises(ValueError, match=next(iter(options))):
        stp.pp.prepare(new, spot_model, **options)
    assert contents(new) == before


def test_a_failing_step_writes_nothing(model):
    new = new_sections()
    table = new.tables["table"]
    counts = table.X.toarray()
    counts[3, 1] = -1
    table.X = counts  # normalising is the last step
    before = contents(new)
    with pytest.raises(ValueError, match="1 are negative"):
        stp.pp.prepare(new, model, encoder=Colour())
    assert contents(new) == before
    assert new.tables["table"] is table


def test_too_few_spots_for_the_neighbours(model):
    new = stp.datasets.phantom(**SMALL, n_null=2)
    new.tables["table"] = new.tables["table"][:3].copy()
    before = contents(new)
    with pytest.raises(ValueError, match="'S1' has 3 spots, too few for 4 neighbours"):
        stp.pp.prepare(new, model, encoder=Colour())
    assert contents(new) == before


def test_subtiles_of_the_user_are_kept(spot_model):
    new = new_sections()
    stp.pp.embed(new, "texture", tile_um=60, n_subtiles=2, key_added="X_mine")
    stp.pp.prepare(new, spot_model)
    assert "X_mine_subtiles" not in new.tables["table"].obsm  # of tiles that were replaced
    stp.pp.embed(new, "texture", tile_um=48, n_subtiles=2, key_added="X_mine")
    before = new.tables["table"].obsm["X_mine_subtiles"].copy()
    stp.pp.prepare(new, fit("spot", "texture", tile_um=48, n_subtiles=1))
    np.testing.assert_array_equal(new.tables["table"].obsm["X_mine_subtiles"], before)
    assert _provenance.recorded(new.tables["table"], "embed")["X_mine"]["n_subtiles"] == 2


def function_encoder(power):
    """Encoders of one name whose bodies differ."""

    def mine(tiles):
        return tiles.mean((-2, -1)) ** power

    return mine


class Squared(Colour):
    """The same weights, another body."""

    def forward(self, tiles):
        return super().forward(tiles) ** 2


@pytest.mark.parametrize(
    ("encoder", "other"),
    [(function_encoder(1), function_encoder(2)), (Colour(), Squared())],
)
def test_an_own_encoder_with_another_body_is_refused(encoder, other, tmp_path):
    model = fit("spot", encoder, tile_um=30)
    model.save(tmp_path / "model")
    model = stp.models.load(tmp_path / "model")
    new = new_sections()
    before = contents(new)
    with pytest.raises(ValueError, match=r"encoder 'mine' computes other values than recorded"):
        stp.pp.prepare(new, model, encoder=other)
    assert contents(new) == before
    stp.pp.embed(new, other, tile_um=30, key_added="X_mine")
    with pytest.raises(ValueError, match=r"embed step .*: the encoder computes other values"):
        stp.tl.predict(new, model)
    stp.pp.prepare(new, model, encoder=encoder)
    stp.tl.predict(new, model)
