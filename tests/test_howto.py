"""How-to pages: their Python code runs from top to bottom, on files as users have them.

Blocks of ``python`` are run; a ``{code-block} python`` is only shown.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tifffile
from anndata import AnnData
from PIL import Image

import stpredict as stp
from hostile.attack_files import module, write_10x

PAGES = Path(__file__).parents[1] / "docs" / "howto"
DATA = Path(__file__).parents[2] / "shared" / "data"


def code_of(page):
    """The blocks of Python of a page, each on the lines that it has on the page."""
    inside, lines = False, []
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines)


def tissue(height, width, mpp, seed=0):
    """Pixels of synthetic tissue, (height, width, 3)."""
    section = stp.datasets.phantom(size_px=(height, width), mpp=mpp, tile_um=20, seed=seed)
    return section.images["S1_image"]["scale0"]["image"].to_numpy().transpose(1, 2, 0)


def write_image(path, pixels):
    Image.fromarray(pixels).save(path)


def visium(folder):
    """Two patients, each with the output of Space Ranger and the image it was run on."""
    for seed, patient in enumerate(["P1", "P2"]):
        outs, shape = folder / patient / "outs", (1000, 800)
        tests = module(Path("io/test_read_visium.py"))
        tests.write_visium(outs, write_10x(), mpp=1.0, fullres=shape, mean=50)
        pixels = tissue(*shape, mpp=1.0, seed=seed)
        write_image(folder / patient / "V1.tif", pixels)
        write_image(outs / "spatial" / "tissue_hires_image.png", pixels[::2, ::2])


def visium_hd(folder):
    tests = module(Path("io/test_read_visium_hd.py"))
    outs = folder / "P1" / "outs"
    for size in (8, 16):
        tests.write_bin(outs / "binned_outputs" / f"square_{size:03}um", size, write_10x(), mean=10)
    write_image(folder / "P1" / "HD1.tif", tissue(*tests.FULL_YX, mpp=tests.MPP))


def xenium(folder):
    tests = module(Path("io/test_read_xenium.py"))
    files = tests.Xenium(folder, write_10x(), mean=10)
    pixels = tissue(*tests.IMAGE_YX, mpp=1.7 * tests.PIXEL_UM)
    tifffile.imwrite(files.image, pixels, photometric="rgb", tile=(128, 128))


def real(name):
    def link(folder):
        if not (DATA / name).is_dir():
            pytest.skip(f"no real data: ../shared/data/{name}")
        for path in (DATA / name).iterdir():
            (folder / path.name).symlink_to(path)

    return link


def arrays(folder):
    section = stp.datasets.phantom(size_px=800, mpp=0.5, n_morphology=4, n_null=0, n_neighborhood=0)
    np.save(folder / "pixels.npy", section.images["S1_image"]["scale0"]["image"].to_numpy())
    np.save(folder / "positions.npy", section["table"].obsm["spatial"])
    np.save(folder / "counts.npy", section["table"].to_df().to_numpy())


def predictions(folder):
    """A measured section with predictions, and predictions of other tools."""
    design = stp.datasets.phantom(size_px=1000, n_morphology=20, n_neighborhood=0, n_null=20)
    image = design.images["S1_image"]["scale0"]["image"]
    new = stp.io.read_h5ad(design["table"], image.data, section="C5", mpp=1.0, diameter_um=55)
    table = new["table"]
    table.var["gene_ids"] = [f"ENSG{number:011d}" for number in range(table.n_vars)]
    stp.pp.normalize(new)
    stp.pp.neighbors(new)
    values = pd.DataFrame(table.layers["log1p"].toarray(), table.obs_names, table.var_names)
    values += np.random.default_rng(0).normal(size=values.shape)
    stp.io.read_predictions(new, values, same_units=True, key_added="predicted")
    new.write(folder / "measured.zarr")
    values.set_axis(table.var["gene_ids"], axis=1).to_csv(folder / "predictions.csv")
    x, y = table.obsm["spatial"].T
    values.assign(x=x, y=y).to_csv(folder / "tiles.csv", index=False)
    tiles = AnnData(values.reset_index(drop=True).rename(index=str))
    tiles.obsm["spatial"] = table.obsm["spatial"]
    tiles.write_h5ad(folder / "deepspotm.h5ad")
    genes = [*table.var_names[:5], *table.var_names[-5:]]
    (folder / "hallmarks.gmt").write_text("\t".join(["A", "", *genes]) + "\n")


@pytest.fixture(scope="module")
def sections(tmp_path_factory):
    """A folder with three measured sections, a new one, features of both, and a model."""
    folder = tmp_path_factory.mktemp("sections")
    design = {"size_px": 600, "n_morphology": 20, "n_neighborhood": 0, "n_null": 10}
    for prefix, name, n, seed in (("", "sections", 3, 0), ("new_", "new", 1, 5)):
        sdata = stp.datasets.phantom(n, seed=seed, **design)
        table = sdata["table"]
        table.var_names = ["ERBB2", "KRT18", *table.var_names[2:]]
        rng = np.random.default_rng(seed)
        np.save(folder / f"{prefix}features.npy", rng.normal(size=(table.n_obs, 8)))
        sdata.write(folder / f"{name}.zarr")
        if name == "sections":
            stp.pp.normalize(sdata)
            stp.pp.embed(sdata)
            stp.pp.neighbors(sdata)
            genes = list(table.var_names[:10])
            stp.tl.fit_ridge(sdata, genes=genes, alpha=1.0).save(folder / "ridge_her2")
    return folder


@pytest.fixture(scope="module")
def slides(tmp_path_factory, write_slide):
    """A folder with two slides, and models of square spots 200 µm apart."""
    folder = tmp_path_factory.mktemp("slides")
    (folder / "slides").mkdir()
    for seed, name in enumerate(["slides/a.svs", "tumour.svs"]):
        write_slide(folder / name, seed, size_px=1000)
    genes = {"n_morphology": 3, "n_neighborhood": 0, "n_null": 0}
    train = stp.datasets.phantom(2, size_px=1000, spots="square", pitch_um=200, **genes)
    train["table"].var_names = ["ERBB2", "KRT18", "CD74"]
    stp.pp.normalize(train)
    stp.pp.embed(train)
    stp.pp.neighbors(train)
    model = stp.tl.fit_ridge(train, genes=list(train["table"].var_names), alpha=1.0)
    for name in ("ridge_her2", "deepspot_her2"):
        model.save(folder / name)
    return folder


#: What writes the files of a page into a folder: a function, or a fixture with a folder to copy.
FILES = {
    "after": "sections",
    "cohorts": "slides",
    "data": visium,
    "features": "sections",
    "h5ad": real("xenium_ncbi858"),
    "lazyslide": "slides",
    "legacy_st": real("her2st"),
    "other_tools": predictions,
    "save": "sections",
    "spatialdata": arrays,
    "trust": "sections",
    "visium": visium,
    "visium_hd": visium_hd,
    "xenium": xenium,
}
#: Figures of LazySlide.
MARKS = {"lazyslide": pytest.mark.filterwarnings("ignore::DeprecationWarning")}


@pytest.mark.skipif(not PAGES.is_dir(), reason="no documentation in a source distribution")
@pytest.mark.parametrize("name", [pytest.param(each, marks=MARKS.get(each, ())) for each in FILES])
def test_the_code_on_a_page_runs(name, request, tmp_path, monkeypatch):
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    monkeypatch.setattr(stp.settings, "cache_dir", None)
    if callable(FILES[name]):
        FILES[name](tmp_path)
    else:
        shutil.copytree(request.getfixturevalue(FILES[name]), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    page = PAGES / f"{name}.md"
    try:
        exec(compile(code_of(page), str(page), "exec"), {"__name__": "__main__"})
    finally:
        plt.close("all")


@pytest.mark.skipif(not PAGES.is_dir(), reason="no documentation in a source distribution")
def test_every_page_with_code_is_run():
    pages = {page.stem for page in PAGES.glob("*.md") if "\n```python\n" in page.read_text()}
    assert pages == set(FILES)
