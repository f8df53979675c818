"""Pictures of tissue and tiles: position, pixels and colours."""

from __future__ import annotations

import copy

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata as sd
from matplotlib.collections import EllipseCollection
from matplotlib.contour import ContourSet
from spatialdata.models import Image2DModel
from spatialdata.transformations import Scale, get_transformation, set_transformation

import stpredict as stp
from helpers import scale_bars
from stpredict._sdata._spot_table import copy_of, open_table

MPP = 0.5


def colour(tiles):
    return tiles.mean((-2, -1))


@pytest.fixture(scope="module")
def two_sections():
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(
        2, size_px=(700, 1100), mpp=MPP, pitch_um=40.0, n_morphology=2, n_neighborhood=2, n_null=2,
        off_tissue=3,
    )  # fmt: skip
    stp.pp.detect_tissue(sdata)
    stp.pp.embed(sdata, colour, key_added="X_colour", tile_um=40, n_subtiles=3)
    stp.pp.neighbors(sdata)
    stp.settings.verbosity = verbosity
    return sdata


@pytest.fixture
def sdata(two_sections):
    return copy_of(two_sections)


@pytest.fixture
def one(two_sections):
    return copy_of(two_sections.subset(["S1", "S1_image", "S1_image_tissue"]))


def spots_of(ax):
    return [c for c in ax.collections if isinstance(c, EllipseCollection)]


def outline_of(ax):
    (contours,) = [c for c in ax.collections if isinstance(c, ContourSet)]
    return np.concatenate([path.vertices for path in contours.get_paths()])


class TestTissue:
    def test_spots_have_the_colour_of_their_share(self, one):
        ax = stp.pl.tissue(one)
        section = open_table(one).sections[0]
        (spots,) = spots_of(ax)
        np.testing.assert_allclose(spots.get_offsets(), section.centers_um)
        np.testing.assert_allclose(
            spots.get_array(), one.tables["table"].obs["tissue_fraction"].to_numpy()
        )
        assert spots.get_clim() == (0, 1)
        (bar,) = ax.child_axes
        assert bar.get_ylabel() == "tissue under the spot (share)"

    def test_axes_are_in_um_and_rows_count_downwards(self, one):
        ax = stp.pl.tissue(one)
        assert len(scale_bars(ax)) == 1
        assert not ax.get_xticks().size
        assert ax.get_aspect() == 1
        bottom, top = ax.get_ylim()
        assert bottom > top
        assert ax.get_title().startswith("S1: ")

    def test_the_outline_lies_on_the_image(self, one):
        labels = one.labels["S1_image_tissue"]
        labels.data[:] = 0
        height, width = labels.shape
        labels.data[height // 4 : height // 2, width // 8 : width // 4] = 1
        outline = outline_of(stp.pl.tissue(one, section="S1"))
        um = 550 / width  # 1100 px of 0.5 µm
        np.testing.assert_allclose(outline.min(axis=0), [550 / 8, 350 / 4], atol=um)
        np.testing.assert_allclose(outline.max(axis=0), [550 / 4, 350 / 2], atol=um)

    def test_the_image_has_its_own_pixels(self, one):
        image = np.asarray(one.images["S1_image"]["scale0"].ds["image"].data).transpose(1, 2, 0)
        (shown,) = stp.pl.tissue(one).images
        left, right, bottom, top = (round(end / MPP) for end in shown.get_extent())
        np.testing.assert_array_equal(shown.get_array(), image[top:bottom, left:right])

    def test_spots_with_unknown_share_are_outlined(self, one):
        del one.tables["table"].obs["tissue_fraction"]
        ax = stp.pl.tissue(one)
        (spots,) = spots_of(ax)
        assert spots.get_array() is None
        assert len(spots.get_facecolor()) == 0
        assert not ax.child_axes

    def test_an_image_without_spots(self, one):
        alone = one.subset(["S1_image", "S1_image_tissue"])
        for ax in (stp.pl.tissue(alone), stp.pl.tissue(alone, section="S1_image")):
            assert not spots_of(ax)
            assert len(outline_of(ax)) > 10

    def test_one_section_or_all(self, sdata):
        assert stp.pl.tissue(sdata, section="S2").get_title().startswith("S2: ")
        assert stp.pl.tissue(sdata, section="S2_image").get_title().startswith("S2: ")
        axes = stp.pl.tissue(sdata)
        assert [ax.get_title()[:4] for ax in axes] == ["S1: ", "S2: "]
        names = ["S1_image", "S2_image"]
        images = sdata.subset([*names, *(f"{name}_tissue" for name in names)])
        assert len(stp.pl.tissue(images)) == 2
        with pytest.raises(ValueError, match="2 axes are needed, 1 given"):
            stp.pl.tissue(sdata, ax=plt.subplots()[1])

    def test_colours_and_size_of_the_spots_can_be_chosen(self, one, tmp_path):
        path = tmp_path / "tissue.png"
        ax = stp.pl.tissue(one, cmap="magma", vmin=0.5, spot_size=10, alpha=1, save=path)
        (spots,) = spots_of(ax)
        assert spots.get_cmap().name == "magma"
        assert spots.get_clim() == (0.5, 1)
        np.testing.assert_allclose(spots._widths * 2, 10)
        assert path.exists()

    def test_a_size_must_be_positive(self, one):
        with pytest.raises(ValueError, match="spot_size must be a number above 0"):
            stp.pl.tissue(one, spot_size=0)

    def test_axes_of_the_caller_are_used(self, one):
        _, ax = plt.subplots()
        assert stp.pl.tissue(one, ax=ax) is ax
        assert len(plt.get_fignums()) == 1

    def test_a_large_image_is_not_loaded_whole(self, one):
        chunk_shapes = []

        def chunk(block_info=None):
            shape = block_info[None]["chunk-shape"]
            chunk_shapes.append(shape)
            return np.full(shape, 230, dtype=np.uint8)

        chunks = ((3,), (1000,) * 8, (1000,) * 8)
        image = da.map_blocks(chunk, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), "u1"))
        large = sd.SpatialData(
            labels={"S1_image_tissue": copy.deepcopy(one.labels["S1_image_tissue"])}
        )
        to_um = Scale([MPP, MPP], axes=("x", "y"))
        large.images["S1_image"] = Image2DModel.parse(
            image, dims=("c", "y", "x"), transformations={"S1_um": to_um}
        )
        factor = 8000 / one.labels["S1_image_tissue"].shape[0] * MPP
        set_transformation(
            large.labels["S1_image_tissue"], Scale([factor, factor], axes=("x", "y")), "S1_um"
        )
        (shown,) = stp.pl.tissue(large).images
        assert max(shown.get_array().shape) <= 1500

    @pytest.mark.parametrize(
        ("section", "deleted", "message"),
        [
            ("S9", None, "no section or image 'S9'; sections: S1"),
            (None, "S1_image_tissue", r"no labels 'S1_image_tissue'.*stp\.pp\.detect_tissue"),
        ],
    )
    def test_bad_input(self, one, section, deleted, message):
        if deleted:
            del one[deleted]
        with pytest.raises(KeyError, match=message):
            stp.pl.tissue(one, section=section)

    def test_an_image_of_unknown_resolution(self, one):
        alone = one.subset(["S1_image", "S1_image_tissue"])
        before = get_transformation(alone.images["S1_image"], get_all=True)
        set_transformation(
            alone.images["S1_image"], {"px": Scale([1, 1], ("x", "y"))}, set_all=True
        )
        with pytest.raises(
            ValueError, match=r"stp\.io\.register_um\(sdata, 'S1', image='S1_image'"
        ):
            stp.pl.tissue(alone)
        set_transformation(alone.images["S1_image"], before, set_all=True)

    def test_another_object_is_refused(self):
        with pytest.raises(TypeError, match="sdata must be a SpatialData"):
            stp.pl.tissue(None)


class TestTiles:
    def test_tiles_are_the_input_of_the_encoder(self, one):
        table, section = one.tables["table"], open_table(one).sections[0]
        image = np.asarray(one.images["S1_image"]["scale0"].ds["image"].data)
        names = list(table.obs_names[[40, 3]])
        axes = stp.pl.tiles(one, spots=names)
        assert axes.shape == (2, 2)
        assert [ax.get_title() for ax in axes[0]] == names
        for ax, row in zip(axes[0], (40, 3), strict=True):
            (shown,) = ax.images
            pixels = shown.get_array()
            assert pixels.shape == (80, 80, 3)  # 40 µm at 0.5
            x, y = np.rint(section.centers[row] - 40).astype(int)
            np.testing.assert_array_equal(
                pixels.transpose(2, 0, 1), image[:, y : y + 80, x : x + 80]
            )
            left, right, bottom, top = shown.get_extent()
            np.testing.assert_allclose(
                [left, right, bottom, top], np.array([x, x + 80, y + 80, y]) / 2
            )
            # the encoder of this test computes the mean
            np.testing.assert_allclose(
                pixels.mean((0, 1)) / 255, table.obsm["X_colour"][row], atol=1e-5
            )

    def test_spots_that_are_no_valid_formula_are_named(self, one):
        table = one.tables["table"]
        table.obs_names = [rf"$\no{{{name}$" for name in table.obs_names]
        stp.pl.tiles(one, n=1)[0, 0].figure.canvas.draw()

    def test_tiles_of_a_normalised_stain_are_normalised(self, one):
        before = stp.pl.tiles(one, n=1)[0, 0].images[0].get_array()
        stp.pp.normalize_stain(one)
        # the embedding was computed from raw images
        np.testing.assert_array_equal(stp.pl.tiles(one, n=1)[0, 0].images[0].get_array(), before)
        stp.pp.embed(one, colour, key_added="X_colour", tile_um=40)
        pixels = stp.pl.tiles(one, n=1)[0, 0].images[0].get_array()
        assert (pixels != before).any()
        row = one.tables["table"].obs_names.get_loc(stp.pl.tiles(one, n=1)[0, 0].get_title())
        np.testing.assert_allclose(
            pixels.mean((0, 1)) / 255, one.tables["table"].obsm["X_colour"][row], atol=1e-5
        )

    def test_lines_split_it_into_subtiles(self, one):
        axes = stp.pl.tiles(one, n=1)
        ax = axes[0, 0]
        left, right, _, _ = ax.images[0].get_extent()
        vertical = sorted({line.get_xdata()[0] for line in ax.lines} - {0, 1})
        # 80 px are 3 × 26 and 2 more, cut off at both borders
        np.testing.assert_allclose(vertical, left + (right - left) * np.array([27, 53]) / 80)
        stp.pp.embed(one, colour, key_added="X_colour", tile_um=40, n_subtiles=1)
        assert not stp.pl.tiles(one, n=1)[0, 0].lines

    def test_neighbours_are_outlined(self, one):
        table, section = one.tables["table"], open_table(one).sections[0]
        ax = stp.pl.tiles(one, spots=[table.obs_names[40]])[1, 0]
        around = table.obsp["spatial_connectivities"][[40]].nonzero()[1]
        squares = [np.array(patch.get_center()) for patch in ax.patches]
        np.testing.assert_allclose(squares[:-1], section.centers_um[around])
        np.testing.assert_allclose(squares[-1], section.centers_um[40])
        assert {patch.get_width() for patch in ax.patches} == {40}
        assert ax.get_title() == f"{len(around)} neighbours"
        bottom, top = ax.get_ylim()
        assert bottom > top

    def test_without_a_graph_there_are_no_neighbours(self, one):
        del one.tables["table"].obsp["spatial_connectivities"]
        ax = stp.pl.tiles(one, n=1)[1, 0]
        assert len(ax.patches) == 1

    def test_sections_and_neighbours_are_not_mixed_up(self, sdata):
        table = sdata.tables["table"]
        row = int(np.flatnonzero(table.obs["region"] == "S2")[20])
        ax = stp.pl.tiles(sdata, section="S2", spots=[table.obs_names[row]])[1, 0]
        assert len(ax.patches) == table.obsp["spatial_connectivities"][[row]].nnz + 1

    def test_each_section_has_two_rows(self, sdata):
        axes = stp.pl.tiles(sdata, n=3)
        assert axes.shape == (4, 3)
        names = [[ax.get_title()[:2] for ax in row] for row in axes[::2]]
        assert names == [["S1"] * 3, ["S2"] * 3]

    def test_named_spots_may_lie_in_different_sections(self, sdata):
        names = list(sdata.tables["table"].obs_names[[-1, 0]])
        axes = stp.pl.tiles(sdata, spots=names)
        assert axes.shape == (2, 2)
        assert [ax.get_title() for ax in axes[0]] == names

    def test_the_number_of_spots_can_be_chosen(self, one):
        assert stp.pl.tiles(one, n=3).shape == (2, 3)
        assert stp.pl.tiles(one).shape == (2, 4)

    def test_axes_of_the_caller_are_used(self, one):
        _, grid = plt.subplots(2, 2)
        axes = stp.pl.tiles(one, n=2, axes=grid)
        assert list(axes.ravel()) == list(grid.ravel())
        with pytest.raises(ValueError, match="6 axes are needed, 4 given"):
            stp.pl.tiles(one, n=3, axes=grid)

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"section": "S9"}, ValueError, "section='S9' is not one of 'S1'"),
            ({"spots": ["nobody"]}, KeyError, "no spots 'nobody' to draw; available: S1_"),
            ({"embedding": "X_uni"}, KeyError, "no embedding 'X_uni'; embeddings: X_col"),
            ({"n": 0}, ValueError, "n must be a whole number of at least 1: 0"),
        ],
    )
    def test_bad_options(self, one, options, error, message):
        with pytest.raises(error, match=message):
            stp.pl.tiles(one, **options)

    def test_several_embeddings_or_none(self, one):
        stp.pp.embed(one, colour, key_added="X_wide", tile_um=60, n_subtiles=1)
        with pytest.raises(ValueError, match=r"2 embeddings \(X_colour, X_wide\), choose one"):
            stp.pl.tiles(one)
        assert stp.pl.tiles(one, n=1, embedding="X_wide")[1, 0].patches[-1].get_width() == 60
        del one.tables["table"].obsm["X_colour"]
        del one.tables["table"].obsm["X_wide"]
        with pytest.raises(KeyError, match=r"run stp\.pp\.embed first"):
            stp.pl.tiles(one)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", IsADirectoryError, "is a folder: give the name of a file"),
        ("new/", IsADirectoryError, "is a folder"),
        ("absent/tissue.png", FileNotFoundError, "its folder does not exist"),
        ("tissue.abc", ValueError, "save='.*tissue.abc' has an unknown format: use .*png"),
    ],
)
def test_a_figure_that_cannot_be_saved_is_refused(tmp_path, name, error, message):
    sdata = stp.datasets.phantom(size_px=300)
    stp.pp.detect_tissue(sdata)
    with pytest.raises(error, match=message):
        stp.pl.tissue(sdata, save=f"{tmp_path}/{name}")
    assert not list(tmp_path.iterdir())


def test_an_empty_list_of_sections_and_an_absent_table_are_refused():
    sdata = stp.datasets.phantom(size_px=300)
    stp.pp.detect_tissue(sdata)
    with pytest.raises(ValueError, match="section= is empty"):
        stp.pl.tissue(sdata, section=[])
    with pytest.raises(KeyError, match="no 'absent'; available: table"):
        stp.pl.tissue(sdata, table_name="absent")
