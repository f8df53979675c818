"""Xenium, read from files as the instrument writes them, with a rotated H&E image."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import tifffile
import zarr
from spatialdata_io.readers.xenium import cell_id_str_from_prefix_suffix_uint32

import stpredict as stp
from stpredict._sdata._spot_table import open_table

PIXEL_UM = 0.2125
IMAGE_YX = (420, 560)
SYMBOLS = ["ERBB2", "KRT5", "ACTB", "NegControlProbe_1", "UnassignedCodeword_7"]
TYPES = ["Gene Expression"] * 3 + ["Negative Control Probe", "Unassigned Codeword"]


def rotated(angle=0.1, scale=1.7, shift=(30.0, -12.0), *, mirrored=False):
    """From pixels of the H&E image to pixels of the morphology image."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    flip = -1 if mirrored else 1
    return np.array([[c, -s * flip, shift[0]], [s, c * flip, shift[1]], [0, 0, 1.0]])


def to_um(pixels, alignment):
    return (pixels @ alignment[:2, :2].T + alignment[:2, 2]) * PIXEL_UM


def write_alignment(path, matrix):
    np.savetxt(path, matrix, delimiter=",")


class Xenium:
    """Files of one section: square cells of 12 px on a jittered grid of the H&E image."""

    def __init__(
        self, folder, write_10x, *, version="2.0.0.10", alignment=None, beyond=(), mean=1.0
    ):
        random = np.random.default_rng(0)
        self.folder = folder / "outs"
        self.folder.mkdir()
        self.alignment = rotated() if alignment is None else alignment
        y, x = (a.ravel() for a in np.mgrid[20:400:20, 20:540:20])
        centers = np.column_stack([x, y]) + random.uniform(-4, 4, (len(x), 2))
        self.centers = np.concatenate([centers, np.reshape(beyond, (-1, 2))])
        n = len(self.centers)
        self.counts = random.poisson(mean, (n, len(SYMBOLS)))
        corners = np.array([[-6, -6], [6, -6], [6, 6], [-6, 6], [-6, -6]])
        self.vertices = to_um((self.centers[:, None] + corners).reshape(-1, 2), self.alignment)
        self.modern = not version.startswith("1.0")
        prefix = random.permutation(1000)[:n].astype(np.uint32)
        self.ids = (
            cell_id_str_from_prefix_suffix_uint32(prefix, np.ones(n, dtype=np.uint32))
            if self.modern
            else np.arange(1, n + 1)
        )
        self.area_um2 = 144.0 * abs(np.linalg.det(self.alignment)) * PIXEL_UM**2
        self.image = self.folder / "X1_he_image.ome.tif"
        self.pixels = random.integers(0, 255, (*IMAGE_YX, 3), dtype=np.uint8)
        self.write(version, prefix)
        write_10x(
            self.folder / "cell_feature_matrix.h5",
            self.counts,
            [str(name) for name in self.ids],
            ids=[f"ENSG{i:011d}" for i in range(len(TYPES))],
            symbols=SYMBOLS,
            types=TYPES,
        )

    def write(self, version, prefix):
        n = len(self.ids)
        specs = {"analysis_sw_version": f"xenium-{version}", "pixel_size": PIXEL_UM}
        (self.folder / "experiment.xenium").write_text(json.dumps(specs))
        um = to_um(self.centers, self.alignment)
        cells = {"cell_id": self.ids, "x_centroid": um[:, 0], "y_centroid": um[:, 1]}
        cells |= {"transcript_counts": self.counts.sum(axis=1), "cell_area": self.area_um2}
        pd.DataFrame({**cells, "nucleus_area": 20.0}).to_parquet(self.folder / "cells.parquet")
        self.write_boundaries(np.arange(n))
        root = zarr.create_group(self.folder.parent / "cells.zarr", zarr_format=2)
        summary = root.create_array("cell_summary", data=np.zeros((n, 8)))
        summary.attrs["column_names"] = [
            *("cell_centroid_x", "cell_centroid_y", "cell_area", "nucleus_centroid_x"),
            *("nucleus_centroid_y", "nucleus_area", "z_level", "nucleus_count"),
        ]
        if self.modern:
            root.create_array("cell_id", data=np.column_stack([prefix, np.ones_like(prefix)]))
            for mask in (0, 1):
                name = f"polygon_sets/{mask}/cell_index"
                root.create_array(name, data=np.arange(n, dtype=np.uint32))
        else:
            root.create_array("cell_id", data=np.asarray(self.ids, dtype=np.uint32))
        shutil.make_archive(
            str(self.folder / "cells.zarr"), "zip", self.folder.parent / "cells.zarr"
        )
        tifffile.imwrite(self.image, self.pixels, photometric="rgb", tile=(128, 128))
        write_alignment(self.folder / "X1_he_imagealignment.csv", self.alignment)

    def write_boundaries(self, cells):
        rows = (5 * cells[:, None] + np.arange(5)).ravel()
        table = pd.DataFrame(self.vertices[rows], columns=["vertex_x", "vertex_y"])
        table["cell_id"] = np.repeat(self.ids[cells], 5)
        if self.modern:
            table["label_id"] = np.repeat(cells + 1, 5)
        table.to_parquet(self.folder / "cell_boundaries.parquet")

    def read(self, **options):
        return stp.io.read_xenium(self.folder, section="X1", **options)


@pytest.fixture
def xenium(tmp_path, write_10x):
    return Xenium(tmp_path, write_10x)


def only_section(sdata):
    (section,) = open_table(sdata).sections
    return section


@pytest.mark.parametrize("version", ["2.0.0.10", "1.0.2"])
@pytest.mark.parametrize("shapes", ["boundaries", "circles"])
def test_cells_have_their_planted_positions(tmp_path, write_10x, version, shapes):
    files = Xenium(tmp_path, write_10x, version=version)
    sdata = files.read(shapes=shapes, patient="P")
    section, table = only_section(sdata), sdata.tables["table"]
    np.testing.assert_allclose(section.centers, files.centers, atol=1e-6)
    np.testing.assert_allclose(table.obsm["spatial"], files.centers, atol=1e-6)
    assert section.mpp == pytest.approx(1.7 * PIXEL_UM)
    np.testing.assert_allclose(section.radius_um, np.sqrt(files.area_um2 / np.pi), rtol=1e-6)
    if shapes == "boundaries":
        np.testing.assert_allclose(sdata.shapes["X1"].geometry.area, 144, rtol=1e-6)
    np.testing.assert_array_equal(table.X.toarray(), files.counts[:, :3])  # without controls
    assert list(table.var_names) == SYMBOLS[:3]
    assert list(table.obs["instance_id"]) == [str(name) for name in files.ids]
    assert set(table.obs["patient"]) == {"P"}
    um = to_um(files.centers, files.alignment)
    np.testing.assert_allclose(table.obs[["x_centroid", "y_centroid"]], um)
    np.testing.assert_array_equal(section.levels[0].compute(), files.pixels.transpose(2, 0, 1))


def test_a_mirrored_image_is_aligned(tmp_path, write_10x):
    files = Xenium(tmp_path, write_10x, alignment=rotated(3.0, 0.8, (300.0, 500.0), mirrored=True))
    section = only_section(files.read())
    np.testing.assert_allclose(section.centers, files.centers, atol=1e-6)
    assert section.mpp == pytest.approx(0.8 * PIXEL_UM)


def test_image_and_alignment_may_be_in_another_folder(xenium, tmp_path):
    image = xenium.image.rename(tmp_path / "elsewhere.tif")
    table = tmp_path / "matrix.csv"
    (xenium.folder / "X1_he_imagealignment.csv").rename(table)
    for alignment in (table, str(table), xenium.alignment):
        section = only_section(xenium.read(image=image, alignment=alignment))
        np.testing.assert_allclose(section.centers, xenium.centers, atol=1e-6)


def test_the_alignment_may_be_the_identity(tmp_path, write_10x):
    files = Xenium(tmp_path, write_10x, alignment=np.eye(3))
    (files.folder / "X1_he_imagealignment.csv").unlink()
    section = only_section(files.read(alignment=np.eye(3)))
    assert section.mpp == pytest.approx(PIXEL_UM)
    np.testing.assert_allclose(section.centers, files.centers, atol=1e-6)


def test_genes_can_be_indexed_by_id(xenium):
    table = xenium.read(gene_names="ids").tables["table"]
    assert list(table.var_names) == [f"ENSG{i:011d}" for i in range(3)]
    assert list(table.var["gene_symbols"]) == SYMBOLS[:3]


def test_cells_beyond_the_image_are_left_out_and_logged(tmp_path, write_10x, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    files = Xenium(tmp_path, write_10x, beyond=[[-30, 50], [600, 50], [100, 421]])
    sdata = files.read()
    n = len(files.centers)
    assert f"X1: 3 of {n} spots or cells have no position in the image" in capsys.readouterr().out
    np.testing.assert_allclose(only_section(sdata).centers, files.centers[:-3], atol=1e-6)
    np.testing.assert_array_equal(sdata.tables["table"].X.toarray(), files.counts[:-3, :3])


def test_cells_without_a_boundary_are_left_out_and_logged(xenium, capsys, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 1)
    n = len(xenium.ids)
    with_boundary = np.setdiff1d(np.arange(n), [2, 7])
    xenium.write_boundaries(with_boundary)
    table = xenium.read().tables["table"]
    assert f"X1: 2 of {n} cells have no boundary around their centroid" in capsys.readouterr().out
    assert list(table.obs["instance_id"]) == list(xenium.ids[with_boundary])
    np.testing.assert_array_equal(table.X.toarray(), xenium.counts[with_boundary, :3])
    assert xenium.read(shapes="circles").tables["table"].n_obs == n


def mean_colour(tiles):
    return tiles.mean((-2, -1))


@pytest.mark.parametrize("shapes", ["boundaries", "circles"])
def test_a_section_is_embedded_after_a_round_trip_through_zarr(xenium, tmp_path, shapes):
    sdata = xenium.read(shapes=shapes)
    sdata.write(tmp_path / "a.zarr")
    back = sd.read_zarr(tmp_path / "a.zarr")
    np.testing.assert_allclose(only_section(back).centers, xenium.centers, atol=1e-6)
    stp.pp.embed(back, mean_colour, key_added="X_colour", tile_um=8, n_subtiles=1)
    table = back.tables["table"]
    assert (table.X != sdata.tables["table"].X).nnz == 0
    assert table.obsm["X_colour"].shape == (len(xenium.ids), 3)
    assert np.isfinite(table.obsm["X_colour"]).all()


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("experiment.xenium", "no such file: .*experiment.xenium"),
        ("cells.parquet", "no such file: .*cells.parquet"),
        ("cells.zarr.zip", "no such file: .*cells.zarr.zip"),
        ("cell_feature_matrix.h5", "no such file: .*cell_feature_matrix.h5"),
        ("cell_boundaries.parquet", 'no such file: .*cell_boundaries.parquet. shapes="circles"'),
        ("X1_he_image.ome.tif", r"has 0 H&E images \*he_image.ome.tif. Set image="),
        ("X1_he_imagealignment.csv", "no such file: .*X1_he_imagealignment.csv. Set alignment="),
    ],
)
def test_missing_files_raise_before_anything_is_read(xenium, monkeypatch, name, message):
    import spatialdata_io

    (xenium.folder / name).unlink()
    monkeypatch.setattr(spatialdata_io, "xenium", None)  # cannot be called
    with pytest.raises(FileNotFoundError, match=message):
        xenium.read()


BAD_ALIGNMENTS = [
    (np.eye(2), "alignment must be a finite 3 × 3 matrix"),
    (np.array([[1, 0, 0], [0, 1, 0], [0.1, 0, 1]]), "must be .* with the last row 0, 0, 1"),
    (np.diag([1, np.nan, 1]), "must be a finite 3 × 3 matrix"),
    (np.diag([1.0, 0, 1]), "stretches its axes by 0.2125 and 0;"),
    (np.zeros((3, 3)) + np.diag([0, 0, 1]), "stretches its axes by 0 and 0"),
    (np.diag([1.0, 1.2, 1]), "stretches its axes by 0.255 and 0.2125"),
    (np.linalg.inv(rotated(0.1, 20.0)), r"mpp=0.010625 is not plausible: .*inverse"),
    (
        np.linalg.inv(rotated(0.1, 2.0)),
        r"section 'X1' .* lie outside the image .*inverse",
    ),
]


@pytest.mark.parametrize(("matrix", "message"), BAD_ALIGNMENTS)
def test_bad_alignments_raise(xenium, matrix, message):
    with pytest.raises(ValueError, match=message):
        xenium.read(alignment=matrix)


def test_keypoints_instead_of_a_matrix_raise(xenium, tmp_path):
    (tmp_path / "points.csv").write_text("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n")
    with pytest.raises(ValueError, match=r"points.csv is not a matrix of numbers.* fixedX, fixedY"):
        xenium.read(alignment=tmp_path / "points.csv")


def test_a_missing_pixel_size_raises(xenium):
    (xenium.folder / "experiment.xenium").write_text('{"analysis_sw_version": "xenium-2.0.0.10"}')
    with pytest.raises(ValueError, match=r"experiment.xenium has no pixel_size; it has analysis"):
        xenium.read()


def change_table(name, change):
    def apply(folder):
        change(pd.read_parquet(folder / name)).to_parquet(folder / name)

    return apply


def change_cells(change):
    return change_table("cells.parquet", change)


def change_boundaries(change):
    return change_table("cell_boundaries.parquet", change)


def change_counts(change):
    def apply(folder):
        with h5py.File(folder / "cell_feature_matrix.h5", "a") as file:
            change(file["matrix"])

    return apply


def truncate(name, share=0.5):
    def apply(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return apply


def swap_two(cells):
    return cells.iloc[[1, 0, *range(2, len(cells))]]


def malformed(group):
    group["indices"][2] = 10**7


def no_genes(group):
    group["features/feature_type"][:] = b"Unassigned Codeword"


def no_version(folder):
    (folder / "experiment.xenium").write_text('{"pixel_size": 0.2125}')


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (change_cells(lambda t: t.drop(columns="cell_area")), ValueError, "has no cell_area"),
        (change_cells(lambda t: t.assign(x_centroid="a")), TypeError, "'x_centroid' of .*parquet"),
        (change_cells(swap_two), ValueError, "cell_id column .* does not match"),
        (change_cells(lambda t: t[:0]), ValueError, "outs cannot be read"),
        (truncate("cells.parquet"), ValueError, "cells.parquet cannot be read"),
        (truncate("cells.zarr.zip"), ValueError, "outs cannot be read .*zip"),
        (truncate("cell_feature_matrix.h5"), ValueError, "matrix.h5 cannot be read"),
        (truncate("X1_he_image.ome.tif"), ValueError, "he_image.ome.tif is truncated"),
        (truncate("X1_he_imagealignment.csv", 0), ValueError, "alignment.csv cannot be read"),
        (truncate("experiment.xenium"), ValueError, "experiment.xenium cannot be read"),
        (no_version, ValueError, "outs cannot be read .*analysis_sw_version"),
        (change_counts(malformed), ValueError, "matrix.h5 cannot be read .*indices must be"),
        (change_counts(no_genes), ValueError, "no features of the type Gene Expression"),
        (
            change_boundaries(lambda t: t.assign(label_id=t["label_id"].to_numpy()[::-1])),
            ValueError,
            r"494 of 494 boundaries in section 'X1' are not around the centroid",
        ),
        (
            change_boundaries(lambda t: t.assign(vertex_x=1000 * t["vertex_x"])),
            ValueError,
            "boundaries in section 'X1' are not around the centroid",
        ),
    ],
)
def test_damaged_or_mixed_files_raise(xenium, change, error, message):
    change(xenium.folder)
    with pytest.raises(error, match=message):
        xenium.read()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_cells_with_an_invalid_boundary_are_left_out(xenium, value):
    change_boundaries(lambda t: t.assign(vertex_x=t["vertex_x"].where(t.index != 7, value)))(
        xenium.folder
    )
    table = xenium.read().tables["table"]
    assert list(table.obs["instance_id"]) == list(np.delete(xenium.ids, 1))


def test_names_of_cells_outside_the_image_are_kept(tmp_path, write_10x):
    files = Xenium(tmp_path, write_10x, beyond=[[-30, 50]])
    table = files.read().tables["table"]
    assert list(table.uns["stpredict"]["outside_image"]["X1"]) == [files.ids[-1]]


def test_the_alignment_may_be_a_list(xenium):
    section = only_section(xenium.read(alignment=xenium.alignment.tolist()))
    np.testing.assert_allclose(section.centers, xenium.centers, atol=1e-6)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "__a"])
def test_names_that_cannot_be_written_raise(xenium, name):
    with pytest.raises(ValueError, match=f"section={name!r} must be a name of letters"):
        stp.io.read_xenium(xenium.folder, section=name)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shapes": "nuclei"}, ValueError, "'nuclei' is not one of 'boundaries', 'circles'"),
        ({"gene_names": "names"}, ValueError, "gene_names='names' is not one of"),
        ({"image": "absent.tif"}, FileNotFoundError, "no such file: absent.tif"),
        ({"alignment": "absent.csv"}, FileNotFoundError, "no such file: absent.csv"),
    ],
)
def test_bad_options_raise(xenium, options, error, message):
    with pytest.raises(error, match=message):
        xenium.read(**options)


def test_several_images_or_a_missing_folder_raise(xenium, tmp_path):
    (xenium.folder / "X2_he_image.ome.tif").write_bytes(xenium.image.read_bytes())
    with pytest.raises(FileNotFoundError, match="has 2 H&E images"):
        xenium.read()
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*outz"):
        stp.io.read_xenium(tmp_path / "outz", section="X1")
