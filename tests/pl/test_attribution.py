"""Pictures of attributions: values, spots, and one scale symmetric around 0."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import EllipseCollection

import stpredict as stp
from stpredict._sdata._spot_table import copy_of, open_table

GENE = "morphology_001"


def colour(tiles):
    return torch.cat([tiles.mean((-2, -1)), tiles.std((-2, -1))], dim=1)


@pytest.fixture(scope="module")
def sections():
    """Two sections of which one is attributed, over its context."""
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(
        2, size_px=(700, 900), mpp=0.5, pitch_um=40.0, n_morphology=2, n_neighborhood=2, n_null=1
    )
    stp.pp.normalize(sdata)
    stp.pp.select_genes(sdata, list(sdata.tables["table"].var_names))
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=2)
    stp.pp.neighbors(sdata)
    model = stp.tl.fit_ridge(sdata, context="spot_subspot_neighbors", embedding="X_colour")
    stp.tl.predict(sdata, model)
    stp.tl.attribute(sdata, model, GENE, section="S2", n_steps=2)
    stp.settings.verbosity = verbosity
    return sdata


@pytest.fixture
def sdata(sections):
    return copy_of(sections)


@pytest.fixture(scope="module")
def on_pixels(sections):
    """The same sections; six spots of one of them are attributed over their pixels."""
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = copy_of(sections)
    model = stp.tl.fit_cnn(
        sdata,
        network=stp.tl.CNNNetwork(tile_px=24),
        tile_um=40.0,
        schedule=stp.tl.Schedule(max_epochs=1, learning_rate=3e-3),
        device="cpu",
    )
    stp.tl.predict(sdata, model, device="cpu")
    spots = rows_of(sdata, "S1")[10:16]
    names = list(sdata.tables["table"].obs_names[spots])
    stp.tl.attribute(sdata, model, GENE, spots=names, n_steps=200, device="cpu")
    stp.settings.verbosity = verbosity
    return sdata


def rows_of(sdata, section):
    return np.flatnonzero((sdata.tables["table"].obs["region"] == section).to_numpy())


def spots_of(ax):
    (spots,) = [c for c in ax.collections if isinstance(c, EllipseCollection)]
    return spots


def render(axes):
    np.ravel(axes)[0].figure.canvas.draw()
    return axes


@pytest.mark.parametrize("fixture", ["sections", "on_pixels"])
def test_names_that_are_no_valid_formula_are_drawn(fixture, request):
    sdata = copy_of(request.getfixturevalue(fixture))
    gene = r"A$\no{B$"
    predicted = sdata.tables["predicted"]
    slot = "attribution_A__no_B_"
    for kind in (predicted.obsm, predicted.obsp):
        if f"attribution_{GENE}" in kind:
            kind[slot] = kind.pop(f"attribution_{GENE}")
    records = predicted.uns["stpredict"]["attribute"]
    records[slot] = {**records[f"attribution_{GENE}"], "gene": gene}
    for table in sdata.tables.values():
        table.obs_names = [rf"$\no{{{name}$" for name in table.obs_names]
    render(stp.pl.attribution(sdata, gene))
    row = np.flatnonzero(np.asarray(predicted.obs["region"] == "S2"))[0]
    if fixture == "sections":
        render(stp.pl.attribution(sdata, gene, spots=predicted.obs_names[row]))


def test_each_part_of_the_context_has_a_panel(sdata):
    axes = render(stp.pl.attribution(sdata, GENE))
    shares = sdata.tables["predicted"].obsm[f"attribution_{GENE}"].iloc[rows_of(sdata, "S2")]
    parts = [shares["spot"], shares.filter(like="subtile").sum(axis=1), shares["neighbors"]]
    size = np.array([part.abs().mean() for part in parts])
    titles = [ax.get_title() for ax in axes]
    percent = [f"{part:.0%}" for part in size / size.sum()]
    assert titles == [
        "S2: H&E",
        f"{GENE}: own tile ({percent[0]})",
        f"{GENE}: sub-tiles ({percent[1]})",
        f"{GENE}: neighbours ({percent[2]})",
    ]
    for ax, values in zip(axes[1:], parts, strict=True):
        np.testing.assert_allclose(spots_of(ax).get_array(), values, rtol=1e-6)
        np.testing.assert_allclose(
            spots_of(ax).get_offsets(), open_table(sdata).sections[1].centers_um
        )
    norms = [spots_of(ax).norm for ax in axes[1:]]
    assert len({(norm.vmin, norm.vmax) for norm in norms}) == 1
    assert norms[0].vmin == -norms[0].vmax < 0


def test_a_model_without_context_has_one_panel(sdata):
    model = stp.tl.fit_ridge(sdata, context="spot", embedding="X_colour")
    stp.tl.predict(sdata, model)
    stp.tl.attribute(sdata, model, GENE, n_steps=2)
    axes = render(stp.pl.attribution(sdata, GENE, section="S1"))
    assert [ax.get_title() for ax in axes] == ["S1: H&E", f"{GENE}: own tile (100%)"]


def test_spots_that_were_not_attributed_have_no_colour(sdata):
    model = stp.tl.fit_ridge(sdata, context="spot", embedding="X_colour")
    stp.tl.predict(sdata, model)
    rows = rows_of(sdata, "S1")
    stp.tl.attribute(
        sdata, model, GENE, spots=list(sdata.tables["table"].obs_names[rows[3:5]]), n_steps=2
    )
    axes = render(stp.pl.attribution(sdata, GENE))
    faces = spots_of(axes[1]).get_facecolors()
    assert np.flatnonzero(faces[:, 3]).tolist() == [3, 4]


def test_named_spots_show_each_of_their_neighbours(sdata):
    table, predicted = sdata.tables["table"], sdata.tables["predicted"]
    rows = rows_of(sdata, "S2")
    places = [20, 0]
    names = list(table.obs_names[rows[places]])
    axes = render(stp.pl.attribution(sdata, GENE, section="S2", spots=names))
    assert [ax.get_title() for ax in axes] == [f"{GENE}: {name}" for name in names]
    for ax, place in zip(axes, places, strict=True):
        values = spots_of(ax).get_array()
        neighbors = table.obsp["spatial_connectivities"][[rows[place]]].indices
        shares = predicted.obsp[f"attribution_{GENE}"][[rows[place]]].toarray()[0]
        np.testing.assert_allclose(
            values[np.searchsorted(rows, neighbors)], shares[neighbors], rtol=1e-6, atol=0
        )
        own_tile = predicted.obsm[f"attribution_{GENE}"]["spot"].iloc[rows[place]]
        assert values[place] == pytest.approx(own_tile)
        assert (~np.ma.getmaskarray(np.ma.masked_invalid(values))).sum() == len(neighbors) + 1
        # all neighbours lie within the panel
        centers = spots_of(ax).get_offsets()[np.searchsorted(rows, neighbors)]
        assert (centers[:, 0] > ax.get_xlim()[0]).all()
        assert (centers[:, 0] < ax.get_xlim()[1]).all()


def test_models_on_pixels_show_tiles_and_their_pixels(on_pixels):
    axes = render(stp.pl.attribution(on_pixels, GENE))
    assert axes.shape == (2, 4)
    rows = rows_of(on_pixels, "S1")[10:14]
    maps = on_pixels.tables["predicted"].obsm[f"attribution_{GENE}"][rows].toarray()
    names = on_pixels.tables["table"].obs_names[rows]
    section = open_table(on_pixels).sections[0]
    for k, (above, below) in enumerate(axes.T):
        assert above.get_title() == names[k]
        assert below.get_title() == f"{GENE}: {maps[k].sum():+.2f}"
        shown = below.images[-1]
        np.testing.assert_allclose(shown.get_array(), maps[k].reshape(24, 24))
        center = np.array([np.mean(shown.get_extent()[:2]), np.mean(shown.get_extent()[2:])])
        np.testing.assert_allclose(center, section.centers_um[10 + k], atol=0.6)
        tile, grey = (image.get_array() for image in (above.images[0], below.images[0]))
        np.testing.assert_allclose(np.asarray(tile).mean(-1), grey, atol=1e-4)


def test_named_tiles_are_drawn(on_pixels):
    name = on_pixels.tables["table"].obs_names[rows_of(on_pixels, "S1")[15]]
    _, grid = plt.subplots(2, 1)
    axes = stp.pl.attribution(on_pixels, GENE, spots=[name], axes=grid)
    assert axes.shape == (2, 1)
    assert grid[0].get_title() == name


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gene": "null_001"}, KeyError, r"'null_001' was not attributed; .*: morphology_001: run"),
        ({"section": "S1"}, KeyError, "not attributed in all of the sections S1: run stp.tl.attr"),
        ({"section": "S9"}, ValueError, "section='S9' is not one of 'S1', 'S2'"),
        ({"spots": ["nowhere"]}, KeyError, "no spots 'nowhere' to draw; available: S2_"),
        ({"axes": []}, ValueError, "4 axes are needed, 0 given"),
    ],
)
def test_bad_arguments(sdata, options, error, message):
    gene = options.pop("gene", GENE)
    with pytest.raises(error, match=message):
        stp.pl.attribution(sdata, gene, **options)
    assert not plt.get_fignums()


def test_all_attributed_sections_are_drawn_one_per_row(sdata):
    model = stp.tl.fit_ridge(sdata, context="spot", embedding="X_colour")
    stp.tl.predict(sdata, model)
    stp.tl.attribute(sdata, model, GENE, n_steps=1)
    axes = stp.pl.attribution(sdata, GENE)
    assert [ax.get_title() for ax in axes[:, 0]] == ["S1: H&E", "S2: H&E"]
    assert len({id(spots_of(ax).norm) for ax in axes[:, 1]}) == 1


def test_without_predictions_an_error_is_raised(sdata):
    del sdata.tables["predicted"]
    with pytest.raises(KeyError, match=r"stp\.tl\.predict first"):
        stp.pl.attribution(sdata, GENE)
