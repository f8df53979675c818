"""Visium HD, written here as Space Ranger writes it; spatialdata-io's reader is the oracle."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import spatialdata_io
from PIL import Image

import stpredict as stp
from stpredict._sdata._spot_table import open_table

MPP = 0.5
HIRES = 0.5
FULL_YX = (400, 520)
SYMBOLS = ["ERBB2", "TBCE", "TBCE", "ACTB", "NegProbe-1"]
TYPES = ["Gene Expression"] * 4 + ["Negative Control Probe"]


def picture(height, width):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def png(path, height, width):
    Image.fromarray(picture(height, width)).save(path)


def write_bin(folder, size, write_10x, *, mean=1.0):
    """Write a grid of bins, the last two rows off the tissue; returns positions and counts."""
    pitch = size / MPP
    row, column = (axis.ravel() for axis in np.mgrid[: int(380 // pitch), : int(500 // pitch)])
    barcodes = np.array(
        [f"s_{size:03}um_{r:05}_{c:05}-1" for r, c in zip(row, column, strict=True)]
    )
    in_tissue = row < row.max() - 1
    pixels = 10 + np.column_stack([(column + 0.5) * pitch, (row + 0.5) * pitch])
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    pd.DataFrame(
        {
            "barcode": barcodes,
            "in_tissue": in_tissue.astype(int),
            "array_row": row,
            "array_col": column,
            "pxl_row_in_fullres": pixels[:, 1],
            "pxl_col_in_fullres": pixels[:, 0],
        }
    ).to_parquet(spatial / "tissue_positions.parquet", index=False)
    scales = {
        "spot_diameter_fullres": size / MPP,
        "bin_size_um": float(size),
        "microns_per_pixel": MPP,
        "regist_target_img_scalef": HIRES,
        "tissue_lowres_scalef": HIRES / 4,
        "fiducial_diameter_fullres": 1000.0,
        "tissue_hires_scalef": HIRES,
    }
    (spatial / "scalefactors_json.json").write_text(json.dumps(scales))
    for name, scale in (("hires", HIRES), ("lowres", HIRES / 4)):
        png(spatial / f"tissue_{name}_image.png", int(FULL_YX[0] * scale), int(FULL_YX[1] * scale))
    rows = np.random.default_rng(size).permutation(np.flatnonzero(in_tissue))  # in no order
    counts = np.random.default_rng(1).poisson(mean, (len(rows), len(SYMBOLS)))
    write_10x(
        folder / "filtered_feature_bc_matrix.h5",
        counts,
        barcodes[rows],
        ids=[f"ENSG{i:011d}" for i in range(len(TYPES))],
        symbols=SYMBOLS,
        types=TYPES,
    )
    return pixels[rows], counts


@pytest.fixture
def hd(tmp_path, write_10x):
    """Folder, image, and positions and counts by bin size."""
    outs = tmp_path / "outs"
    written = {
        size: write_bin(outs / "binned_outputs" / f"square_{size:03}um", size, write_10x)
        for size in (8, 16)
    }
    metadata = {"hd_layout_json": json.dumps({"file_format": "1.0"})}
    with h5py.File(outs / "feature_slice.h5", "w") as file:
        file.attrs["metadata_json"] = json.dumps(metadata)
    png(tmp_path / "full.png", *FULL_YX)
    return outs, tmp_path / "full.png", written


def only_section(sdata):
    (section,) = open_table(sdata).sections
    return section


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("shapes", ["squares", "circles"])
def test_bins_are_read(hd, size, shapes):
    outs, image, written = hd
    pixels, counts = written[size]
    sdata = stp.io.read_visium_hd(
        outs, section="HD", bin_size_um=size, fullres_image=image, shapes=shapes, patient="P"
    )
    table, section = sdata.tables["table"], only_section(sdata)
    np.testing.assert_array_equal(table.X.toarray(), counts[:, :4])  # without the control
    assert section.mpp == MPP
    np.testing.assert_allclose(section.centers, pixels)
    np.testing.assert_allclose(table.obsm["spatial"], pixels)
    assert set(table.obs["patient"]) == {"P"}
    assert {"array_row", "array_col"} <= set(table.obs)
    geometry = sdata.shapes["HD"].geometry
    if shapes == "squares":
        np.testing.assert_allclose(geometry.area, (size / MPP) ** 2)
        np.testing.assert_allclose(section.radius_um, size / np.sqrt(np.pi))  # of equal area
    else:
        np.testing.assert_allclose(section.radius_um, size / 2)
    np.testing.assert_array_equal(section.levels[0].compute(), picture(*FULL_YX).transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore:(Variable names are not unique|No full resolution):UserWarning")
@pytest.mark.parametrize("shapes", ["squares", "circles"])
def test_elements_equal_those_of_spatialdata_io(hd, shapes):
    outs, image, _ = hd
    ours = stp.io.read_visium_hd(outs, section="HD", fullres_image=image, shapes=shapes)
    theirs = spatialdata_io.visium_hd(
        outs,
        dataset_id="HD",
        bin_size=8,
        bins_as_squares=shapes == "squares",
        load_segmentations_only=False,
        fullres_image_file=image,
        gex_only=True,
    )
    table, expected = ours.tables["table"], theirs.tables["square_008um"]
    assert list(table.var_names) == list(expected.var_names)
    assert list(table.obs["instance_id"]) == list(expected.obs_names)
    assert (table.X != expected.X).nnz == 0
    np.testing.assert_array_equal(table.obsm["spatial"], expected.obsm["spatial"])
    a, b = ours.shapes["HD"], theirs.shapes["HD_square_008um"]
    np.testing.assert_allclose(a.bounds, b.bounds)
    if shapes == "circles":
        np.testing.assert_allclose(a["radius"], b["radius"])


def test_bins_lie_on_the_hires_image_by_default(hd, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    outs, _, written = hd
    sdata = stp.io.read_visium_hd(str(outs), section="HD", bin_size_um=16)
    section = only_section(sdata)
    assert section.mpp == MPP / HIRES
    np.testing.assert_allclose(section.centers, written[16][0] * HIRES)
    np.testing.assert_allclose(section.radius_um, 16 / np.sqrt(np.pi))
    output = capsys.readouterr().out
    assert "HD: no fullres_image=, using the hires image (1.00 µm per pixel)" in output
    assert "HD: 1 of 3 gene names occur more than once" in output


def test_both_gene_names_are_kept(hd):
    outs, image, _ = hd
    for gene_names, names in (
        ("symbols", ["ERBB2", "TBCE", "TBCE-1", "ACTB"]),
        ("ids", [f"ENSG{i:011d}" for i in range(4)]),
    ):
        table = stp.io.read_visium_hd(
            outs, section="HD", fullres_image=image, gene_names=gene_names
        ).tables["table"]
        assert list(table.var_names) == names
        assert list(table.var["gene_symbols"]) == SYMBOLS[:4]
        assert list(table.var["gene_ids"]) == [f"ENSG{i:011d}" for i in range(4)]


def mean_colour(tiles):
    return tiles.mean((-2, -1))


@pytest.mark.parametrize("shapes", ["squares", "circles"])
def test_a_section_is_embedded_after_a_round_trip_through_zarr(hd, tmp_path, shapes):
    outs, image, written = hd
    pixels, counts = written[16]
    stp.io.read_visium_hd(
        outs, section="HD", bin_size_um=16, fullres_image=image, shapes=shapes
    ).write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    np.testing.assert_allclose(only_section(back).centers, pixels)
    stp.pp.embed(back, mean_colour, key_added="X_colour", tile_um=16, n_subtiles=1)
    stp.pp.neighbors(back)
    table = back.tables["table"]
    assert table.uns["stpredict"]["neighbors"]["grid"] == "square"
    np.testing.assert_array_equal(table.X.toarray(), counts[:, :4])
    assert table.obsm["X_colour"].shape == (len(pixels), 3)
    assert np.isfinite(table.obsm["X_colour"]).all()


def test_the_folder_of_bins_may_be_passed(hd):
    outs, image, written = hd
    section = only_section(
        stp.io.read_visium_hd(outs / "binned_outputs", section="HD", fullres_image=image)
    )
    np.testing.assert_allclose(section.centers, written[8][0])


def test_an_image_of_another_resolution_raises(hd, tmp_path):
    png(tmp_path / "twice.png", 2 * FULL_YX[0], 2 * FULL_YX[1])
    with pytest.raises(ValueError, match=r"twice.png has 1040 × 800 px, .* about 520 × 400 px"):
        stp.io.read_visium_hd(hd[0], section="HD", fullres_image=tmp_path / "twice.png")


def change_scales(**changes):
    def change(folder):
        file = folder / "spatial" / "scalefactors_json.json"
        scales = {**json.loads(file.read_text()), **changes}
        file.write_text(json.dumps({k: v for k, v in scales.items() if v is not None}))

    return change


def drop_column(folder):
    file = folder / "spatial" / "tissue_positions.parquet"
    pd.read_parquet(file).drop(columns="array_row").to_parquet(file)


def drop_positions(folder):
    file = folder / "spatial" / "tissue_positions.parquet"
    pd.read_parquet(file).iloc[3:].to_parquet(file)


def change_positions(change):
    def apply(folder):
        file = folder / "spatial" / "tissue_positions.parquet"
        change(pd.read_parquet(file)).to_parquet(file)

    return apply


PIXEL = "pxl_col_in_fullres"


def shuffled_pixels(bins):
    return bins.assign(**{PIXEL: bins[PIXEL].sample(frac=1, random_state=0).to_numpy()})


def same_pixels(bins):
    return bins.assign(pxl_row_in_fullres=100.0, pxl_col_in_fullres=100.0)


def repeated(bins):
    return pd.concat([bins, bins[:2]])


def text(bins):
    return bins.assign(**{PIXEL: "left"})


def truncate(name):
    def apply(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return apply


def malformed_counts(folder):
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "a") as file:
        file["matrix/indices"][2] = 10**7


def no_genes(folder):
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "a") as file:
        file["matrix/features/feature_type"][:] = b"Negative Control Probe"


def remove(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            remove("filtered_feature_bc_matrix.h5"),
            FileNotFoundError,
            "no such file.*matrix.h5",
        ),
        (
            remove("spatial/tissue_positions.parquet"),
            FileNotFoundError,
            "no such file.*parquet",
        ),
        (
            remove("spatial/scalefactors_json.json"),
            FileNotFoundError,
            "no such file.*json",
        ),
        (
            remove("spatial/tissue_hires_image.png"),
            FileNotFoundError,
            "no such file: .*tissue_hires_image.png. .* fullres_image=",
        ),
        (
            change_scales(microns_per_pixel=None),
            ValueError,
            "has no microns_per_pixel; it has spot",
        ),
        (change_scales(microns_per_pixel=0), ValueError, "microns_per_pixel in .* above 0: 0"),
        (change_scales(bin_size_um=16.0), ValueError, "for bins of 16 µm, but its folder for 8 µm"),
        (drop_column, ValueError, "parquet has no array_row; it has barcode, in_tissue"),
        (change_positions(shuffled_pixels), ValueError, "pixel positions do not follow the array"),
        (change_positions(same_pixels), ValueError, "array to µm stretches its axes by"),
        (change_positions(repeated), ValueError, "bins have more than one position: s_008um"),
        (change_positions(text), TypeError, "column 'pxl_col_in_fullres' .* must have numbers"),
        (
            change_scales(microns_per_pixel=0.25),
            ValueError,
            "json is 0.25, but positions of bins are on a grid with 0.5",
        ),
        (truncate("spatial/tissue_positions.parquet"), ValueError, "parquet cannot be read"),
        (truncate("spatial/scalefactors_json.json"), ValueError, "json cannot be read"),
        (truncate("spatial/tissue_hires_image.png"), ValueError, "image.png is truncated"),
        (truncate("filtered_feature_bc_matrix.h5"), ValueError, "matrix.h5 cannot be read"),
        (malformed_counts, ValueError, "matrix.h5 cannot be read .*indices must be"),
        (no_genes, ValueError, "no features of the type Gene Expression"),
        (drop_positions, ValueError, "3 of .* bins have counts but no position, .* s_008um_00000_"),
        (change_scales(tissue_hires_scalef=2.0), ValueError, "lie outside the image of 260 × 200"),
    ],
)
def test_bad_files_raise(hd, change, error, message):
    outs, _, _ = hd
    change(outs / "binned_outputs" / "square_008um")
    with pytest.raises(error, match=message):
        stp.io.read_visium_hd(outs, section="HD")


def test_bins_without_a_position_in_the_image_can_be_dropped(hd):
    outs, _, written = hd
    folder = outs / "binned_outputs" / "square_016um"
    change = change_positions(lambda t: t.assign(**{PIXEL: t[PIXEL].where(t.index != 3)}))
    change(folder)
    table = stp.io.read_visium_hd(outs, section="HD", bin_size_um=16, outside="drop").tables[
        "table"
    ]
    assert table.n_obs == len(written[16][0]) - 1
    assert list(table.uns["stpredict"]["outside_image"]["HD"]) == ["s_016um_00000_00003-1"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bin_size_um": 2}, FileNotFoundError, "bin_size_um=2; it has square_008um, square_016um"),
        (
            {"bin_size_um": 8.0},
            ValueError,
            "bin_size_um must be a whole number: 8.0",
        ),
        (
            {"shapes": "hexagons"},
            ValueError,
            "shapes='hexagons' is not one of 'squares', 'circles'",
        ),
        ({"gene_names": "names"}, ValueError, "gene_names='names' is not one of"),
        ({"fullres_image": "absent.tif"}, FileNotFoundError, "no such file: absent.tif"),
    ],
)
def test_bad_options_raise(hd, options, error, message):
    with pytest.raises(error, match=message):
        stp.io.read_visium_hd(hd[0], section="HD", **options)


def test_a_missing_folder_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*outz"):
        stp.io.read_visium_hd(tmp_path / "outz", section="HD")
