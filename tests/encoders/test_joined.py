"""Encoders joined by name see the same tiles, and each has the same weight in a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
import torch

import stpredict as stp
from stpredict import encoders
from stpredict._sdata._spot_table import open_table
from stpredict.tl._fitting._inputs import tile_embedding

NAME, SLOT = "texture+random_conv", "X_texture_random_conv"
TILES = torch.randint(0, 256, (3, 3, 96, 96), dtype=torch.uint8)


def section() -> sd.SpatialData:
    sdata = stp.datasets.phantom(size_px=600, mpp=0.5, pitch_um=40.0, n_morphology=2, n_null=1)
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, genes=["morphology_001", "morphology_002"])
    return sdata


def test_a_joined_encoder_puts_embeddings_side_by_side() -> None:
    joined = encoders.load(NAME)
    parts = [encoders.load(name)(TILES) for name in NAME.split("+")]
    torch.testing.assert_close(joined(TILES), torch.cat(parts, dim=1))
    assert joined.name == SLOT.removeprefix("X_")
    assert joined.dimension == encoders.record(NAME).dimension == 200 + 960


def test_each_part_resizes_and_normalises_as_alone() -> None:
    small = encoders.EncoderRecord(
        "small", torch.nn.Flatten, dimension=3 * 16, input_px=4, mean=(0.5,) * 3, std=(0.1,) * 3
    )
    joined = encoders.load(
        encoders._joined.joined_record("a+b", [small, encoders.record("texture")])
    )
    torch.testing.assert_close(joined(TILES)[:, :48], encoders.load(small)(TILES))


def test_the_hash_names_every_part_in_order() -> None:
    names = [NAME, "random_conv+texture", "texture+efficientnet_lite0"]
    hashes = {encoders.load(name).weights_hash for name in names[:2]}
    assert len(hashes) == 2
    assert encoders.load(NAME).weights_hash in hashes


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("texture+textur", KeyError, "textur.*Did you mean 'texture'"),
        ("texture+", KeyError, "No encoder ''"),
        ("texture+texture", ValueError, "joins texture with itself"),
    ],
)
def test_a_bad_name_is_refused(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        encoders.load(name)


def test_fields_and_subtiles_of_joined_encoders_are_those_of_each() -> None:
    sdata = section()
    for name in (NAME, *NAME.split("+")):
        stp.pp.embed(sdata, name, tile_um=[60, 120], n_subtiles=2)
    obsm = sdata.tables["table"].obsm
    first, second = (obsm[f"X_{name}"] for name in NAME.split("+"))
    width, other = first.shape[1] // 2, second.shape[1] // 2
    fields = [first[:, :width], second[:, :other], first[:, width:], second[:, other:]]
    np.testing.assert_allclose(obsm[SLOT], np.concatenate(fields, axis=1), rtol=1e-5, atol=1e-6)
    parts = [obsm[f"X_{name}_subtiles"] for name in NAME.split("+")]
    joined = np.concatenate(parts, axis=2)
    np.testing.assert_allclose(obsm[f"{SLOT}_subtiles"], joined, rtol=1e-5, atol=1e-6)


def test_joined_encoders_vary_equally_in_a_model_which_is_loaded_by_name(tmp_path: Path) -> None:
    sdata = section()
    stp.pp.embed(sdata, NAME, tile_um=[40, 80])
    sdata.write(tmp_path / "train.zarr")
    sdata = sd.read_zarr(tmp_path / "train.zarr")
    model = stp.tl.fit_ridge(sdata, embedding=SLOT, context="spot", alpha=10.0)
    scaled = tile_embedding(open_table(sdata), model).astype(np.float64)
    variance = scaled.var(axis=0).reshape(2, -1)  # by field
    varies = (variance > 0).mean(axis=1)
    totals = variance[:, :200].sum(axis=1), variance[:, 200:].sum(axis=1)
    np.testing.assert_allclose(totals, np.full((2, 2), 580), rtol=0.15)  # some are constant
    assert (varies > 0.9).all()
    model.save(tmp_path / "model")
    new = section()
    loaded = stp.models.load(tmp_path / "model")
    assert loaded.recipe.embed.widths == (200, 960)
    stp.pp.prepare(new, loaded)
    stp.tl.predict(new, loaded)
    stp.tl.predict(sdata, model)
    np.testing.assert_allclose(new["predicted"].X, sdata["predicted"].X, atol=1e-5)
