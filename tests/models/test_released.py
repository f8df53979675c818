"""Released models are downloaded, verified and read; a small Zenodo answers, not the network."""

from __future__ import annotations

import hashlib
import io
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests

import stpredict as stp
from stpredict.models._deepspot import _released

GOLDEN = Path(__file__).parents[1] / "golden" / "deepspot_release"
ARCHIVE = "DeepSpot_pretrained_model_weights.zip"
PUBLISHED = {
    "final_model.pkl": "spot_final_model.pkl",
    "top_param_overall.yaml": "spot_top_param_overall.yaml",
    "info_highly_variable_genes.csv": "info_highly_variable_genes.csv",
}


def parts(folder):
    return {f"{folder}/{name}": (GOLDEN / f).read_bytes() for name, f in PUBLISHED.items()}


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


class Zenodo:
    """Replaces `requests.get`: resolves DOIs, lists the files of records and serves them."""

    def __init__(self, files):
        self.files = files
        self.listed = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
        self.requests, self.interruptions, self.is_online = [], 0, True

    def get(self, url, **_):
        self.requests.append(url)
        if not self.is_online:
            try:
                raise OSError("Network is unreachable")
            except OSError as error:
                raise requests.ConnectionError("Max retries exceeded " * 100) from error
        response = requests.Response()
        response.status_code, response.url = 200, url
        if match := re.fullmatch(r"https://doi\.org/10\.5281/zenodo\.(\d+)", url):
            response.url = f"https://zenodo.org/records/{match[1]}"
        elif "/files/" in url:
            name = url.split("/files/")[1].removesuffix("/content")
            response.raw = io.BytesIO(self.files[name])
            if self.interruptions:
                self.interruptions -= 1
                response.iter_content = self.interrupted
        else:
            record = url.removeprefix("https://zenodo.org/api/records/")
            files = [
                {
                    "key": name,
                    "checksum": f"md5:{md5}",
                    "links": {"self": f"{url}/files/{name}/content"},
                }
                for name, md5 in self.listed.items()
            ]
            response.json = lambda: {"id": record, "files": files}
        return response

    def interrupted(self, **_):
        yield b"PK first bytes"
        raise requests.exceptions.ChunkedEncodingError("Connection broken: IncompleteRead")

    @property
    def downloads(self):
        return [url for url in self.requests if "/files/" in url]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(stp.settings, "verbosity", 0)
    monkeypatch.setattr(stp.settings, "cache_dir", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "deepspot"


@pytest.fixture
def serve(monkeypatch):
    def start(files):
        server = Zenodo(files)
        monkeypatch.setattr(requests, "get", server.get)
        return server

    return start


@pytest.fixture
def zenodo(serve):
    root = "DeepSpot_pretrained_model_weights"
    members = {
        **parts(f"{root}/Colon_HEST1K"),
        **parts(f"{root}/Lung_Xenium"),
        f"__MACOSX/{root}/Colon_HEST1K/._final_model.pkl": b"metadata",
        f"{root}/readme.txt": b"text",
    }
    return serve({ARCHIVE: zipped(members)})


def kept(cache):
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def assert_is_golden(model):
    expected = np.load(GOLDEN / "expected.npz")
    predicted = model.predict_array(
        expected["spot/x_center"][:, 0],
        subtiles=expected["spot/x_sub"],
        neighbors=expected["spot/x_neighbors"],
        device="cpu",
    )
    np.testing.assert_allclose(predicted, expected["spot/y"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "Colon_HEST1K",
        "zenodo:15322099/Colon_HEST1K",
        "zenodo:15322099/Lung_Xenium/",
        f"zenodo:15322099/{ARCHIVE}/Colon_HEST1K",
        f"zenodo:15322099/{ARCHIVE}/Colon_HEST1K/final_model.pkl",
        f"zenodo:15322099/{ARCHIVE}/DeepSpot_pretrained_model_weights/Colon_HEST1K",
    ],
)
def test_a_released_model_is_downloaded_and_predicts_as_published(zenodo, cache, name):
    assert_is_golden(stp.models.from_deepspot(name))
    assert kept(cache) == [ARCHIVE, "hashes.txt"]


def test_every_released_name_is_asked_of_its_record(zenodo):
    zenodo.is_online = False
    assert stp.models.released() == list(_released.RELEASED)
    for name, record in _released.RELEASED.items():
        with pytest.raises(ConnectionError, match=f"record {record} of Zenodo"):
            stp.models.from_deepspot(name)


def test_the_second_call_does_not_download_and_needs_no_network(zenodo):
    stp.models.from_deepspot("Colon_HEST1K")
    assert len(zenodo.downloads) == 1
    n_requests = len(zenodo.requests)
    zenodo.is_online = False
    assert_is_golden(stp.models.from_deepspot("zenodo:15322099/Lung_Xenium"))
    assert len(zenodo.requests) == n_requests


def test_files_next_to_each_other_in_a_record_are_read(serve, cache):
    files = {path.name: path.read_bytes() for path in GOLDEN.iterdir()}
    serve(files)
    assert_is_golden(stp.models.from_deepspot("zenodo:7/spot_final_model.pkl"))
    needed = ["info_highly_variable_genes.csv", "spot_final_model.pkl"]
    assert kept(cache) == ["hashes.txt", *needed, "spot_top_param_overall.yaml"]
    assert stp.models.from_deepspot("zenodo:7/cell_final_model.pkl").method == "deepcell"


def test_genes_and_embedding_are_passed_on(zenodo):
    genes = [f"G{i}" for i in range(7)]
    model = stp.models.from_deepspot("Colon_HEST1K", genes=genes, embedding="X_mine")
    assert (list(model.genes), model.recipe.embedding) == (genes, "X_mine")


def test_a_folder_of_the_same_name_is_read_instead(zenodo, tmp_path):
    (tmp_path / "Colon_HEST1K").mkdir()
    for name, file in PUBLISHED.items():
        (tmp_path / "Colon_HEST1K" / name).write_bytes((GOLDEN / file).read_bytes())
    assert_is_golden(stp.models.from_deepspot("Colon_HEST1K"))
    assert not zenodo.requests


class TestHashes:
    def test_a_file_with_another_hash_is_refused_and_not_kept(self, zenodo, cache):
        zenodo.listed[ARCHIVE] = "0" * 32
        with pytest.raises(ValueError, match=rf"{ARCHIVE} of zenodo-15322099 differs .* not kept"):
            stp.models.from_deepspot("Colon_HEST1K")
        assert kept(cache) == ["hashes.txt"]

    def test_a_known_hash_is_compared_whatever_zenodo_lists(self, zenodo, cache, monkeypatch):
        known = {("15322099", ARCHIVE): "md5:" + "1" * 32}
        monkeypatch.setattr(_released, "HASHES", known)
        with pytest.raises(ValueError, match="does not match the known hash: expected md5:1111"):
            stp.models.from_deepspot("Colon_HEST1K")
        assert kept(cache) == ["hashes.txt"]

    def test_a_damaged_file_in_the_cache_is_downloaded_again(self, zenodo, cache):
        stp.models.from_deepspot("Colon_HEST1K")
        path = cache / "zenodo-15322099" / ARCHIVE
        path.write_bytes(path.read_bytes()[:-9])
        assert_is_golden(stp.models.from_deepspot("Colon_HEST1K"))
        assert len(zenodo.downloads) == 2

    @pytest.mark.parametrize("text", ["one two three four\n", f"{ARCHIVE} md5:\n", ""])
    def test_a_damaged_list_of_hashes_is_requested_again(self, zenodo, cache, text):
        stp.models.from_deepspot("Colon_HEST1K")
        listing = cache / "zenodo-15322099" / "hashes.txt"
        before = listing.read_text()
        listing.write_text(text)
        assert_is_golden(stp.models.from_deepspot("Colon_HEST1K"))
        assert listing.read_text() == before
        assert len(zenodo.downloads) == 1

    @pytest.mark.parametrize("md5", ["", "abc"])
    def test_a_file_without_a_hash_is_not_trusted(self, zenodo, cache, md5):
        zenodo.listed[ARCHIVE] = md5
        with pytest.raises(ValueError, match=rf"no hashes .* \({ARCHIVE}\).* pass their path"):
            stp.models.from_deepspot("Colon_HEST1K")
        assert not zenodo.downloads
        assert kept(cache) == []

    def test_a_record_without_files_is_refused(self, serve, cache):
        serve({})
        with pytest.raises(ValueError, match="no hashes of the files of record 7"):
            stp.models.from_deepspot("zenodo:7/model.pkl")
        assert kept(cache) == []


class TestNetwork:
    def test_an_interrupted_download_is_tried_once_more(self, zenodo, cache):
        zenodo.interruptions = 1
        assert_is_golden(stp.models.from_deepspot("Colon_HEST1K"))
        assert len(zenodo.downloads) == 2
        assert kept(cache) == [ARCHIVE, "hashes.txt"]

    def test_a_download_interrupted_twice_is_reported_and_leaves_nothing(self, zenodo, cache):
        zenodo.interruptions = 2
        reason = r"\(ChunkedEncodingError: Connection broken: IncompleteRead\)"
        with pytest.raises(ConnectionError, match=rf"could not be downloaded {reason}"):
            stp.models.from_deepspot("Colon_HEST1K")
        assert kept(cache) == ["hashes.txt"]
        assert_is_golden(stp.models.from_deepspot("Colon_HEST1K"))

    def test_without_a_network_one_message_comes_after_one_retry(self, zenodo, cache, monkeypatch):
        zenodo.is_online = False
        monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
        with pytest.raises(ConnectionError, match=r"\(OSError: Network is unreachable\)") as error:
            stp.models.from_deepspot("Colon_HEST1K")
        assert str(cache.parent) in str(error.value)
        assert len(str(error.value)) < 400
        assert error.value.__suppress_context__
        assert error.value.__cause__ is None
        assert len(zenodo.requests) == 2
        assert kept(cache) == []


class TestArchives:
    @pytest.mark.parametrize("root", ["../../outside", "/outside", "a/../..", "C:\\outside"])
    def test_hostile_names_are_not_followed(self, serve, tmp_path, root):
        serve({"model.zip": zipped(parts(f"{root}/Colon"))})
        before = set(tmp_path.rglob("*"))
        assert_is_golden(stp.models.from_deepspot("zenodo:7/Colon"))
        new = {path.name for path in set(tmp_path.rglob("*")) - before}
        assert new == {"cache", "deepspot", "zenodo-7", "hashes.txt", "model.zip"}

    def test_a_link_in_an_archive_is_read_as_text(self, serve, tmp_path):
        members = parts("Colon")
        del members["Colon/final_model.pkl"]
        file = io.BytesIO(zipped(members))
        with zipfile.ZipFile(file, "a") as archive:
            link = zipfile.ZipInfo("Colon/final_model.pkl")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, str(GOLDEN / "spot_final_model.pkl"))
        serve({"model.zip": file.getvalue()})
        with pytest.raises(ValueError, match="not a zip archive, the format of torch"):
            stp.models.from_deepspot("zenodo:7/Colon")

    def test_an_archive_that_unpacks_to_far_more_is_refused(self, serve):
        bomb = zipped({**parts("Colon"), "Colon/x_final_model.pkl": bytes(30 << 20)})
        serve({"model.zip": bomb})
        with pytest.raises(ValueError, match=r"claims to unpack to 31,.* bytes, which is refused"):
            stp.models.from_deepspot("zenodo:7/Colon")

    def test_a_damaged_archive_is_refused(self, serve):
        content = bytearray(zipped(parts("Colon"), zipfile.ZIP_STORED))
        content[200] ^= 255
        serve({"model.zip": bytes(content), "other.zip": b"PK no archive"})
        with pytest.raises(ValueError, match=r"model\.zip is damaged \(Bad CRC"):
            stp.models.from_deepspot("zenodo:7/model.zip/Colon")
        with pytest.raises(ValueError, match=r"other\.zip is damaged \(File is not a zip file"):
            stp.models.from_deepspot("zenodo:7/other.zip/Colon")

    def test_an_unknown_folder_is_reported_with_the_models_of_the_archive(self, zenodo):
        message = r"0 models in a folder 'Colon'; it has Colon_HEST1K, Lung_Xenium$"
        with pytest.raises(ValueError, match=message):
            stp.models.from_deepspot("zenodo:15322099/Colon")
        with pytest.raises(ValueError, match=r"has 2 models in a folder ''"):
            stp.models.from_deepspot("zenodo:15322099")


class TestBadInput:
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("Colon_HEST", "Did you mean 'Colon_HEST1K'\\? Released are Colon_HEST1K, "),
            ("melanoma_tupro", "Did you mean 'Melanoma_TuPro'"),
            ("liver", "neither a file or folder nor a released model. Released are"),
        ],
    )
    def test_an_unknown_name_is_refused_with_suggestions(self, zenodo, name, message):
        with pytest.raises(FileNotFoundError, match=message):
            stp.models.from_deepspot(name)
        assert not zenodo.requests

    @pytest.mark.parametrize(
        "name",
        ["zenodo:", "zenodo:x/model.pkl", "zenodo:1/../2", "zenodo:1//x", "zenodo:1/a\\b"],
    )
    def test_an_invalid_path_is_refused(self, zenodo, name):
        with pytest.raises(ValueError, match=r"must be 'zenodo:<record>/<file>'"):
            stp.models.from_deepspot(name)
        assert not zenodo.requests

    def test_a_file_that_the_record_lacks_is_refused(self, zenodo):
        with pytest.raises(ValueError, match=rf"no file 'final_model\.pkl'; it has {ARCHIVE}"):
            stp.models.from_deepspot("zenodo:15322099/final_model.pkl")
        assert not zenodo.downloads
