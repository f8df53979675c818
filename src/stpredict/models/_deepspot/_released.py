"""Released models on Zenodo: their names, verified downloads, and the archives that hold them."""

from __future__ import annotations

import re
import shlex
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from zipfile import BadZipFile, ZipFile, ZipInfo

from stpredict import _validate
from stpredict._atomic import replaced
from stpredict._download import attempt
from stpredict._log import info, shows_bars
from stpredict._settings import cache_folder
from stpredict.encoders._aliases import suggestions
from stpredict.models._deepspot._files import GENES, HYPERPARAMETERS, WEIGHTS

if TYPE_CHECKING:
    from pooch import Pooch

ZENODO = "zenodo:"

#: Record of each released model, whose folder in the record's archive has the same name. DeepSpot's
#: readme links 15322099, earlier versions of it 14638865; other folders were not read.
RELEASED = {
    "Colon_HEST1K": "15322099",
    "Lung_LUSC_LUAD_Visium": "15322099",
    "Kidney_HEST1K": "14638865",
    "Kidney_Lung_USZ": "14638865",
    "Melanoma_TuPro": "14638865",
}

#: Hashes of files, by record and name. Those of other files are requested from Zenodo. None is
#: known of the two archives above, as their records could not be read.
HASHES: dict[tuple[str, str], str] = {}

_MD5 = re.compile("md5:[0-9a-f]{32}")
_LISTING = "hashes.txt"  # of a record, as Zenodo listed them at the first download
_SUFFIXES = {Path(name).suffix for name in (WEIGHTS, HYPERPARAMETERS, GENES)}
#: Files of released models are compressed 1 : 1 (weights) to 1 : 5 (tables).
_MAX_RATIO, _SLACK = 20, 1 << 20
_DAMAGE = (BadZipFile, struct.error, EOFError, OverflowError, RuntimeError, zlib.error)


@dataclass(frozen=True)
class Source:
    """A released model: record of Zenodo, and path of a file, or of a folder in an archive."""

    record: str
    path: tuple[str, ...] = ()


def released() -> list[str]:
    """Names of the released models that :func:`stpredict.models.from_deepspot` downloads.

    Returns
    -------
    list of str

    Examples
    --------
    >>> import stpredict as stp
    >>> "Colon_HEST1K" in stp.models.released()
    True
    """
    return list(RELEASED)


def find_source(weights: str | Path) -> Source | None:
    """Parse the name of a released model; None for paths of files."""
    if not isinstance(weights, str):
        return None
    if weights.startswith(ZENODO):
        record, *path = weights.removeprefix(ZENODO).strip("/").split("/")
        if not re.fullmatch("[0-9]{1,12}", record) or not all(map(_is_plain, path)):
            raise ValueError(
                f"weights={weights!r:.200} must be 'zenodo:<record>/<file>' or 'zenodo:<record>/"
                "<folder of its archive>', such as 'zenodo:15322099/Colon_HEST1K'"
            )
        return Source(record, tuple(path))
    if Path(weights).exists():
        return None
    if weights in RELEASED:
        return Source(RELEASED[weights], (weights,))
    if not _is_plain(weights) or Path(weights).suffix:
        return None
    raise FileNotFoundError(
        f"weights={weights!r:.200} is neither a file or folder nor a released model."
        f"{suggestions(weights, RELEASED)} Released are {', '.join(RELEASED)}"
    )


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and not set(name) & set('/\\:\0"')


@contextmanager
def downloaded(source: Source) -> Iterator[Path]:
    """Download and verify a released model; a path of its weights that exists while it is read."""
    files = _open_record(source.record)
    name, inner = _file_of(source, list(files.registry))
    with tempfile.TemporaryDirectory(prefix="stpredict-") as temporary:
        if name.lower().endswith(".zip"):
            yield _unpack(_fetch(files, name), inner, Path(temporary))
            return
        # those next to it are found by name
        prefix = name.removesuffix(WEIGHTS)
        parts = {prefix + HYPERPARAMETERS, prefix + GENES, HYPERPARAMETERS, GENES}
        for part in (name, *sorted(parts & set(files.registry))):
            shutil.copyfile(_fetch(files, part), Path(temporary, part))
        yield Path(temporary, name)


def _open_record(record: str) -> Pooch:
    """Files of a record with their hashes, which are requested once."""
    import pooch

    folder = cache_folder() / "deepspot" / f"zenodo-{record}"
    files = pooch.create(path=folder, base_url=f"doi:10.5281/zenodo.{record}/")
    if not _has_listing(files, record):
        files.registry.clear()
        attempt(lambda: _request_hashes(files, record), what=_title(record), remedy=_remedy())
        folder.mkdir(parents=True, exist_ok=True)
        with replaced(folder / _LISTING) as file:
            file.writelines(f"{shlex.quote(name)} {md5}\n" for name, md5 in files.registry.items())
    files.registry.update({name: md5 for (where, name), md5 in HASHES.items() if where == record})
    return files


def _has_listing(files: Pooch, record: str) -> bool:
    """Read the hashes of an earlier download; False if they are absent or damaged."""
    try:
        files.load_registry(files.abspath / _LISTING)
        _require_hashes(files, record)
    except (OSError, ValueError):
        return False
    return True


def _request_hashes(files: Pooch, record: str) -> None:
    try:
        files.load_registry_from_doi()
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"Zenodo lists no files of record {record}") from error
    _require_hashes(files, record)


def _require_hashes(files: Pooch, record: str) -> None:
    """Require a hash of every file: pooch would not compare an empty one."""
    invalid = [name for name, md5 in files.registry.items() if not _MD5.fullmatch(str(md5))]
    if invalid or not files.registry:
        raise ValueError(
            f"Zenodo lists no hashes of the files of record {record} ({_validate.listing(invalid)})"
            ": download and check them yourself, and pass their path"
        )


def _title(record: str) -> str:
    return f"record {record} of Zenodo"


def _remedy() -> str:
    return (
        "Retry with a network, or pass the path of a copy that you have unpacked; "
        f"downloads are kept in {cache_folder()}"
    )


def _file_of(source: Source, names: list[str]) -> tuple[str, tuple[str, ...]]:
    """Name of a file of the record, and the path in it if it is an archive."""
    if source.path and source.path[0] in names:
        return source.path[0], source.path[1:]
    archives = [name for name in names if name.lower().endswith(".zip")]
    if len(archives) == 1 and not (source.path and Path(source.path[-1]).suffix):
        return archives[0], source.path
    raise ValueError(
        f"{_title(source.record)} has no file {'/'.join(source.path)!r}; it has "
        f"{_validate.listing(names)}"
    )


def _fetch(files: Pooch, name: str) -> Path:
    """Path of a file in the cache, downloaded if it is absent or its hash differs."""
    import pooch

    path, what = files.abspath / name, f"{name} of {files.abspath.name}"
    if not path.exists():
        info(f"downloading {what}, whose hash must be {files.registry[name]}")
    downloader = pooch.DOIDownloader(progressbar=shows_bars(), chunk_size=1 << 20)
    try:
        attempt(lambda: files.fetch(name, downloader=downloader), what=what, remedy=_remedy())
    except ValueError as error:
        reason = str(error).split(". ")[0]
        problem = f"{what} differs from the published file and was not kept"
        raise ValueError(f"{problem} ({reason:.300}). Try again") from error
    return path


def _unpack(archive: Path, inner: tuple[str, ...], target: Path) -> Path:
    """Unpack the files of one model under their own names; returns the path of its weights."""
    weights: tuple[str, ...] = ()
    if inner and Path(inner[-1]).suffix in _SUFFIXES:
        inner, weights = inner[:-1], inner[-1:]
    try:
        with ZipFile(archive) as zipped:
            members = _members(zipped, inner, archive)
            target = target / (inner[-1] if inner else "release")
            target.mkdir()
            for name, member in members.items():
                with zipped.open(member) as packed, (target / name).open("xb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
    except _DAMAGE as error:
        raise ValueError(f"{archive} is damaged ({error!s:.200})") from error
    return target.joinpath(*weights)


def _members(zipped: ZipFile, inner: tuple[str, ...], archive: Path) -> dict[str, ZipInfo]:
    """Files of the folder of an archive whose path ends with `inner`, by name."""
    paths = {
        path: member
        for member in zipped.infolist()
        # macOS adds copies of metadata
        if (path := PurePosixPath(member.filename)).suffix in _SUFFIXES
        and not path.name.startswith("._")
        and _is_plain(path.name)
    }
    folders = {path.parent for path in paths if path.suffix == Path(WEIGHTS).suffix}
    matching = [
        folder for folder in folders if folder.parts[len(folder.parts) - len(inner) :] == inner
    ]
    if len(matching) != 1:
        raise ValueError(
            f"{archive.name} has {len(matching)} models in a folder {'/'.join(inner)!r}; it has "
            f"{_validate.listing(sorted(folder.name for folder in folders), most=30)}"
        )
    members = {path.name: member for path, member in paths.items() if path.parent == matching[0]}
    size = sum(member.file_size for member in members.values())
    if size > _MAX_RATIO * archive.stat().st_size + _SLACK:
        raise ValueError(f"{archive.name} claims to unpack to {size:,} bytes, which is refused")
    return members
