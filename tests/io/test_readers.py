"""Readers on small files written here, in the layouts that labs and vendors use."""

from __future__ import annotations

import gzip
import json

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import spatialdata as sd
import tifffile
from PIL import Image
from spatialdata.models import Image2DModel
from spatialdata.transformations import (
    Affine,
    Identity,
    Scale,
    get_transformation,
    set_transformation,
)

import stpredict as stp
from stpredict._sdata import _sections
from stpredict.io._shared import _image
from stpredict.io._shared._assemble import assemble_section


def random_pixels(height=200, width=260, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype)


def only(sdata):
    (found,) = _sections.sections(sdata)
    return found


# --- images ---------------------------------------------------------------------------------------


def png(path, pixels):
    Image.fromarray(pixels).save(path)


def tiff(path, pixels):
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")


def plain_tiff(path, pixels):
    tifffile.imwrite(path, pixels, photometric="rgb")


def planar_tiff(path, pixels):
    tifffile.imwrite(path, pixels.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.png", png),
        ("a.PNG", png),
        ("a.tif", tiff),
        ("a.tiff", plain_tiff),
        ("a.btf", tiff),
        ("planar.tif", planar_tiff),
    ],
)
def test_rgb_files(tmp_path, name, write):
    pixels = random_pixels()
    write(tmp_path / name, pixels)
    for path in (tmp_path / name, str(tmp_path / name)):
        array = _image.open_image(path)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array.compute(), pixels.transpose(2, 0, 1))
        np.testing.assert_array_equal(
            array[:, 3:70, 100:170].compute(), pixels[3:70, 100:170].transpose(2, 0, 1)
        )


def test_jpeg(tmp_path):
    y, x = np.mgrid[:128, :160]
    smooth = np.stack([y, x, 255 - y], axis=2).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    array = _image.open_image(tmp_path / "a.jpg").compute()
    np.testing.assert_allclose(array, smooth.transpose(2, 0, 1), atol=8)


@pytest.mark.parametrize("channels_first", [True, False])
def test_arrays(channels_first):
    pixels = random_pixels()
    array = _image.open_image(pixels.transpose(2, 0, 1) if channels_first else pixels)
    np.testing.assert_array_equal(array.compute(), pixels.transpose(2, 0, 1))


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "a.png"
    for seed in (0, 1):
        pixels = random_pixels(seed=seed)
        png(path, pixels)
        np.testing.assert_array_equal(_image.open_image(path).compute(), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["a.png", "a.tif", None])
def test_alpha_is_left_out_and_told(tmp_path, name, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    pixels = random_pixels(channels=4)
    image = pixels if name is None else tmp_path / name
    if name == "a.png":
        png(image, pixels)
    elif name == "a.tif":
        tifffile.imwrite(image, pixels, photometric="rgb", extrasamples=["unassalpha"])
    array = _image.open_image(image)
    np.testing.assert_array_equal(array.compute(), pixels[..., :3].transpose(2, 0, 1))
    assert "has an alpha channel, left out" in capsys.readouterr().out


def refused(path, kind):
    if kind == "grey":
        Image.fromarray(random_pixels()[..., 0]).save(path)
    elif kind == "grey16":
        Image.fromarray(random_pixels(dtype=np.uint16)[..., 0]).save(path)
    elif kind == "palette":
        Image.fromarray(random_pixels()).quantize(8).save(path)
    elif kind == "grey_tiff":
        tifffile.imwrite(path, random_pixels()[..., 0])
    elif kind == "rgb16_tiff":
        tifffile.imwrite(path, random_pixels(dtype=np.uint16), photometric="rgb")
    elif kind == "stack_tiff":
        tifffile.imwrite(path, np.zeros((5, 20, 20, 3), dtype=np.uint8), photometric="rgb")
    elif kind == "cmyk":
        Image.fromarray(random_pixels()).convert("CMYK").save(path)


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        ("grey", "a.png", r"shape \(200, 260, 1\) and dtype uint8"),
        ("grey16", "a.png", r"shape \(200, 260, 1\) and dtype uint16"),
        ("palette", "a.png", r"shape \(200, 260, 1\) and dtype uint8"),
        ("grey_tiff", "a.tif", r"shape \(200, 260\) and dtype uint8"),
        ("rgb16_tiff", "a.tif", r"shape \(3, 200, 260\) and dtype uint16"),
        ("stack_tiff", "a.tif", r"shape \(5, 20, 20, 3\) and dtype uint8"),
        ("cmyk", "a.jpg", "is a CMYK image"),
    ],
)
def test_images_that_are_not_8_bit_rgb(tmp_path, kind, name, found):
    refused(tmp_path / name, kind)
    with pytest.raises(ValueError, match=rf"{name}.*{found}.*must be 8-bit RGB.*convert it first"):
        _image.open_image(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_arrays_that_are_not_8_bit(dtype):
    with pytest.raises(ValueError, match=f"the image array has .*dtype {np.dtype(dtype)}"):
        _image.open_image(np.zeros((20, 30, 3), dtype=dtype))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_image_file_missing(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"image .*{name} does not exist"):
        _image.open_image(tmp_path / name)


def test_tiff_is_read_by_window(tmp_path, monkeypatch):
    # a file of which only the tiles that are asked for can be decoded
    pixels = random_pixels(2100, 1100)
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(256, 256), photometric="rgb")
    monkeypatch.setattr(_image, "_decode", None)
    array = _image.open_image(tmp_path / "a.tif")
    assert max(array.chunks[1]) <= _image.CHUNK_PX
    np.testing.assert_array_equal(
        array[:, 2000:2010, 1000:1010].compute(),
        pixels[2000:2010, 1000:1010].transpose(2, 0, 1),
    )


# --- legacy Spatial Transcriptomics ---------------------------------------------------------------

PITCH_PX = 20.0  # of 200 µm: 10 µm per pixel


class Legacy:
    """Files of one section: a grid of 10 x 8 spots, the first column of them without counts."""

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


def test_st(legacy):
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
    found = only(sdata)
    assert found.mpp == pytest.approx(10, rel=0.005)
    np.testing.assert_allclose(found.radius_um, 50)
    placed = legacy.spots.set_index(
        legacy.spots["x"].astype(str) + "x" + legacy.spots["y"].astype(str)
    ).loc[legacy.table.index]
    np.testing.assert_allclose(found.centers, placed[["pixel_x", "pixel_y"]])


def test_st_takes_pitch_and_diameter(legacy):
    found = only(legacy.read(pitch_um=100, diameter_um=55))
    assert found.mpp == pytest.approx(5, rel=0.005)
    np.testing.assert_allclose(found.radius_um, 27.5)


def test_st_without_patient_and_adjusted_positions(legacy):
    legacy.spots = legacy.spots.drop(columns=["new_x", "new_y", "selected"])
    sdata = legacy.read()
    assert "patient" not in sdata.tables["table"].obs
    assert only(sdata).mpp == pytest.approx(10, rel=0.01)


def test_st_plain_counts(legacy):
    sdata = legacy.read()
    plain = legacy.counts.with_suffix("")
    plain.write_bytes(gzip.decompress(legacy.counts.read_bytes()))
    again = stp.io.read_st(plain, str(legacy.image), legacy.spots_file, section="A1")
    assert (again.tables["table"].X != sdata.tables["table"].X).nnz == 0


def test_st_misplaced_spots_do_not_move_the_scale(legacy):
    legacy.spots.loc[[3, 40, 77], ["pixel_x", "pixel_y"]] = [[250, 5], [1, 170], [8, 9]]
    assert only(legacy.read()).mpp == pytest.approx(10, rel=0.01)


def test_st_mirrored_image(legacy):
    legacy.spots["pixel_x"] = 255 - legacy.spots["pixel_x"]
    assert only(legacy.read()).mpp == pytest.approx(10, rel=0.005)


def test_st_tells_of_a_pitch_that_disagrees(legacy, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    legacy.read()
    assert "pitch" not in capsys.readouterr().out
    legacy.spots["pixel_x"] *= 1.1
    found = only(legacy.read())
    told = capsys.readouterr().out
    assert "A1: the spot pitch is 22.0 px in x and 20.0 px in y" in told
    assert found.mpp == pytest.approx(10 / np.sqrt(1.1), rel=0.005)


def test_st_unselected_spots_are_left_out(legacy, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    legacy.spots.loc[legacy.spots["x"] == 5, "selected"] = 0
    table = legacy.read().tables["table"]
    assert table.n_obs == 70 - 7
    assert 5 not in set(table.obs["array_x"])
    assert "A1: 7 of 70 spots have no selected position, left out" in capsys.readouterr().out


def test_st_unselected_spots_may_be_anywhere(legacy):
    legacy.spots.loc[0, ["pixel_x", "pixel_y", "selected"]] = [-900, 9000, 0]
    assert only(legacy.read()).mpp == pytest.approx(10, rel=0.01)


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
        (spoil_columns, r"A1_selection.tsv has no column \['pixel_y'\]; columns: .*'pixel_x'"),
        (spoil_duplicated_positions, r"names spots more than once: \['3x7'\]"),
        (spoil_duplicated_counts, "spot ids of section 'A1' are not unique, repeated: 7x8"),
        (spoil_no_common, r"section 'A1': no spot of .*A1.tsv.gz \(70, such as 'spot0'\) is in"),
        (spoil_all_unselected, r"no spot of .* is in .*A1_selection.tsv \(0 selected spots\)"),
        (spoil_one_row, "'A1': the spot file has fewer than two array positions in y"),
        (spoil_negative, "counts of section 'A1' .* 0 values are NaN .* 1 are negative"),
        (spoil_nan, "counts of section 'A1' .* 2 values are NaN or infinite and 0 are negative"),
        (spoil_outside, r"1 of 70 spots of section 'A1' .* image of 260 × 180 px.* x=261"),
        (spoil_nan_position, "1 of 70 spots of section 'A1' have NaN positions.* x=nan"),
    ],
)
def test_st_bad_files(legacy, spoil, message):
    spoil(legacy)
    with pytest.raises(ValueError, match=message):
        legacy.read()


@pytest.mark.parametrize("options", [{"pitch_um": 0}, {"diameter_um": -1.0}])
def test_st_bad_options(legacy, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be a number above 0"):
        legacy.read(**options)


def test_st_missing_files(legacy):
    legacy.read()
    legacy.image.unlink()
    with pytest.raises(FileNotFoundError, match=r"A1\.png does not exist"):
        stp.io.read_st(legacy.counts, legacy.image, legacy.spots_file, section="A1")


# --- AnnData with pixel positions -----------------------------------------------------------------


def cells(n=30, *, height=180, width=260, dense=False):
    rng = np.random.default_rng(5)
    counts = rng.poisson(1.0, (n, 4))
    return ad.AnnData(
        counts.astype(np.float32) if dense else sp.csr_matrix(counts, dtype=np.int64),
        obs=pd.DataFrame(
            {
                "column": rng.uniform(height, width, n),  # all beyond the image's height
                "row": rng.uniform(0, height, n),
                "cluster": pd.Categorical(rng.choice(["a", "b"], n)),
                "region": "somewhere",
            },
            index=[f"cell{i}" for i in range(n)],
        ),
        var=pd.DataFrame({"symbol": list("ABCD")}, index=[f"ENSG{i}" for i in range(4)]),
    )


HOW = {"section": "X1", "mpp": 0.25, "diameter_um": 10.0}


@pytest.fixture
def picture(tmp_path):
    png(tmp_path / "X1.png", random_pixels(180, 260))
    return tmp_path / "X1.png"


@pytest.mark.parametrize("dense", [True, False])
def test_h5ad(tmp_path, picture, dense):
    table = cells(dense=dense)
    table.write_h5ad(tmp_path / "X1.h5ad")
    sdata = stp.io.read_h5ad(
        tmp_path / "X1.h5ad", picture, x="column", y="row", patient="P7", **HOW
    )
    found = only(sdata)
    read = sdata.tables["table"]
    np.testing.assert_allclose(found.centers, table.obs[["column", "row"]])
    np.testing.assert_allclose(found.radius_um, 5)
    assert found.mpp == 0.25
    np.testing.assert_array_equal(read.X.toarray(), table.X if dense else table.X.toarray())
    assert list(read.var["symbol"]) == list("ABCD")
    assert list(read.var_names) == list(table.var_names)
    assert list(read.obs["cluster"]) == list(table.obs["cluster"])
    assert set(read.obs["region"]) == {"X1"}
    assert set(read.obs["patient"]) == {"P7"}
    assert list(read.obs["instance_id"]) == list(table.obs_names)


def test_h5ad_positions_from_obsm(picture):
    table = cells()
    table.obsm["spatial"] = table.obs[["column", "row"]].to_numpy()
    before = table.copy()
    found = only(stp.io.read_h5ad(table, picture, **HOW))
    np.testing.assert_allclose(found.centers, table.obsm["spatial"])
    pd.testing.assert_frame_equal(before.obs, table.obs)  # the caller's object is left alone


def nan_position(table):
    table.obs.iloc[2, 0] = np.nan


def negative_counts(table):
    table.X = table.X - sp.csr_matrix(np.eye(30, 4, dtype=np.int64) * 50)


def nan_counts(table):
    counts = table.X.toarray().astype(float)
    counts[0, 0] = np.nan
    table.X = counts


def repeated_ids(table):
    table.obs_names = ["cell1", *table.obs_names[1:]]


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        (None, {"x": "row", "y": "column"}, ValueError, "30 of 30 spots .* Are x and y swapped"),
        (None, {}, KeyError, r"no obsm\['spatial'\]; give x= and y=, columns of obs: column, row"),
        (None, {"x": "column"}, ValueError, "give both x= and y=, or neither: x='column', y=None"),
        (None, {"x": "column", "y": "Row"}, KeyError, "no column 'Row' in obs: column, row"),
        (nan_position, {"x": "column", "y": "row"}, ValueError, "1 of 30 spots .* NaN positions"),
        (negative_counts, {"x": "column", "y": "row"}, ValueError, "4 are negative"),
        (nan_counts, {"x": "column", "y": "row"}, ValueError, "1 values are NaN"),
        (repeated_ids, {"x": "column", "y": "row"}, ValueError, "not unique, repeated: cell1"),
        (None, {"x": "column", "y": "row", "mpp": 0}, ValueError, "mpp must be a number above 0"),
        (None, {"x": "column", "y": "row", "mpp": "0.25"}, ValueError, "mpp must be a number"),
    ],
)
@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_h5ad_bad_input(picture, spoil, options, error, message):
    table = cells()
    if spoil:
        spoil(table)
    with pytest.raises(error, match=message):
        stp.io.read_h5ad(table, picture, **{**HOW, **options})


def test_h5ad_without_cells(picture):
    with pytest.raises(ValueError, match="section 'X1' has no spots"):
        stp.io.read_h5ad(cells()[:0].copy(), picture, x="column", y="row", **HOW)


# --- Visium ---------------------------------------------------------------------------------------


#: Two genes of one symbol, as in every 10x reference.
VISIUM_SYMBOLS = ["ERBB2", "TBCE", "KRT5", "TBCE", "ACTB"]


def write_visium(folder, write_10x, *, mpp=8.0, hires=0.5, fullres=(260, 300)):
    """What Space Ranger writes, of 12 rows of 8 spots; gives the positions in pixels."""
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
                "spot_diameter_fullres": 65 / mpp,  # wider than the spot, as in many versions
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
    counts = rng.poisson(1.0, (5, len(row))).T
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


def test_visium_on_the_full_resolution(tmp_path, visium):
    folder, pixels, counts = visium
    png(tmp_path / "full.png", random_pixels(260, 300))
    sdata = stp.io.read_visium(
        folder, section="V1", fullres_image=tmp_path / "full.png", patient="P1"
    )
    found = only(sdata)
    table = sdata.tables["table"]
    assert found.mpp == pytest.approx(8, rel=0.005)
    np.testing.assert_allclose(found.centers, pixels)
    np.testing.assert_allclose(found.radius_um, 27.5)
    np.testing.assert_array_equal(table.X.toarray(), counts)
    assert list(table.var_names) == ["ERBB2", "TBCE", "KRT5", "TBCE-1", "ACTB"]
    assert set(table.obs["patient"]) == {"P1"}
    assert list(sdata.shapes) == ["V1"]
    np.testing.assert_array_equal(
        found.levels[0].compute(), random_pixels(260, 300).transpose(2, 0, 1)
    )
    stp.pp.neighbors(sdata)
    assert sdata.tables["table"].uns["stpredict"]["neighbors"]["grid"] == "hexagonal"


def test_visium_on_the_hires_image(visium, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    folder, pixels, _ = visium
    found = only(stp.io.read_visium(folder, section="V1"))
    assert found.mpp == pytest.approx(16, rel=0.005)
    np.testing.assert_allclose(found.centers, pixels / 2)
    np.testing.assert_allclose(found.radius_um, 27.5)
    assert "V1: no fullres_image=, using the hires image (15.99 µm" in capsys.readouterr().out


def test_visium_genes(visium, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    folder, _, counts = visium
    ids = [f"ENSG{i}" for i in range(5)]
    by_symbol = stp.io.read_visium(folder, section="V1").tables["table"]
    told = capsys.readouterr().out
    assert (
        "V1: 1 of 4 names of genes occur more than once and are made unique, as in TBCE-1" in told
    )
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
def test_visium_layouts(visium, change, options):
    folder, pixels, counts = visium
    change(folder)
    sdata = stp.io.read_visium(str(folder), section="V1", **options)
    table = sdata.tables["table"]
    np.testing.assert_array_equal(table.X.toarray(), counts)
    np.testing.assert_allclose(only(sdata).centers, pixels / 2)
    assert list(table.var["gene_symbols"]) == VISIUM_SYMBOLS
    assert list(table.var["gene_ids"]) == [f"ENSG{i}" for i in range(5)]
    assert list(table.var_names) == ["ERBB2", "TBCE", "KRT5", "TBCE-1", "ACTB"]


def test_visium_through_zarr_then_embedded(tmp_path, visium):
    folder, _, _ = visium
    stp.io.read_visium(folder, section="V1").write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    stp.pp.embed(back, mean_colour, key_added="X_colour", tile_um=110, n_subtiles=1)
    table = back.tables["table"]
    assert list(table.var["gene_symbols"]) == VISIUM_SYMBOLS
    assert table.obsm["X_colour"].shape == (96, 3)
    assert np.isfinite(table.obsm["X_colour"]).all()


def mean_colour(tiles):
    return tiles.mean((-2, -1))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("filtered_feature_bc_matrix.h5", "no filtered_feature_bc_matrix.h5; it has spatial: give"),
        ("spatial/tissue_positions.csv", "neither tissue_positions_list.csv nor tissue_positions"),
        ("spatial/scalefactors_json.json", "spatial has no scalefactors_json.json"),
        ("spatial/tissue_hires_image.png", "no tissue_hires_image.png; give .* fullres_image="),
    ],
)
def test_visium_missing_files(visium, monkeypatch, missing, message):
    import spatialdata_io

    folder, _, _ = visium
    (folder / missing).unlink()
    monkeypatch.setattr(spatialdata_io, "visium", None)  # said before anything is read
    with pytest.raises(FileNotFoundError, match=message):
        stp.io.read_visium(folder, section="V1")


def test_visium_several_counts(visium):
    folder, _, _ = visium
    counts = folder / "filtered_feature_bc_matrix.h5"
    (folder / "B_filtered_feature_bc_matrix.h5").write_bytes(counts.read_bytes())
    counts.rename(folder / "A_filtered_feature_bc_matrix.h5")
    with pytest.raises(FileNotFoundError, match=r"several files \*_filtered.*; it has A_filtered"):
        stp.io.read_visium(folder, section="V1")


def test_visium_positions_of_another_section(visium):
    folder, _, _ = visium
    file = folder / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(file)
    table.iloc[5:].to_csv(file, index=False)
    with pytest.raises(ValueError, match="5 of 96 spots have counts but no position, such as A000"):
        stp.io.read_visium(folder, section="V1")


def test_visium_bad_input(tmp_path, visium):
    folder, _, _ = visium
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*outz"):
        stp.io.read_visium(tmp_path / "outz", section="V1")
    with pytest.raises(FileNotFoundError, match=r"fullres_image .*full\.png does not exist"):
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
def test_visium_image_of_another_resolution(tmp_path, visium, shape):
    png(tmp_path / "wrong.png", random_pixels(*shape))
    message = rf"wrong.png has {shape[1]} × {shape[0]} px, .*hires.* of about 300 × 260 px"
    with pytest.raises(ValueError, match=message):
        stp.io.read_visium(visium[0], section="V1", fullres_image=tmp_path / "wrong.png")


def test_visium_full_resolution_without_a_hires_image(tmp_path, visium):
    folder, pixels, _ = visium
    (folder / "spatial" / "tissue_hires_image.png").unlink()
    png(tmp_path / "full.png", random_pixels(260, 300))
    found = only(stp.io.read_visium(folder, section="V1", fullres_image=tmp_path / "full.png"))
    np.testing.assert_allclose(found.centers, pixels)


# --- one section, several sections ----------------------------------------------------------------


def small(name="S1", genes=("A", "B", "C"), *, n=5, mpp=2.0, patient=None, **options):
    rng = np.random.default_rng(len(genes))
    return assemble_section(
        name,
        image=random_pixels(60, 80),
        counts=rng.poisson(3.0, (n, len(genes))),
        obs_names=[f"s{i}" for i in range(n)],
        var_names=list(genes),
        positions=rng.uniform(5, 55, (n, 2)),
        mpp=mpp,
        diameter_um=10,
        patient=patient,
        **options,
    )


def test_section_survives_zarr(tmp_path):
    sdata = stp.io.concat([small("S1", patient="P1"), small("S2", mpp=0.7, patient="P2")])
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    table, read = sdata.tables["table"], back.tables["table"]
    assert (table.X != read.X).nnz == 0
    np.testing.assert_array_equal(table.obsm["spatial"], read.obsm["spatial"])
    for column in table.obs:
        assert list(table.obs[column].astype(str)) == list(read.obs[column].astype(str))
    for name in ("S1", "S2"):
        pd.testing.assert_series_equal(
            sdata.shapes[name]["radius"], back.shapes[name]["radius"], check_index_type=False
        )
        assert set(get_transformation(back.images[f"{name}_image"], get_all=True)) == {f"{name}_um"}
    assert [s.mpp for s in _sections.sections(back)] == [2.0, 0.7]


def test_concat():
    together = stp.io.concat(
        [small("S1", "ABC", patient="P1"), small("S2", "BCD", patient="P2")], join="inner"
    )
    table = together.tables["table"]
    assert set(together.shapes) == {"S1", "S2"}
    assert set(together.images) == {"S1_image", "S2_image"}
    assert list(table.var_names) == ["B", "C"]
    assert table.obs_names.is_unique
    assert [s.name for s in _sections.sections(together)] == ["S1", "S2"]
    assert list(table.obs["patient"].unique()) == ["P1", "P2"]


def test_concat_outer_counts_zero():
    parts = [small("S1", "ABC"), small("S2", "BCD")]
    table = stp.io.concat(parts, join="outer").tables["table"]
    assert sorted(table.var_names) == list("ABCD")
    counts = table.to_df()
    assert (counts.loc[table.obs["region"] == "S1", "D"] == 0).all()
    assert (counts.loc[table.obs["region"] == "S2", "A"] == 0).all()
    for part in parts:
        own = part.tables["table"].to_df()
        pd.testing.assert_frame_equal(counts.loc[own.index, own.columns], own, check_dtype=False)
    assert np.isfinite(table.X.toarray()).all()


def test_concat_bad_input():
    with pytest.raises(ValueError, match="there are no sections to put together"):
        stp.io.concat([])
    with pytest.raises(ValueError, match=r"different names, but 'S1' occurs more .*section="):
        stp.io.concat([small("S1"), small("S1", "AB")])
    with pytest.raises(ValueError, match=r"no gene in common; .* Ensembl"):
        stp.io.concat([small("S1", "ABC"), small("S2", "XYZ")])


# --- registering what other readers read ----------------------------------------------------------


def foreign(*, scale=1.0):
    """As spatialdata-io gives it: elements only in a pixel coordinate system."""
    sdata = small()
    set_transformation(
        sdata.images["S1_image"], {"global": Scale([scale, scale], ("x", "y"))}, set_all=True
    )
    set_transformation(sdata.shapes["S1"], {"global": Identity()}, set_all=True)
    return sdata


def test_register_um():
    sdata = foreign()
    with pytest.raises(ValueError, match=r"µm per pixel .* not known .*stp\.io\.register_um"):
        stp.pp.neighbors(sdata, n_neighbors=2)
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.5)
    found = only(sdata)
    assert found.mpp == 0.5
    np.testing.assert_allclose(found.centers, sdata.tables["table"].obsm["spatial"])
    stp.pp.neighbors(sdata, n_neighbors=2)
    # the pixel coordinate system is still there
    assert set(get_transformation(sdata.shapes["S1"], get_all=True)) == {"global", "S1_um"}
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.25)  # may be corrected
    assert only(sdata).mpp == 0.25


def test_register_um_follows_the_common_system():
    sdata = foreign(
        scale=4.0
    )  # a downscaled image: each of its pixels is four of the common system
    turned = Affine(
        np.array([[0, -1, 70], [1, 0, 3], [0, 0, 1.0]]),
        input_axes=("x", "y"),
        output_axes=("x", "y"),
    )
    set_transformation(sdata.shapes["S1"], {"global": turned}, set_all=True)
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=2.0)
    found = only(sdata)
    x, y = sdata.tables["table"].obsm["spatial"].T
    np.testing.assert_allclose(found.centers, np.column_stack([70 - y, x + 3]) / 4)
    assert found.mpp == 2.0
    shapes = sdata.shapes["S1"]
    np.testing.assert_allclose(found.radius_um, shapes["radius"] / 4 * 2.0)


def test_register_um_of_several_systems():
    # as spatialdata-io's Visium: hires image and spots share the full resolution and their own
    sdata = foreign()
    set_transformation(
        sdata.images["S1_image"],
        {"V1": Scale([4.0, 4.0], ("x", "y")), "V1_downscaled": Identity()},
        set_all=True,
    )
    quarter = {"V1": Identity(), "V1_downscaled": Scale([0.25, 0.25], ("x", "y"))}
    set_transformation(sdata.shapes["S1"], quarter, set_all=True)
    stp.io.register_um(sdata, "S1", image="S1_image", mpp=2.0)
    np.testing.assert_allclose(only(sdata).centers, sdata.tables["table"].obsm["spatial"] / 4)


def test_register_um_of_systems_that_disagree():
    sdata = foreign()
    for element, factor in ((sdata.images["S1_image"], 4.0), (sdata.shapes["S1"], 1.0)):
        set_transformation(element, Scale([factor, factor], ("x", "y")), "aligned")
    with pytest.raises(ValueError, match=r"systems 'global' and 'aligned' place .*differently"):
        stp.io.register_um(sdata, "S1", image="S1_image", mpp=2.0)
    assert sorted(sdata.coordinate_systems) == ["aligned", "global"]


def test_register_um_chooses_among_images():
    sdata = foreign()
    sdata.images["other"] = Image2DModel.parse(
        random_pixels(60, 80).transpose(2, 0, 1),
        dims=("c", "y", "x"),
        transformations={"global": Identity()},
    )
    with pytest.raises(ValueError, match="several images could belong to section 'S1'"):
        _sections.sections(sdata)
    for image in ("S1_image", "other", "S1_image"):  # another choice replaces the one before
        stp.io.register_um(sdata, "S1", image=image, mpp=0.5)
        assert only(sdata).image == image


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"section": "S9"}, KeyError, "no shapes 'S9'; shapes: S1"),
        ({"image": "S9_image"}, KeyError, "no image 'S9_image'; images: S1_image"),
        ({"mpp": 0}, ValueError, r"mpp must be a number above 0 \(µm per pixel\): 0"),
        ({"mpp": np.nan}, ValueError, "mpp must be a number above 0"),
    ],
)
def test_register_um_bad_input(options, error, message):
    sdata = foreign()
    how = {"section": "S1", "image": "S1_image", "mpp": 0.5, **options}
    with pytest.raises(error, match=message):
        stp.io.register_um(sdata, how.pop("section"), **how)
    assert sdata.coordinate_systems == ["global"]


def test_register_um_without_a_common_system():
    sdata = foreign()
    set_transformation(sdata.shapes["S1"], {"elsewhere": Identity()}, set_all=True)
    with pytest.raises(ValueError, match="share no coordinate system: elsewhere and global"):
        stp.io.register_um(sdata, "S1", image="S1_image", mpp=0.5)
    assert sorted(sdata.coordinate_systems) == ["elsewhere", "global"]


def bare_images(*names):
    return sd.SpatialData(
        images={
            name: Image2DModel.parse(random_pixels(60, 80).transpose(2, 0, 1), dims=("c", "y", "x"))
            for name in names
        }
    )


@pytest.mark.parametrize(("section", "image"), [("slide", "slide_image"), ("S9", "slide")])
def test_register_um_of_an_image_without_spots(section, image):
    sdata = bare_images(image)
    stp.io.register_um(sdata, section, image=image, mpp=0.5)
    found = get_transformation(sdata.images[image], f"{section}_um")
    np.testing.assert_allclose(found.to_affine_matrix(("x",), ("x",)), [[0.5, 0], [0, 1]])
    assert not sdata.shapes


def test_register_um_of_an_image_beside_a_section():
    # both in "global", as spatialdata puts what nobody placed
    sdata = foreign()
    sdata.images["slide_image"] = bare_images("slide_image").images["slide_image"]
    with pytest.raises(KeyError, match="no shapes 'S9'; shapes: S1"):
        stp.io.register_um(sdata, "S9", image="slide_image", mpp=0.5)
    stp.io.register_um(sdata, "slide", image="slide_image", mpp=0.5)
    assert "slide_um" in get_transformation(sdata.images["slide_image"], get_all=True)
