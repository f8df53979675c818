"""Visium, read from files written here as Space Ranger writes them."""

from __future__ import annotations

import gzip
import json

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
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


def mean_colour(tiles):
    return tiles.mean((-2, -1))


#: Two genes with the same symbol, as in every 10x reference.
VISIUM_SYMBOLS = ["ERBB2", "TBCE", "KRT5", "TBCE", "ACTB"]


def write_visium(folder, write_10x, *, mpp=8.0, hires=0.5, fullres=(260, 300), mean=1.0):
    """Write 12 rows of 8 spots; returns positions in pixels, and counts."""
    rng = np.random.default_rng(3)
    row, column = (a.ravel() for a in np.mgrid[:12, :8])
    column = 2 * column + row % 2  # hexagonal: every other row is shifted
    um = np.column_stack([column * 50.0, row * 100 * np.sqrt(3) / 2])
    pixels = np.rint(um / mpp + 20)
    barcodes = [f"{'ACGT'[i % 4]}{i:03d}-1" for i in range(len(row))]
    (folder / "spatial").mkdir(parents=True)
    pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": 1,
            "array_row": row,
            "array_col": column,
            "pxl_row_in_fullres": pixels[:, 1].astype(int),
            "pxl_col_in_fullres": pixels[:, 0].astype(int),
        }
    ).to_csv(folder / "spatial" / "tissue_positions.csv", index=False)
    (folder / "spatial" / "scalefactors_json.json").write_text(
        json.dumps(
            {
                "spot_diameter_fullres": 65 / mpp,  # wider than the spots, as in many versions
                "tissue_hires_scalef": hires,
                "tissue_lowres_scalef": hires / 4,
                "fiducial_diameter_fullres": 100 / mpp,
            }
        )
    )
    for name, scale in (("hires", hires), ("lowres", hires / 4)):
        png(
            folder / "spatial" / f"tissue_{name}_image.png",
            random_pixels(int(fullres[0] * scale), int(fullres[1] * scale)),
        )
    counts = rng.poisson(mean, (5, len(row))).T
    write_10x(
        folder / "filtered_feature_bc_matrix.h5",
        counts,
        barcodes,
        ids=[f"ENSG{i}" for i in range(5)],
        symbols=VISIUM_SYMBOLS,
        types=["Gene Expression"] * 5,
    )
    return pixels, counts


@pytest.fixture
def visium(tmp_path, write_10x):
    return tmp_path / "outs", *write_visium(tmp_path / "outs", write_10x)


def test_spots_lie_on_the_full_resolution_image(tmp_path, visium):
    folder, pixels, counts = visium
    png(tmp_path / "full.png", random_pixels(260, 300))
    sdata = stp.io.read_visium(
        folder, section="V1", fullres_image=tmp_path / "full.png", patient="P1"
    )
    section = only_section(sdata)
    table = sdata.tables["table"]
    assert section.mpp == pytest.approx(8, rel=0.005)
    np.testing.assert_allclose(section.centers, pixels)
    np.testing.assert_allclose(section.radius_um, 27.5)
    np.testing.assert_array_equal(table.X.toarray(), counts)
    assert list(table.var_names) == ["ERBB2", "TBCE", "KRT5", "TBCE-1", "ACTB"]
    assert set(table.obs["patient"]) == {"P1"}
    assert list(sdata.shapes) == ["V1"]
    np.testing.assert_array_equal(
        section.levels[0].compute(), random_pixels(260, 300).transpose(2, 0, 1)
    )
    stp.pp.neighbors(sdata)
    assert sdata.tables["table"].uns["stpredict"]["neighbors"]["grid"] == "hexagonal"


def test_spots_lie_on_the_hires_image_by_default(visium, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    folder, pixels, _ = visium
    section = only_section(stp.io.read_visium(folder, section="V1"))
    assert section.mpp == pytest.approx(16, rel=0.005)
    np.testing.assert_allclose(section.centers, pixels / 2)
    np.testing.assert_allclose(section.radius_um, 27.5)
    assert "V1: no fullres_image=, using the hires image (15.99 µm" in capsys.readouterr().out


def test_both_gene_names_are_kept(visium, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    folder, _, counts = visium
    ids = [f"ENSG{i}" for i in range(5)]
    by_symbol = stp.io.read_visium(folder, section="V1").tables["table"]
    output = capsys.readouterr().out
    assert "V1: 1 of 4 gene names occur more than once and are made unique, as in TBCE-1" in output
    by_id = stp.io.read_visium(folder, section="V1", gene_names="ids").tables["table"]
    assert "made unique" not in capsys.readouterr().out
    assert list(by_id.var_names) == ids
    for table in (by_symbol, by_id):
        assert list(table.var["gene_symbols"]) == VISIUM_SYMBOLS
        assert list(table.var["gene_ids"]) == ids
        np.testing.assert_array_equal(table.X.toarray(), counts)


def positions_without_header(folder):
    table = pd.read_csv(folder / "spatial" / "tissue_positions.csv")
    (folder / "spatial" / "tissue_positions.csv").unlink()
    table.to_csv(folder / "spatial" / "tissue_positions_list.csv", index=False, header=False)


def positions_list_with_header(folder):
    spatial = folder / "spatial"
    (spatial / "tissue_positions.csv").rename(spatial / "tissue_positions_list.csv")


def prefixed_counts(folder):
    counts = folder / "filtered_feature_bc_matrix.h5"
    counts.rename(folder / "V1_filtered_feature_bc_matrix.h5")


def raw_counts(folder):
    counts = folder / "filtered_feature_bc_matrix.h5"
    counts.rename(folder / "raw_feature_bc_matrix.h5")


def market_counts(folder):
    from scipy.io import mmwrite

    counts = folder / "filtered_feature_bc_matrix.h5"
    matrix = folder / "filtered_feature_bc_matrix"
    matrix.mkdir()
    with h5py.File(counts) as file:
        group = file["matrix"]
        csc = sp.csc_matrix(
            (group["data"][:], group["indices"][:], group["indptr"][:]), shape=group["shape"][:]
        )
        barcodes = group["barcodes"].asstr()[:]
        features = [group["features"][name].asstr()[:] for name in ("id", "name", "feature_type")]
    with gzip.open(matrix / "matrix.mtx.gz", "wb") as file:
        mmwrite(file, csc)
    for name, columns in (("barcodes", [barcodes]), ("features", features)):
        pd.DataFrame(dict(enumerate(columns))).to_csv(
            matrix / f"{name}.tsv.gz", sep="\t", index=False, header=False
        )
    counts.unlink()


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (positions_without_header, {}),
        (positions_list_with_header, {}),
        (prefixed_counts, {}),
        (raw_counts, {"counts_file": "raw_feature_bc_matrix.h5"}),
        (market_counts, {"counts_file": "filtered_feature_bc_matrix/matrix.mtx.gz"}),
    ],
)
def test_every_layout_of_space_ranger_is_read(visium, change, options):
    folder, pixels, counts = visium
    change(folder)
    sdata = stp.io.read_visium(str(folder), section="V1", **options)
    table = sdata.tables["table"]
    np.testing.assert_array_equal(table.X.toarray(), counts)
    np.testing.assert_allclose(only_section(sdata).centers, pixels / 2)
    assert list(table.var["gene_symbols"]) == VISIUM_SYMBOLS
    assert list(table.var["gene_ids"]) == [f"ENSG{i}" for i in range(5)]
    assert list(table.var_names) == ["ERBB2", "TBCE", "KRT5", "TBCE-1", "ACTB"]


def test_a_section_is_embedded_after_a_round_trip_through_zarr(tmp_path, visium):
    folder, _, _ = visium
    stp.io.read_visium(folder, section="V1").write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    stp.pp.embed(back, mean_colour, key_added="X_colour", tile_um=110, n_subtiles=1)
    table = back.tables["table"]
    assert list(table.var["gene_symbols"]) == VISIUM_SYMBOLS
    assert table.obsm["X_colour"].shape == (96, 3)
    assert np.isfinite(table.obsm["X_colour"]).all()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            "filtered_feature_bc_matrix.h5",
            r"0 files \*_filtered_feature.*; it has spatial",
        ),
        ("spatial/tissue_positions.csv", "neither tissue_positions_list.csv nor tissue_positions"),
        ("spatial/scalefactors_json.json", "no such file: .*scalefactors_json.json"),
        (
            "spatial/tissue_hires_image.png",
            "tissue_hires_image.png.* fullres_image=",
        ),
    ],
)
def test_missing_files_raise_before_anything_is_read(visium, monkeypatch, missing, message):
    folder, _, _ = visium
    (folder / missing).unlink()
    monkeypatch.setattr("scanpy.read_10x_h5", None)  # cannot be called
    with pytest.raises(FileNotFoundError, match=message):
        stp.io.read_visium(folder, section="V1")


def test_the_message_is_correct_if_the_hires_image_is_passed(visium, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    folder, pixels, _ = visium
    for hires in ("tissue_hires_image.png", "../spatial/tissue_hires_image.png"):
        section = only_section(
            stp.io.read_visium(folder, section="V1", fullres_image=folder / "spatial" / hires)
        )
        output = capsys.readouterr().out
        assert "V1: fullres_image= is the hires image (15.99 µm per pixel)" in output
        assert "no fullres_image" not in output
        np.testing.assert_allclose(section.centers, pixels / 2)


def change_positions(folder, change):
    file = folder / "spatial" / "tissue_positions.csv"
    change(pd.read_csv(file)).to_csv(file, index=False)


def test_columns_of_positions_are_read_by_their_names(visium):
    folder, pixels, _ = visium
    change_positions(folder, lambda table: table[table.columns[::-1]])
    section = only_section(stp.io.read_visium(folder, section="V1"))
    np.testing.assert_allclose(section.centers, pixels / 2)
    change_positions(folder, lambda table: table.rename(columns={"array_row": "row"}))
    with pytest.raises(ValueError, match=r"tissue_positions.csv has no array_row; it has"):
        stp.io.read_visium(folder, section="V1")


@pytest.mark.parametrize("column", ["array_col", "array_row", "pxl_col_in_fullres"])
def test_shuffled_columns_of_positions_raise(visium, column):
    def shuffle(table):
        return table.assign(**{column: table[column].sample(frac=1, random_state=0).to_numpy()})

    change_positions(visium[0], shuffle)
    with pytest.raises(
        ValueError, match=r"pixel positions do not follow the array: .*-1 is .* px off"
    ):
        stp.io.read_visium(visium[0], section="V1")


def test_swapped_array_columns_raise(visium):
    swapped = {"array_row": "array_col", "array_col": "array_row"}
    change_positions(visium[0], lambda table: table.rename(columns=swapped))
    with pytest.raises(ValueError, match="stretches its axes by"):
        stp.io.read_visium(visium[0], section="V1")


def repeat_a_barcode(table):
    return pd.concat([table, table.iloc[[4]]])


def text_for_a_number(table):
    return table.astype({"array_row": object}).replace({"array_row": {3: "three"}})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (repeat_a_barcode, ValueError, "spots have more than one position: A004-1"),
        (text_for_a_number, TypeError, "column 'array_row' of .* must have numbers"),
        (lambda table: table[:0], ValueError, "96 of 96 spots have counts but no position"),
    ],
)
def test_bad_positions_raise(visium, change, error, message):
    change_positions(visium[0], change)
    with pytest.raises(error, match=message):
        stp.io.read_visium(visium[0], section="V1")


def test_positions_without_header_need_six_columns(visium):
    positions_without_header(visium[0])
    file = visium[0] / "spatial" / "tissue_positions_list.csv"
    pd.read_csv(file, header=None).assign(more=1).to_csv(file, index=False, header=False)
    with pytest.raises(ValueError, match="has 7 columns without a header, not the 6"):
        stp.io.read_visium(visium[0], section="V1")


def test_spots_without_a_position_in_the_image_can_be_dropped(visium):
    folder, pixels, counts = visium
    change_positions(
        folder,
        lambda table: table.assign(
            pxl_col_in_fullres=table["pxl_col_in_fullres"].astype(float).where(table.index != 7)
        ),
    )
    with pytest.raises(ValueError, match=r'1 of 96 spots .* outside="drop"'):
        stp.io.read_visium(folder, section="V1")
    sdata = stp.io.read_visium(folder, section="V1", outside="drop")
    table = sdata.tables["table"]
    np.testing.assert_array_equal(table.X.toarray(), np.delete(counts, 7, axis=0))
    np.testing.assert_allclose(only_section(sdata).centers, np.delete(pixels, 7, axis=0) / 2)
    assert list(table.uns["stpredict"]["outside_image"]["V1"]) == ["T007-1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "scalefactors_json.json has no tissue_hires_scalef; it has none"),
        ('{"tissue_hires_scalef": 0}', "tissue_hires_scalef in .*json must be a number above 0: 0"),
        ('{"tissue_hires_scalef": "1"}', "must be a number above 0: '1'"),
        ('{"tissue_hires_scalef": NaN}', "must be a number above 0: nan"),
        ('{"tissue_hires_', r"scalefactors_json.json cannot be read \(JSONDecodeError"),
        ("[1, 2]", r"scalefactors_json.json cannot be read \(TypeError"),
        ("", r"scalefactors_json.json cannot be read \(JSONDecodeError"),
    ],
)
def test_bad_scale_factors_raise(visium, content, message):
    (visium[0] / "spatial" / "scalefactors_json.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        stp.io.read_visium(visium[0], section="V1")


def spoil_index(group):
    group["indices"][3] = 10**6


def spoil_pointers(group):
    group["indptr"][4] = 10**6


def spoil_length(group):
    values = group["data"][:-2]
    del group["data"]
    group["data"] = values


def drop_barcodes(group):
    del group["barcodes"]


@pytest.mark.parametrize("spoil", [spoil_index, spoil_pointers, spoil_length, drop_barcodes])
def test_malformed_counts_raise_before_they_are_used(visium, spoil):
    counts = visium[0] / "filtered_feature_bc_matrix.h5"
    with h5py.File(counts, "a") as file:
        spoil(file["matrix"])
    with pytest.raises(ValueError, match=r"feature_bc_matrix.h5 cannot be read \("):
        stp.io.read_visium(visium[0], section="V1")


def test_several_counts_files_raise(visium):
    folder, _, _ = visium
    counts = folder / "filtered_feature_bc_matrix.h5"
    (folder / "B_filtered_feature_bc_matrix.h5").write_bytes(counts.read_bytes())
    counts.rename(folder / "A_filtered_feature_bc_matrix.h5")
    with pytest.raises(FileNotFoundError, match=r"2 files \*_filtered.*; it has A_filtered"):
        stp.io.read_visium(folder, section="V1")


def test_positions_of_another_section_raise(visium):
    folder, _, _ = visium
    file = folder / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(file)
    table.iloc[5:].to_csv(file, index=False)
    with pytest.raises(ValueError, match="5 of 96 spots have counts but no position, such as A000"):
        stp.io.read_visium(folder, section="V1")


def test_bad_input_raises(tmp_path, visium):
    folder, _, _ = visium
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*outz"):
        stp.io.read_visium(tmp_path / "outz", section="V1")
    with pytest.raises(FileNotFoundError, match=r"no such file: .*full\.png"):
        stp.io.read_visium(folder, section="V1", fullres_image=tmp_path / "full.png")
    with pytest.raises(ValueError, match="gene_names='names' is not one of 'symbols', 'ids'"):
        stp.io.read_visium(folder, section="V1", gene_names="names")
    png(tmp_path / "full.png", random_pixels(260, 300))
    file = folder / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(file)
    table["pxl_col_in_fullres"] += 250
    table.to_csv(file, index=False)
    with pytest.raises(ValueError, match=r"spots of section 'V1' .* lie outside the image of 300"):
        stp.io.read_visium(folder, section="V1", fullres_image=tmp_path / "full.png")


@pytest.mark.parametrize("shape", [(100, 120), (520, 600), (300, 260)])
def test_an_image_of_another_resolution_raises(tmp_path, visium, shape):
    png(tmp_path / "wrong.png", random_pixels(*shape))
    message = rf"wrong.png has {shape[1]} × {shape[0]} px, .*hires.* of about 300 × 260 px"
    with pytest.raises(ValueError, match=message):
        stp.io.read_visium(visium[0], section="V1", fullres_image=tmp_path / "wrong.png")


def test_a_full_resolution_image_needs_no_hires_image(tmp_path, visium):
    folder, pixels, _ = visium
    (folder / "spatial" / "tissue_hires_image.png").unlink()
    png(tmp_path / "full.png", random_pixels(260, 300))
    section = only_section(
        stp.io.read_visium(folder, section="V1", fullres_image=tmp_path / "full.png")
    )
    np.testing.assert_allclose(section.centers, pixels)
