"""Legacy Spatial Transcriptomics, read from small files written here."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image

import stpredict as stp
from stpredict._sdata._spot_table import open_table


def random_pixels(height=200, width=260, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)


def only_section(sdata):
    (section,) = open_table(sdata).sections
    return section


def png(path, pixels):
    Image.fromarray(pixels).save(path)


PITCH_PX = 20.0  # of 200 µm: 10 µm per pixel


class Legacy:
    """Files of one section: a grid of 10 x 8 spots, whose first column has no counts."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.counts, self.image = folder / "A1.tsv.gz", folder / "A1.png"
        self.spots_file = folder / "A1_selection.tsv"
        x, y = (axis.ravel() for axis in np.meshgrid(np.arange(3, 13), np.arange(5, 13)))
        jitter = rng.normal(0, 0.02, (2, len(x)))
        self.spots = pd.DataFrame(
            {
                "x": x,
                "y": y,
                "new_x": (x + jitter[0]).round(3),
                "new_y": (y + jitter[1]).round(3),
                "pixel_x": ((x + jitter[0] - 1) * PITCH_PX).round(2),
                "pixel_y": ((y + jitter[1] - 4) * PITCH_PX).round(2),
                "selected": 1,
            }
        )
        named = self.spots.index[10:]
        self.table = pd.DataFrame(
            rng.poisson(2.0, (len(named), 4)),
            index=[f"{x[i]}x{y[i]}" for i in named],
            columns=["ERBB2", "CD74", "KRT5", "ACTB"],
        ).sample(frac=1, random_state=1)  # in no order, as in the real files

    def read(self, **options):
        self.table.to_csv(self.counts, sep="\t")
        self.spots.to_csv(self.spots_file, sep="\t", index=False)
        png(self.image, random_pixels(180, 260))
        return stp.io.read_st(self.counts, self.image, self.spots_file, section="A1", **options)


@pytest.fixture
def legacy(tmp_path):
    return Legacy(tmp_path)


def test_counts_positions_and_scale_are_read(legacy):
    sdata = legacy.read(patient="A")
    table = sdata.tables["table"]
    assert set(sdata.images) == {"A1_image"}
    assert list(sdata.shapes) == ["A1"]
    assert list(table.obs_names) == [f"A1_{name}" for name in legacy.table.index]
    np.testing.assert_array_equal(table.X.toarray(), legacy.table.to_numpy())
    assert table.X.dtype == np.float32
    assert sp.isspmatrix_csr(table.X)
    assert (table.obs["patient"] == "A").all()
    assert list(table.obs["array_x"].astype(str) + "x" + table.obs["array_y"].astype(str)) == list(
        legacy.table.index
    )
    section = only_section(sdata)
    assert section.mpp == pytest.approx(10, rel=0.005)
    np.testing.assert_allclose(section.radius_um, 50)
    placed = legacy.spots.set_index(
        legacy.spots["x"].astype(str) + "x" + legacy.spots["y"].astype(str)
    ).loc[legacy.table.index]
    np.testing.assert_allclose(section.centers, placed[["pixel_x", "pixel_y"]])


def test_pitch_and_diameter_can_be_set(legacy):
    section = only_section(legacy.read(pitch_um=100, diameter_um=55))
    assert section.mpp == pytest.approx(5, rel=0.005)
    np.testing.assert_allclose(section.radius_um, 27.5)


def test_patient_and_adjusted_positions_are_optional(legacy):
    legacy.spots = legacy.spots.drop(columns=["new_x", "new_y", "selected"])
    sdata = legacy.read()
    assert "patient" not in sdata.tables["table"].obs
    assert only_section(sdata).mpp == pytest.approx(10, rel=0.01)


def test_counts_need_not_be_compressed(legacy):
    sdata = legacy.read()
    plain = legacy.counts.with_suffix("")
    plain.write_bytes(gzip.decompress(legacy.counts.read_bytes()))
    again = stp.io.read_st(plain, str(legacy.image), legacy.spots_file, section="A1")
    assert (again.tables["table"].X != sdata.tables["table"].X).nnz == 0


def test_misplaced_spots_do_not_change_the_scale(legacy):
    legacy.spots.loc[[3, 40, 77], ["pixel_x", "pixel_y"]] = [[250, 5], [1, 170], [8, 9]]
    assert only_section(legacy.read()).mpp == pytest.approx(10, rel=0.01)


def test_a_mirrored_image_has_the_same_scale(legacy):
    legacy.spots["pixel_x"] = 255 - legacy.spots["pixel_x"]
    assert only_section(legacy.read()).mpp == pytest.approx(10, rel=0.005)


def test_different_pitches_in_x_and_y_are_logged(legacy, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    legacy.read()
    assert "pitch" not in capsys.readouterr().out
    legacy.spots["pixel_x"] *= 1.1
    section = only_section(legacy.read())
    output = capsys.readouterr().out
    assert "A1: the spot pitch is 22.0 px in x and 20.0 px in y" in output
    assert section.mpp == pytest.approx(10 / np.sqrt(1.1), rel=0.005)


def test_unselected_spots_are_left_out(legacy, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    legacy.spots.loc[legacy.spots["x"] == 5, "selected"] = 0
    table = legacy.read().tables["table"]
    assert table.n_obs == 70 - 7
    assert 5 not in set(table.obs["array_x"])
    assert "A1: 7 of 70 spots have no selected position and are left out" in capsys.readouterr().out


def test_unselected_spots_may_lie_outside_the_image(legacy):
    legacy.spots.loc[0, ["pixel_x", "pixel_y", "selected"]] = [-900, 9000, 0]
    assert only_section(legacy.read()).mpp == pytest.approx(10, rel=0.01)


def spoil_columns(files):
    files.spots = files.spots.drop(columns=["pixel_y"])


def spoil_duplicated_positions(files):
    files.spots = pd.concat([files.spots, files.spots.iloc[[20]]])


def spoil_duplicated_counts(files):
    files.table = pd.concat([files.table, files.table.loc[["7x8"]]])


def spoil_no_common(files):
    files.table.index = [f"spot{i}" for i in range(len(files.table))]


def spoil_one_row(files):
    files.spots = files.spots[files.spots["y"] == 8]
    files.spots["new_y"] = 8.0


def spoil_negative(files):
    files.table.iloc[3, 2] = -1


def spoil_nan(files):
    files.table = files.table.astype(float)
    files.table.iloc[[3, 5], 2] = np.nan


def spoil_outside(files):
    files.spots.loc[30, "pixel_x"] = 261


def spoil_nan_position(files):
    files.spots.loc[30, "pixel_x"] = np.nan


def spoil_all_unselected(files):
    files.spots["selected"] = 0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_columns, "A1_selection.tsv has no pixel_y; it has .*pixel_x"),
        (
            spoil_duplicated_positions,
            "ids in .*A1_selection.tsv are not unique, repeated: 3x7",
        ),
        (spoil_duplicated_counts, "spot ids of section 'A1' are not unique, repeated: 7x8"),
        (spoil_no_common, "'A1': no spot of .*A1.tsv.gz has a selected position .* ids are spot0"),
        (spoil_all_unselected, "no spot of .* has a selected position .* and none$"),
        (spoil_one_row, "'A1': the spot file has fewer than two array positions in y"),
        (spoil_negative, "values of section 'A1' .* 0 values are NaN .* 1 are negative"),
        (spoil_nan, "values of section 'A1' .* 2 values are NaN or infinite and 0 are negative"),
        (spoil_outside, r"1 of 70 spots of section 'A1' .* image of 260 × 180 px.* x=261"),
        (spoil_nan_position, "1 of 70 spots of section 'A1' have NaN positions.* x=nan"),
    ],
)
def test_bad_files_raise(legacy, spoil, message):
    spoil(legacy)
    with pytest.raises(ValueError, match=message):
        legacy.read()


@pytest.mark.parametrize("adjusted", [True, False])
def test_swapped_pixel_columns_raise(legacy, adjusted):
    if not adjusted:
        legacy.spots = legacy.spots.drop(columns=["new_x", "new_y"])
    swapped = {"pixel_x": "pixel_y", "pixel_y": "pixel_x"}
    legacy.spots = legacy.spots.rename(columns=swapped)
    with pytest.raises(ValueError, match=r"'A1': pixel_x does not follow x .* pixel_y swapped"):
        legacy.read()


def test_shuffled_positions_raise(legacy):
    legacy.spots["pixel_y"] = legacy.spots["pixel_y"].sample(frac=1, random_state=0).to_numpy()
    with pytest.raises(
        ValueError, match=r"'A1': pixel_y does not follow y of the array, .* px off"
    ):
        legacy.read()


def test_a_slightly_rotated_image_is_read(legacy):
    x, y = legacy.spots["pixel_x"].copy(), legacy.spots["pixel_y"].copy()
    legacy.spots["pixel_x"] = x - 0.035 * y + 10  # 2°
    legacy.spots["pixel_y"] = y + 0.035 * x
    assert only_section(legacy.read()).mpp == pytest.approx(10, rel=0.01)


def test_spots_without_a_position_in_the_image_can_be_dropped(legacy):
    legacy.spots.loc[[30, 31], "pixel_x"] = [np.nan, 261]
    sdata = legacy.read(outside="drop")
    table = sdata.tables["table"]
    assert table.n_obs == 68
    names = (legacy.spots["x"].astype(str) + "x" + legacy.spots["y"].astype(str))[[30, 31]]
    assert set(table.uns["stpredict"]["outside_image"]["A1"]) == set(names)
    assert only_section(sdata).mpp == pytest.approx(10, rel=0.01)


def test_a_damaged_counts_file_is_named(legacy):
    legacy.read()
    content = legacy.counts.read_bytes()
    legacy.counts.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"A1.tsv.gz cannot be read \(EOFError"):
        stp.io.read_st(legacy.counts, legacy.image, legacy.spots_file, section="A1")


@pytest.mark.parametrize(("column", "file"), [("ERBB2", "A1.tsv.gz"), ("pixel_x", "selection")])
def test_text_instead_of_numbers_raises(legacy, column, file):
    table = legacy.table if column == "ERBB2" else legacy.spots
    table[column] = "many"
    with pytest.raises(TypeError, match=f"column '{column}' of .*{file}.* must have numbers"):
        legacy.read()


@pytest.mark.parametrize("options", [{"pitch_um": 0}, {"diameter_um": -1.0}])
def test_bad_options_raise(legacy, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be a number above 0"):
        legacy.read(**options)


def test_a_missing_image_raises(legacy):
    legacy.read()
    legacy.image.unlink()
    with pytest.raises(FileNotFoundError, match=r"no such file: .*A1\.png"):
        stp.io.read_st(legacy.counts, legacy.image, legacy.spots_file, section="A1")
