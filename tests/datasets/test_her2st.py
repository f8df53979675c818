"""HER2ST: every section known, every file checked, nothing downloaded here."""

from __future__ import annotations

import gzip
import hashlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import stpredict as stp
from stpredict.datasets import _her2st


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    monkeypatch.delenv("STPREDICT_HER2ST", raising=False)
    monkeypatch.setenv("STPREDICT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def retrieve(url, **_):
        raise AssertionError(f"a test asked the network for {url}")

    monkeypatch.setattr("pooch.retrieve", retrieve)


def blob(content):
    """Git's id of a file, as `git hash-object` gives it."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def section_content(name):
    """Small files of one section: 4 x 3 spots of 20 px pitch, three genes."""
    rng = np.random.default_rng(ord(name[0]) * 10 + int(name[1]))
    y, x = (a.ravel() for a in np.mgrid[2:5, 3:7])
    spots = pd.DataFrame(
        {"x": x, "y": y, "new_x": x, "new_y": y, "pixel_x": (x - 2) * 20, "pixel_y": (y - 1) * 20}
    ).assign(selected=1)
    genes = ["ERBB2", "CD74", f"ONLY_{name}"]
    counts = pd.DataFrame(
        rng.poisson(3, (12, 3)),
        index=[f"{a}x{b}" for a, b in zip(x, y, strict=True)],
        columns=genes,
    )
    return (
        gzip.compress(counts.to_csv(sep="\t").encode(), mtime=0),
        rng.integers(0, 255, (80, 110, 3), dtype=np.uint8),
        spots.to_csv(sep="\t", index=False).encode(),
    )


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A small folder `data`, laid out as upstream's, that the package takes for it."""
    root = tmp_path / "data"
    blobs = {}
    for section in ("A1", "A2", "H3"):
        counts, image, spots = _her2st.section_files()[section]
        counts_bytes, pixels, spots_bytes = section_content(section)
        for name in (counts, image, spots):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / counts).write_bytes(counts_bytes)
        (root / spots).write_bytes(spots_bytes)
        Image.fromarray(pixels).save(root / image)
        for name in (counts, image, spots):
            blobs[name] = blob((root / name).read_bytes())
    known = {**_her2st._blobs(), **blobs}
    monkeypatch.setattr(_her2st, "_blobs", lambda: known)
    return root


def test_all_sections_are_known():
    known = _her2st.section_files()
    letters = {name: 6 if name in "ABCD" else 3 for name in "ABCDEFGH"}
    assert list(known) == [f"{name}{i + 1}" for name, n in letters.items() for i in range(n)]
    assert len(known) == 36
    paths = [path for files in known.values() for path in files]
    assert len(set(paths)) == 108
    blobs = _her2st._blobs()
    assert set(paths) <= set(blobs)
    assert all(len(blobs[path]) == 40 and int(blobs[path], 16) for path in paths)
    for name, (counts, image, spots) in known.items():
        assert counts == f"ST-cnts/{name}.tsv.gz"
        assert image.startswith(f"ST-imgs/{name[0]}/{name}/")
        assert image.endswith(".jpg")
        assert spots == f"ST-spotfiles/{name}_selection.tsv"


def test_blob_id_is_gits(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"hello\n")
    monkeypatch.setattr(
        _her2st, "_blobs", lambda: {"a": "ce013625030ba8dba906f756967f9e9ca394464a"}
    )
    _her2st._check(tmp_path / "a", "a")  # what `git hash-object` prints for it


def test_local_copy(upstream):
    sdata = stp.datasets.her2st(["A1", "H3"], directory=upstream)
    table = sdata.tables["table"]
    assert set(sdata.shapes) == {"A1", "H3"}
    assert dict(table.obs.groupby("region", observed=True)["patient"].first()) == {
        "A1": "A",
        "H3": "H",
    }
    # genes that one file leaves out were not counted there
    counts = table.to_df()
    assert sorted(counts) == ["CD74", "ERBB2", "ONLY_A1", "ONLY_H3"]
    assert (counts.loc[table.obs["region"] == "H3", "ONLY_A1"] == 0).all()
    assert counts.loc[table.obs["region"] == "A1", "ONLY_A1"].sum() > 0


def test_one_name_and_the_environment_variable(upstream, monkeypatch):
    monkeypatch.setenv("STPREDICT_HER2ST", str(upstream))
    sdata = stp.datasets.her2st("A2")
    assert list(sdata.shapes) == ["A2"]
    assert list(sdata.tables["table"].obs["patient"].unique()) == ["A"]


def test_directory_goes_before_the_environment_variable(upstream, monkeypatch, tmp_path):
    monkeypatch.setenv("STPREDICT_HER2ST", str(tmp_path / "nothing here"))
    stp.datasets.her2st("A2", directory=upstream)
    with pytest.raises(FileNotFoundError, match=r"nothing here.*A2\.tsv\.gz does not exist"):
        stp.datasets.her2st("A2")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (["C2", "C7"], "no such sections: C7; available: A1, A2, .*, H3$"),
        ("c2", "no such sections: c2"),
        (["E4", "I1"], "no such sections: E4, I1"),
        ([], "no such sections: none; available: A1"),
        (["C2", "C3", "C2"], "sections are not unique, repeated: C2"),
    ],
)
def test_unknown_sections(sections, message):
    with pytest.raises(ValueError, match=message):
        stp.datasets.her2st(sections)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_missing_file(upstream, which):
    name = _her2st.section_files()["A1"][which]
    (upstream / name).unlink()
    with pytest.raises(
        FileNotFoundError, match="does not exist; directory= must be a copy"
    ) as told:
        stp.datasets.her2st(["A2", "A1"], directory=upstream)
    assert name in str(told.value)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("change", [lambda b: b[:-5], lambda b: b + b"\n", lambda b: b""])
def test_wrong_file(upstream, which, change):
    path = upstream / _her2st.section_files()["A1"][which]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="is not upstream's file: its git blob id is") as told:
        stp.datasets.her2st("A1", directory=upstream)
    assert blob(path.read_bytes()) in str(told.value)
    assert path.is_file()  # the user's own file is left alone


class Server:
    """Stands in for the network: serves a folder by the addresses of upstream's files."""

    def __init__(self, root):
        self.root, self.asked = root, []

    def retrieve(self, url, *, known_hash, fname, path, **_):
        name = url.removeprefix(_her2st.URL)
        assert url == _her2st.URL + name
        self.asked.append(name)
        target = path / fname
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((self.root / name).read_bytes())
        return str(target)


@pytest.fixture
def server(upstream, monkeypatch):
    served = Server(upstream)
    monkeypatch.setattr("pooch.retrieve", served.retrieve)
    return served


def test_download(server, tmp_path):
    files = _her2st.section_files()["A1"]
    sdata = stp.datasets.her2st("A1")
    assert sorted(server.asked) == sorted(files)
    cache = tmp_path / "cache" / "her2st"
    found = sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file())
    assert found == sorted(files)  # nothing half-done is left
    again = stp.datasets.her2st("A1")  # from the cache
    assert len(server.asked) == 3
    assert (again.tables["table"].X != sdata.tables["table"].X).nnz == 0
    stp.datasets.her2st(["A1", "A2"])
    assert len(server.asked) == 6


def test_download_cut_off(server, upstream, tmp_path):
    path = upstream / _her2st.section_files()["A1"][1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not upstream's file"):
        stp.datasets.her2st("A1")
    assert not list((tmp_path / "cache").rglob("*.jpg*"))
    path.write_bytes(whole)
    stp.datasets.her2st("A1")  # asks again


def test_cached_file_damaged(server, tmp_path):
    whole = stp.datasets.her2st("A1").tables["table"]
    path = tmp_path / "cache" / "her2st" / _her2st.section_files()["A1"][0]
    path.write_bytes(path.read_bytes()[:-9])
    again = stp.datasets.her2st("A1").tables["table"]
    assert len(server.asked) == 4  # that file was downloaded again
    assert (whole.X != again.X).nnz == 0


def test_offline(monkeypatch, tmp_path):
    def retrieve(url, **_):
        raise ConnectionResetError("no route to host")

    monkeypatch.setattr("pooch.retrieve", retrieve)
    message = (
        r"A1.* could not be downloaded \(no route to host\).*directory= or set STPREDICT_HER2ST"
    )
    with pytest.raises(ConnectionError, match=message):
        stp.datasets.her2st("A1")
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache").rglob("*.gz"))
