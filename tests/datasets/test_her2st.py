"""HER2ST: every section is listed and every file is checked; tests download nothing."""

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
        raise AssertionError(f"a test tried to download {url}")

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
    """Small copy of the original folder `data`, whose blob ids replace the real ones."""
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
    blob_ids = {**_her2st._blob_ids(), **blobs}
    monkeypatch.setattr(_her2st, "_blob_ids", lambda: blob_ids)
    return root


def test_all_sections_are_listed():
    sections = _her2st.section_files()
    n_sections = {name: 6 if name in "ABCD" else 3 for name in "ABCDEFGH"}
    assert list(sections) == [f"{name}{i + 1}" for name, n in n_sections.items() for i in range(n)]
    assert len(sections) == 36
    paths = [path for files in sections.values() for path in files]
    assert len(set(paths)) == 108
    blobs = _her2st._blob_ids()
    assert set(paths) <= set(blobs)
    assert all(len(blobs[path]) == 40 and int(blobs[path], 16) for path in paths)
    for name, (counts, image, spots) in sections.items():
        assert counts == f"ST-cnts/{name}.tsv.gz"
        assert image.startswith(f"ST-imgs/{name[0]}/{name}/")
        assert image.endswith(".jpg")
        assert spots == f"ST-spotfiles/{name}_selection.tsv"


def test_the_blob_id_equals_that_of_git(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"hello\n")
    monkeypatch.setattr(
        _her2st, "_blob_ids", lambda: {"a": "ce013625030ba8dba906f756967f9e9ca394464a"}
    )
    _her2st._check(tmp_path / "a", "a")  # what `git hash-object` prints for it


def test_a_local_copy_is_read(upstream):
    sdata = stp.datasets.her2st(["A1", "H3"], directory=upstream)
    table = sdata.tables["table"]
    assert set(sdata.shapes) == {"A1", "H3"}
    assert dict(table.obs.groupby("region", observed=True)["patient"].first()) == {
        "A1": "A",
        "H3": "H",
    }
    # a gene that a file omits has count 0
    counts = table.to_df()
    assert sorted(counts) == ["CD74", "ERBB2", "ONLY_A1", "ONLY_H3"]
    assert (counts.loc[table.obs["region"] == "H3", "ONLY_A1"] == 0).all()
    assert counts.loc[table.obs["region"] == "A1", "ONLY_A1"].sum() > 0


def test_one_name_is_read_from_the_environment_variable(upstream, monkeypatch):
    monkeypatch.setenv("STPREDICT_HER2ST", str(upstream))
    sdata = stp.datasets.her2st("A2")
    assert list(sdata.shapes) == ["A2"]
    assert list(sdata.tables["table"].obs["patient"].unique()) == ["A"]


def test_the_directory_overrides_the_environment_variable(upstream, monkeypatch, tmp_path):
    monkeypatch.setenv("STPREDICT_HER2ST", str(tmp_path / "empty"))
    stp.datasets.her2st("A2", directory=upstream)
    with pytest.raises(FileNotFoundError, match=r"no such file: .*empty.*A2\.tsv\.gz"):
        stp.datasets.her2st("A2")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (["C2", "C7"], "unknown sections: C7. Available are A1, A2, .*, H3$"),
        ("c2", "unknown sections: c2"),
        (["E4", "I1"], "unknown sections: E4, I1"),
        ([], "unknown sections: none. Available are A1"),
        (["C2", "C3", "C2"], "sections are not unique, repeated: C2"),
    ],
)
def test_unknown_sections_raise(sections, message):
    with pytest.raises(ValueError, match=message):
        stp.datasets.her2st(sections)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_missing_file_raises(upstream, which):
    name = _her2st.section_files()["A1"][which]
    (upstream / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"no such file: .* directory= must be a copy"
    ) as error:
        stp.datasets.her2st(["A2", "A1"], directory=upstream)
    assert name in str(error.value)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("change", [lambda b: b[:-5], lambda b: b + b"\n", lambda b: b""])
def test_a_changed_file_raises(upstream, which, change):
    path = upstream / _her2st.section_files()["A1"][which]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(
        ValueError, match="differs from the original file: its git blob id"
    ) as error:
        stp.datasets.her2st("A1", directory=upstream)
    assert blob(path.read_bytes()) in str(error.value)
    assert path.is_file()  # the user's file is not deleted


class Server:
    """Replaces pooch: serves files of a folder by their original addresses."""

    def __init__(self, root):
        self.root, self.requests = root, []

    def retrieve(self, url, *, known_hash, fname, path, **_):
        name = url.removeprefix(_her2st.URL)
        assert url == _her2st.URL + name
        self.requests.append(name)
        target = path / fname
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((self.root / name).read_bytes())
        return str(target)


@pytest.fixture
def server(upstream, monkeypatch):
    served = Server(upstream)
    monkeypatch.setattr("pooch.retrieve", served.retrieve)
    return served


def test_files_are_downloaded_once(server, tmp_path):
    files = _her2st.section_files()["A1"]
    sdata = stp.datasets.her2st("A1")
    assert sorted(server.requests) == sorted(files)
    cache = tmp_path / "cache" / "her2st"
    cached = sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file())
    assert cached == sorted(files)  # no partial files
    again = stp.datasets.her2st("A1")  # from the cache
    assert len(server.requests) == 3
    assert (again.tables["table"].X != sdata.tables["table"].X).nnz == 0
    stp.datasets.her2st(["A1", "A2"])
    assert len(server.requests) == 6


def test_an_incomplete_download_is_repeated(server, upstream, tmp_path):
    path = upstream / _her2st.section_files()["A1"][1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="differs from the original file"):
        stp.datasets.her2st("A1")
    assert not list((tmp_path / "cache").rglob("*.jpg*"))
    path.write_bytes(whole)
    stp.datasets.her2st("A1")  # downloads again


def test_a_damaged_file_in_the_cache_is_downloaded_again(server, tmp_path):
    whole = stp.datasets.her2st("A1").tables["table"]
    path = tmp_path / "cache" / "her2st" / _her2st.section_files()["A1"][0]
    path.write_bytes(path.read_bytes()[:-9])
    again = stp.datasets.her2st("A1").tables["table"]
    assert len(server.requests) == 4  # that file was downloaded again
    assert (whole.X != again.X).nnz == 0


def test_a_failed_download_raises(monkeypatch, tmp_path):
    def retrieve(url, **_):
        try:
            raise ConnectionResetError("no route to host")
        except OSError as error:
            raise OSError("Max retries exceeded " * 100) from error

    monkeypatch.setattr("pooch.retrieve", retrieve)
    reason = r"\(ConnectionResetError: no route to host\)"
    message = rf"A1.* could not be downloaded {reason}.*directory= or STPREDICT_HER2ST"
    with pytest.raises(ConnectionError, match=message) as error:
        stp.datasets.her2st("A1")
    assert error.value.__suppress_context__
    assert error.value.__cause__ is None
    assert not (tmp_path / "cache").exists() or not any((tmp_path / "cache").rglob("*.gz"))
