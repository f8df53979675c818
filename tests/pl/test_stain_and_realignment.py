"""Pictures of stain normalisation and of realignment."""

from __future__ import annotations

import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import EllipseCollection
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import stpredict as stp
from helpers import scale_bars
from stpredict._sdata._spot_table import copy_of, open_table


@pytest.fixture(scope="module")
def stained():
    verbosity, stp.settings.verbosity = stp.settings.verbosity, 0
    sdata = stp.datasets.phantom(
        3, size_px=600, mpp=0.5, pitch_um=40.0, n_morphology=2, stain_variation=1.0
    )
    stp.pp.normalize_stain(sdata)
    stp.settings.verbosity = verbosity
    return sdata


class TestStain:
    def test_raw_on_the_left_and_normalised_on_the_right(self, stained):
        axes = stp.pl.stain(stained)
        assert axes.shape == (3, 2)
        assert [ax.get_title() for ax in axes[:, 0]] == [f"S{i}: raw" for i in (1, 2, 3)]
        assert [ax.get_title() for ax in axes[:, 1]] == [f"S{i}: normalised" for i in (1, 2, 3)]
        for ax, suffix in zip(axes[1], ("", "_normalized"), strict=True):
            image = np.asarray(stained.images[f"S2_image{suffix}"]["scale0"].ds["image"].data)
            (shown,) = ax.images
            left, right, bottom, top = (round(edge / 0.5) for edge in shown.get_extent())
            np.testing.assert_array_equal(
                shown.get_array(), image[:, top:bottom, left:right].transpose(1, 2, 0)
            )
        assert [len(scale_bars(ax)) for ax in axes.flat] == [1, 0] * 3

    def test_some_sections_on_axes_of_the_caller(self, stained):
        _, grid = plt.subplots(2, 2)
        axes = stp.pl.stain(stained, section=["S3", "S1"], axes=grid)
        assert axes.ravel().tolist() == grid.ravel().tolist()
        assert [ax.get_title()[:2] for ax in axes[:, 1]] == ["S3", "S1"]
        assert stp.pl.stain(stained, section="S2").shape == (2,)
        with pytest.raises(ValueError, match="6 axes are needed, 4 given"):
            stp.pl.stain(stained, axes=grid)

    def test_a_section_that_was_skipped(self, stained):
        sdata = copy_of(stained)
        del sdata.images["S2_image_normalized"]
        record = sdata.tables["table"].uns["stpredict"]["normalize_stain"]
        record["skipped"] = ["S2"]
        axes = stp.pl.stain(sdata)
        assert axes[1, 1].get_title() == "S2: unchanged"

    def test_an_image_is_read_once_for_both(self, stained):
        sdata = stained.subset(["S1", "S1_image"])
        transformations = get_transformation(sdata.images["S1_image"], get_all=True)
        pixels = np.asarray(sdata.images.pop("S1_image")["scale0"].ds["image"].data)
        read = []

        def decode(chunk, block_info=None):
            read.append(block_info[0]["chunk-location"])
            return chunk

        sdata.images["S1_image"] = Image2DModel.parse(
            da.from_array(pixels, chunks=(3, 100, 100)).map_blocks(decode, meta=np.empty(0, "u1")),
            dims=("c", "y", "x"),
            scale_factors=[2],
            transformations=transformations,
        )
        stp.pp.normalize_stain(sdata)
        read.clear()
        stp.pl.stain(sdata)
        assert read
        assert len(read) == len(set(read))

    def test_without_normalisation_an_error_is_raised(self, stained):
        sdata = stained.subset(["S1", "S1_image"])
        with pytest.raises(ValueError, match=r"run stp\.pp\.normalize_stain\(sdata\) first"):
            stp.pl.stain(sdata)

    def test_a_section_that_does_not_exist(self, stained):
        with pytest.raises(ValueError, match="section='S9' is not one of"):
            stp.pl.stain(stained, section=["S1", "S9"])
        with pytest.raises(ValueError, match="section= is empty"):
            stp.pl.stain(stained, section=[])


class TestRealignment:
    @pytest.fixture
    def misaligned(self):
        return stp.datasets.phantom(size_px=1600, misalignment_um=(60, -40), seed=2)

    def test_spots_before_and_after_and_the_score_of_shifts(self, misaligned):
        (before,) = (section.centers_um for section in open_table(misaligned).sections)
        stp.pp.realign(misaligned)
        (after,) = (section.centers_um for section in open_table(misaligned).sections)
        axes = stp.pl.realignment(misaligned)
        assert len(axes) == 2
        spots = [c for c in axes[0].collections if isinstance(c, EllipseCollection)]
        np.testing.assert_allclose(spots[0].get_offsets(), after)
        np.testing.assert_allclose(spots[1].get_offsets(), before, atol=1e-6)
        record = misaligned.tables["table"].uns["stpredict"]["realign"]["S1"]
        assert f"required {record['required']:.3f}" in axes[1].get_title()
        (surface,) = axes[1].images
        np.testing.assert_array_equal(surface.get_array(), record["surface"])
        # the brightest pixel lies where the selected shift is marked
        left, right, bottom, top = surface.get_extent()
        row, column = np.unravel_index(record["surface"].argmax(), record["surface"].shape)
        n = len(record["surface"])
        brightest = (
            left + (column + 0.5) * (right - left) / n,
            top + (row + 0.5) * (bottom - top) / n,
        )
        selected = axes[1].lines[-1].get_xydata()[0]
        np.testing.assert_allclose(selected, (after - before).mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(selected, brightest, atol=35)

    def test_a_given_shift_has_no_surface(self, misaligned):
        stp.pp.realign(misaligned, shift_um=(-60, 40))
        axes = stp.pl.realignment(misaligned)
        assert len(axes) == 1
        assert axes[0].get_title() == "S1: moved by 72 µm (median)"

    def test_without_realignment(self, misaligned):
        with pytest.raises(KeyError, match=r"not realigned: S1: run stp.pp.realign"):
            stp.pl.realignment(misaligned)
        stp.pp.realign(misaligned, shift_um=(1, 1))
        with pytest.raises(ValueError, match="1 axes are needed, 2 given"):
            stp.pl.realignment(misaligned, axes=plt.subplots(1, 2)[1])
