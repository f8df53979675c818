"""The EL Hackathon's HDF5 file, written here in its published layout."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest
import spatialdata as sd

import stpredict as stp
from stpredict._sdata._spot_table import open_table

CELL_TYPES = [f"C{i}" for i in range(1, 36)]
PITCH_PX = 14.0


def pixels(slide):
    return np.random.default_rng(int(slide[2:])).integers(0, 255, (180, 240, 3), dtype=np.uint8)


def positions():
    """Hexagonal grid in whole pixels, wider than high, so that x and y cannot be swapped."""
    row, column = (axis.ravel() for axis in np.mgrid[:12, :15])
    x = 10 + PITCH_PX * (column + 0.5 * (row % 2))
    return np.rint(np.column_stack([x, 10 + PITCH_PX * np.sqrt(3) / 2 * row])).astype(int)


def spots(slide, *, fields=CELL_TYPES):
    xy = positions()
    random = np.random.default_rng(100 + int(slide[2:]))
    table = np.zeros(len(xy), dtype=[("x", "i8"), ("y", "i8"), *((name, "f8") for name in fields)])
    table["x"], table["y"] = xy.T
    for name in fields:
        table[name] = random.gamma(1.0, 1.0, len(xy))
    return table


def write(path, *, change=None):
    with h5py.File(path, "w") as file:
        for slide in ("S_1", "S_2", "S_10"):
            file[f"images/Train/{slide}"] = pixels(slide)
            file[f"spots/Train/{slide}"] = spots(slide)
        test = spots("S_7", fields=["Test_Set"])
        test["Test_Set"] = 1
        file["images/Test/S_7"] = pixels("S_7")
        file["spots/Test/S_7"] = test
        if change:
            change(file)
    return path


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "hackathon.h5")


def test_training_slides_are_read(path):
    sdata = stp.io.read_hackathon(path)
    table = sdata.tables["table"]
    assert list(sdata.shapes) == ["S_1", "S_2", "S_10"]
    assert set(sdata.images) == {"S_1_image", "S_2_image", "S_10_image"}
    assert list(table.var_names) == CELL_TYPES
    for section in open_table(sdata).sections:
        written = spots(section.name)
        expected = np.column_stack([written[name] for name in CELL_TYPES])
        for values in (table.X, table.layers["abundance"]):
            assert values.dtype == np.float32
            np.testing.assert_allclose(values[section.rows].toarray(), expected, rtol=1e-6)
        np.testing.assert_array_equal(section.centers, positions())
        np.testing.assert_allclose(section.radius_um, 27.5)
        assert section.mpp == pytest.approx(100 / PITCH_PX, rel=0.005)
        np.testing.assert_array_equal(
            section.levels[0].compute(), pixels(section.name).transpose(2, 0, 1)
        )


def test_layers_do_not_share_values(path):
    table = stp.io.read_hackathon(path, slides=["S_1"]).tables["table"]
    table.layers["abundance"].data[:] = 0
    assert table.X.sum() > 0


def test_test_slides_have_no_columns(path):
    sdata = stp.io.read_hackathon(path, split="test")
    table = sdata.tables["table"]
    assert table.shape == (len(positions()), 0)
    assert list(table.obs["Test_Set"].unique()) == [1]
    assert list(sdata.shapes) == ["S_7"]


def test_slides_scale_and_patients_can_be_set(path):
    sdata = stp.io.read_hackathon(
        path, slides=["S_10", "S_1"], mpp=7.5, diameter_um=60, patients={"S_1": "P1"}
    )
    sections = open_table(sdata).sections
    assert [section.name for section in sections] == ["S_10", "S_1"]
    assert [section.mpp for section in sections] == [7.5, 7.5]
    np.testing.assert_allclose(sections[0].radius_um, 30)
    assert list(sdata.tables["table"].obs["patient"].unique()) == ["S_10", "P1"]


def test_the_derived_scale_is_logged(path, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    sdata = stp.io.read_hackathon(path, slides=["S_1"], pitch_um=200)
    assert open_table(sdata).sections[0].mpp == pytest.approx(200 / PITCH_PX, rel=0.005)
    output = capsys.readouterr().out
    assert (
        "S_1: neighbouring spots are 14.0 px apart; at 200 µm that is 14.3 µm per pixel" in output
    )


def mean_colour(tiles):
    return tiles.mean((-2, -1))


@pytest.mark.parametrize("split", ["train", "test"])
def test_slides_are_embedded_after_a_round_trip_through_zarr(path, tmp_path, split):
    sdata = stp.io.read_hackathon(path, split=split)
    sdata.write(tmp_path / "a.zarr")
    path.unlink()  # the file is not needed any more
    back = sd.read_zarr(tmp_path / "a.zarr")
    table, read = sdata.tables["table"], back.tables["table"]
    assert read.shape == table.shape
    assert (read.X != table.X).nnz == 0
    assert (read.layers["abundance"] != table.layers["abundance"]).nnz == 0
    stp.pp.embed(back, mean_colour, key_added="X_colour", tile_um=100, n_subtiles=1)
    assert read.obsm["X_colour"].shape == (table.n_obs, 3)
    assert np.isfinite(read.obsm["X_colour"]).all()


def test_a_model_of_abundances_predicts_test_slides(path):
    train = stp.io.read_hackathon(path)
    test = stp.io.read_hackathon(path, split="test")
    stp.pp.filter_spots(train, min_counts=0)
    stp.pp.embed(train, mean_colour, key_added="X_colour", tile_um=100, n_subtiles=1)
    stp.pp.neighbors(train)
    model = stp.tl.fit_deepspot(
        train,
        embedding="X_colour",
        layer="abundance",
        genes=CELL_TYPES,
        context="spot_neighbors",
        network=stp.tl.DeepSpotNetwork(n_hidden=4, n_phi=1, n_rho=1, n_networks=1),
        schedule=stp.training.Schedule(max_epochs=1),
    )
    assert model.units == "abundance"
    stp.pp.filter_spots(test, min_counts=0)
    stp.pp.prepare(test, model, encoder=mean_colour)
    stp.tl.predict(test, model)
    predicted = test.tables["predicted"]
    assert list(predicted.var_names) == CELL_TYPES
    assert predicted.n_obs == test.tables["table"].n_obs
    assert np.isfinite(predicted.X).all()


def test_images_are_read_by_window(path):
    image = stp.io.read_hackathon(path, slides=["S_1"]).images["S_1_image"]["scale0"]["image"].data
    window = pickle.loads(pickle.dumps(image))[:, 100:110, 200:220]  # as for another process
    np.testing.assert_array_equal(
        window.compute(), pixels("S_1")[100:110, 200:220].transpose(2, 0, 1)
    )
    with h5py.File(path, "a") as file:  # no handle was left open
        file["written"] = 1


@pytest.mark.filterwarnings("ignore:the sections of tables:UserWarning")
def test_training_and_test_slides_cannot_be_combined(path):
    parts = [stp.io.read_hackathon(path, split=split) for split in ("train", "test")]
    with pytest.raises(ValueError, match="some sections have a table without genes"):
        stp.io.concat(parts)


# --- bad files ------------------------------------------------------------------------------------


def no_images(file):
    del file["images"]


def no_training_spots(file):
    del file["spots/Train"]


def no_slides(file):
    for slide in list(file["spots/Train"]):
        del file[f"spots/Train/{slide}"]


def an_image_is_missing(file):
    del file["images/Train/S_2"]


def replace(file, name, values):
    del file[name]
    file[name] = values


def plain_spots(file):
    replace(file, "spots/Train/S_2", np.zeros((5, 37)))


def no_y(file):
    table = spots("S_2")
    replace(file, "spots/Train/S_2", table[["x", *CELL_TYPES]].copy())


def no_abundances(file):
    replace(file, "spots/Train/S_2", spots("S_2", fields=["Test_Set"]))


def other_cell_types(file):
    replace(file, "spots/Train/S_2", spots("S_2", fields=[*CELL_TYPES[:-1], "C36"]))


def swapped(file):
    table = spots("S_2")
    table["x"], table["y"] = table["y"].copy(), table["x"].copy()
    replace(file, "spots/Train/S_2", table)


def beyond_the_image(file):
    table = spots("S_2")
    table["x"] += 100
    replace(file, "spots/Train/S_2", table)


def a_missing_value(file):
    table = spots("S_2")
    table["C5"][3] = np.nan
    replace(file, "spots/Train/S_2", table)


def a_negative_value(file):
    table = spots("S_2")
    table["C5"][3] = -1
    replace(file, "spots/Train/S_2", table)


def scattered(file):
    table = spots("S_2")
    random = np.random.default_rng(0)
    table["x"], table["y"] = random.integers(0, 180, (2, len(table)))
    replace(file, "spots/Train/S_2", table)


def no_spots(file):
    replace(file, "spots/Train/S_2", spots("S_2")[:0])


def two_spots(file):
    replace(file, "spots/Train/S_2", spots("S_2")[:2])


def grey(file):
    replace(file, "images/Train/S_2", pixels("S_2")[..., 0])


def wide_floats(file):
    replace(file, "images/Train/S_2", np.minimum(pixels("S_2") / 100, 2))


def nan_floats(file):
    values = pixels("S_2") / 255
    values[3, 3, 0] = np.nan
    replace(file, "images/Train/S_2", values)


def text_for_x(file):
    table = spots("S_2")
    fields = [("x", "S5"), *((name, table.dtype[name]) for name in table.dtype.names[1:])]
    replace(file, "spots/Train/S_2", table.astype(fields))


def text_for_an_abundance(file):
    table = spots("S_2")
    fields = [(name, "S5" if name == "C1" else table.dtype[name]) for name in table.dtype.names]
    replace(file, "spots/Train/S_2", table.astype(fields))


def several_values(file):
    table = spots("S_2")
    fields = [(name, ("f8", 2) if name == "C1" else "f8") for name in table.dtype.names]
    replace(file, "spots/Train/S_2", np.zeros(len(table), dtype=fields))


def a_group_for_spots(file):
    del file["spots/Train/S_2"]
    file["spots/Train/S_2/x"] = np.zeros(5)


def a_dataset_for_a_group(file):
    replace(file, "spots/Train", np.zeros(5))


def a_broken_link(file):
    del file["images/Train/S_2"]
    file["images/Train/S_2"] = h5py.SoftLink("/nowhere")


def far_away(file):
    table = spots("S_2")
    table["x"][3] = 2**62
    replace(file, "spots/Train/S_2", table)


def an_image_without_pixels(file):
    del file["images/Train/S_2"]
    file.create_dataset("images/Train/S_2", (600_000, 600_000, 3), "u1", chunks=(999, 999, 3))


def a_name_with_a_space(file):
    file.move("spots/Train/S_2", "spots/Train/S 2")
    file.move("images/Train/S_2", "images/Train/S 2")


def a_group_for_an_image(file):
    del file["images/Train/S_2"]
    file["images/Train/S_2/level0"] = pixels("S_2")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (no_images, ValueError, "has no group 'images/Train'"),
        (no_training_spots, ValueError, "has no group 'spots/Train'"),
        (no_slides, ValueError, "no slides to read"),
        (an_image_is_missing, KeyError, "images/Train has no S_2; it has S_1, S_10"),
        (plain_spots, ValueError, "spots/Train/S_2 of .* is not a table of spots, but <HDF5"),
        (no_y, ValueError, "spots/Train/S_2 has no y; it has x, C1, C2"),
        (no_abundances, ValueError, "'S_2' has no abundances C1, C2"),
        (other_cell_types, ValueError, "'S_1' and 'S_2' differ in their cell types: C35, C36"),
        (swapped, ValueError, "'S_2' .* image of 240 × 180 px .* Are x and y swapped"),
        (
            beyond_the_image,
            ValueError,
            "spots of section 'S_2' .* lie outside the image of 240 × 180",
        ),
        (a_missing_value, ValueError, "values of section 'S_2' .* 1 values are NaN"),
        (a_negative_value, ValueError, "values of section 'S_2' .* 1 are negative"),
        (scattered, ValueError, "spots of slide 'S_2' are not on a grid: .* px apart. Set mpp="),
        (no_spots, ValueError, "section 'S_2' has no spots"),
        (two_spots, ValueError, "'S_2' has 2 spots, too few to derive .* Set mpp="),
        (grey, ValueError, r"images/Train/S_2 of .*h5 has shape \(180, 240\) and dtype uint8"),
        (wide_floats, ValueError, r"S_2 of .* values from 0 to 2. Convert it to 8-bit RGB, or to"),
        (nan_floats, ValueError, r"S_2 of .* values from nan to nan. Convert it to 8-bit RGB"),
        (text_for_x, TypeError, "column 'x' of spots/Train/S_2 must have numbers, not 10, 24"),
        (text_for_an_abundance, TypeError, "column 'C1' of spots/Train/S_2 must have numbers"),
        (several_values, ValueError, "spots/Train/S_2 have several values per spot: C1"),
        (a_group_for_spots, ValueError, "spots/Train/S_2 of .* is not a table of spots, but <HDF5"),
        (a_dataset_for_a_group, ValueError, "has no group 'spots/Train'"),
        (a_broken_link, ValueError, "images/Train/S_2 of .* is not an image, but None"),
        (far_away, ValueError, "1 of 180 spots of section 'S_2' .* outside the image"),
        (an_image_without_pixels, ValueError, "declares 600000 × 600000 × 3 values, but stores"),
        (a_name_with_a_space, ValueError, "section='S 2' must be a name of letters"),
        (a_group_for_an_image, ValueError, "images/Train/S_2 of .* is not an image, but <HDF5 gr"),
    ],
)
def test_bad_files_raise(tmp_path, change, error, message):
    path = write(tmp_path / "bad.h5", change=change)
    with pytest.raises(error, match=message):
        stp.io.read_hackathon(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_in_0_to_1_become_8_bit(tmp_path, dtype):
    def change(file):
        replace(file, "images/Train/S_2", (pixels("S_2") / 255).astype(dtype))

    path = write(tmp_path / "a.h5", change=change)
    image = stp.io.read_hackathon(path, slides=["S_2"]).images["S_2_image"]["scale0"]["image"]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels("S_2").transpose(2, 0, 1))


def test_spots_without_a_position_in_the_image_can_be_dropped(tmp_path):
    def change(file):
        for slide, row in (("S_2", 7), ("S_10", 9)):
            table = spots(slide).astype(
                [("x", "f8"), ("y", "f8"), *((c, "f8") for c in CELL_TYPES)]
            )
            table["x"][row], table["y"][row] = (np.nan, 20) if slide == "S_2" else (900, -3)
            replace(file, f"spots/Train/{slide}", table)

    path = write(tmp_path / "a.h5", change=change)
    with pytest.raises(ValueError, match=r"1 of 180 spots of section 'S_2' .*outside=\"drop\""):
        stp.io.read_hackathon(path)
    sdata = stp.io.read_hackathon(path, outside="drop")
    table = sdata.tables["table"]
    dropped = table.uns["stpredict"]["outside_image"]
    assert {slide: list(dropped[slide]) for slide in ("S_2", "S_10")} == {
        "S_2": ["7"],
        "S_10": ["9"],
    }
    assert table.n_obs == 3 * 180 - 2
    section = open_table(sdata).sections[1]
    np.testing.assert_allclose(section.centers, np.delete(positions(), 7, axis=0))
    assert section.mpp == pytest.approx(100 / PITCH_PX, rel=0.005)


def test_scattered_spots_need_a_scale(tmp_path):
    path = write(tmp_path / "a.h5", change=scattered)
    assert open_table(stp.io.read_hackathon(path, mpp=7.0)).sections[1].mpp == 7.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"slides": ["S_1", "S_3"]}, KeyError, "spots/Train has no S_3; it has S_1, S_2, S_10"),
        ({"slides": "S_1"}, TypeError, r"slides='S_1' is one name; give a list: \['S_1'\]"),
        ({"slides": ["S_1", "S_1"]}, ValueError, "slides are not unique, repeated: S_1"),
        ({"slides": []}, ValueError, "no slides to read"),
        ({"split": "Train"}, ValueError, "split='Train' is not one of 'train', 'test'"),
        ({"mpp": 0}, ValueError, r"mpp must be a number above 0 \(µm per pixel\): 0"),
        ({"pitch_um": -1}, ValueError, "pitch_um must be a number above 0"),
        ({"diameter_um": np.nan}, ValueError, "diameter_um must be a finite number"),
        ({"patients": {"S_3": "P"}}, KeyError, r"patients=\) has no S_3; it has S_1, S_2, S_10"),
    ],
)
def test_bad_options_raise(path, options, error, message):
    with pytest.raises(error, match=message):
        stp.io.read_hackathon(path, **options)


def test_a_truncated_file_is_named(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"hackathon.h5 cannot be read \(.*truncated"):
        stp.io.read_hackathon(path)


def test_a_missing_file_or_another_format_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*a\.h5"):
        stp.io.read_hackathon(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_text("x,y\n1,2\n")
    with pytest.raises(ValueError, match=r"a\.h5 is not an HDF5 file"):
        stp.io.read_hackathon(tmp_path / "a.h5")
