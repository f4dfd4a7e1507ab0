"""Public data sets: address, checksum, terms and citation. They are found on disk or downloaded once into the cache."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from septum.choices import Kind
from septum.data.files import write_text
from septum.errors import DatasetError, did_you_mean

DownloadProgress = Callable[[int, int], None]  # bytes so far, total bytes (0 if unknown)


@dataclass(frozen=True)
class Entry:
    """One public data set: its source, its terms, and how its archive becomes a folder to train on."""

    name: str
    title: str
    kind: Kind
    url: str
    sha256: str | None  # of the archive; None: not published, so later downloads are compared with the first
    megabytes: int  # of the archive, roughly
    folder: str  # to train on, below $SEPTUM_DATA or the cache
    members: tuple[
        tuple[str, str], ...
    ]  # (prefix of a name in the archive, its replacement on disk); other members are skipped
    terms: str
    citation: str  # for publications

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return PurePosixPath(self.url).name


_CTC_TERMS = (
    "Cell Tracking Challenge: free for use in the challenge; other research needs permission of the provider, "
    "commercial use also that of the organisers"
)
_CTC_CITATION = "Maška et al. 2023, Nature Methods 20:1010; Ulman et al. 2017, Nature Methods 14:1141"


def _ctc(name: str, folder: str, title: str, sha256: str, megabytes: int, provider: str) -> Entry:
    return Entry(
        name=name,
        title=title,
        kind="instances",
        url=f"https://data.celltrackingchallenge.net/training-datasets/{folder}.zip",
        sha256=sha256,
        megabytes=megabytes,
        folder=folder,
        members=((f"{folder}/", f"{folder}/"),),
        terms=_CTC_TERMS,
        citation=f"{_CTC_CITATION}; data by {provider}",
    )


_ENTRIES = (
    Entry(
        name="isbi2012",
        title="30 annotated and 30 more EM slices 512 x 512 of the Drosophila ventral nerve cord, 4 x 4 x 50 nm",
        kind="classes",
        url="https://downloads.imagej.net/ISBI-2012-challenge.zip",
        sha256=None,
        megabytes=15,
        folder="isbi2012/train",
        members=(  # {:02d}: one file per slice of the volume
            ("ISBI-2012-challenge/train-volume.tif", "isbi2012/train/images/{:02d}.tif"),
            ("ISBI-2012-challenge/train-labels.tif", "isbi2012/train/labels/{:02d}.tif"),
            ("ISBI-2012-challenge/test-volume.tif", "isbi2012/test/images/{:02d}.tif"),
        ),
        terms="For non-commercial segmentation software; cite the publication and TrakEM2",
        citation="Cardona et al. 2010, PLoS Biology 8(10):e1000502; Arganda-Carreras et al. 2015, "
        "Frontiers in Neuroanatomy 9:142",
    ),
    _ctc(
        "dic-hela",
        "DIC-C2DH-HeLa",
        "HeLa cells on flat glass, differential interference contrast, 2 videos 512 x 512",
        "832fed2d05bb7488cf9c51a2994b75f8f3f53b3c3098856211f2d39023c34e1a",
        37,
        "G. van Cappellen, Erasmus MC, Rotterdam",
    ),
    _ctc(
        "phc-u373",
        "PhC-C2DH-U373",
        "Glioblastoma-astrocytoma U373 cells on polyacrylamide, phase contrast, 2 videos 520 x 696",
        "b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e",
        40,
        "S. Kumar, University of California at Berkeley",
    ),
    _ctc(
        "fluo-sim",
        "Fluo-N2DH-SIM+",
        "Simulated nuclei of HL60 cells stained with Hoechst, fluorescence, 2 videos with complete truth",
        "3e809148c87ace80c72f563b56c35e0d9448dcdeb461a09c83f61e93f5e40ec8",
        91,
        "V. Ulman and D. Svoboda, Masaryk University, Brno",
    ),
    _ctc(
        "fluo-hela",
        "Fluo-N2DL-HeLa",
        "HeLa cells that express H2b-GFP, fluorescence, low magnification, 2 videos",
        "35dd99d58e071aba0b03880128d920bd1c063783cc280f9531fbdc5be614c82e",
        182,
        "the Mitocheck Consortium",
    ),
    _ctc(
        "fluo-gowt1",
        "Fluo-N2DH-GOWT1",
        "Mouse stem cells GFP-GOWT1, fluorescence, high magnification, 2 videos",
        "1a7bd9a7d1d10c4122c7782427b437246fb69cc3322a975485c04e206f64fc2c",
        53,
        "E. Bártová, Academy of Sciences of the Czech Republic, Brno",
    ),
    _ctc(
        "phc-psc",
        "PhC-C2DL-PSC",
        "Pancreatic stem cells on polystyrene, phase contrast, low magnification, 2 videos 576 x 720",
        "9d54bb8febc8798934a21bf92e05d92f5e8557c87e28834b2832591cdda78422",
        145,
        "T. Becker and D. Rapoport, Fraunhofer Institution for Marine Biotechnology, Lübeck",
    ),
    Entry(
        name="dsb2018",
        title="Nuclei of the 2018 Data Science Bowl in fluorescence: 447 annotated images, and 50 more in test/",
        kind="instances",
        url="https://github.com/stardist/stardist/releases/download/0.1.0/dsb2018.zip",
        sha256="e44921950edce378063aa4457e625581ba35b4c2dbd9a07c19d48900129f386f",
        megabytes=80,
        folder="dsb2018",
        members=(
            ("dsb2018/train/images/", "dsb2018/images/"),
            ("dsb2018/train/masks/", "dsb2018/labels/"),
            ("dsb2018/test/images/", "dsb2018/test/images/"),
            ("dsb2018/test/masks/", "dsb2018/test/labels/"),
        ),
        terms="CC0 1.0 (Broad Bioimage Benchmark Collection BBBC038)",
        citation="Caicedo et al. 2019, Nature Methods 16:1247; selection by Schmidt et al. 2018, MICCAI",
    ),
)
CATALOG: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def find(name: str, *, download: bool = True, progress: DownloadProgress | None = None) -> Path:
    """Return the folder of a public data set, from ``$SEPTUM_DATA``, the user's cache, or a download.

    A download is compared with the sha256 of the catalog before it is unpacked, and appears in the cache whole or not
    at all. If no checksum is published, that of the first download is kept beside the data, and later downloads must
    match it. An archive that was saved by hand in the cache folder, under its own name, is used like a download.

    Parameters
    ----------
    name : str
        A key of ``CATALOG``.
    download : bool
        If False, only look on disk.
    progress : callable, optional
        Called during a download with the bytes so far and the total bytes (0 if the server does not report them).

    Returns
    -------
    Path
        The folder to train on.

    Raises
    ------
    DatasetError
        If the name is unknown, the data cannot be found or downloaded, or the checksum is wrong.

    Examples
    --------
    >>> find("isbi2021")
    Traceback (most recent call last):
    septum.errors.DatasetError: the catalog has no data set 'isbi2021'; did you mean 'isbi2012'?
    """
    if name not in CATALOG:
        raise DatasetError(f"the catalog has no data set {name!r}{did_you_mean(name, CATALOG)}")
    entry = CATALOG[name]
    roots = [cache()]
    if named := os.environ.get("SEPTUM_DATA"):
        if not Path(named).is_dir():
            raise DatasetError(f"SEPTUM_DATA is {named}, which is not a folder; correct it or unset it")
        roots.insert(0, Path(named))
    for root in roots:
        if (root / entry.folder).is_dir():
            return root / entry.folder
    if not download:
        raise DatasetError(
            f"{name} is not in {' or '.join(map(str, roots))}; download it with 'septum data get {name}'"
        )
    return _install(entry, cache(), progress)


def cache() -> Path:
    """Return the folder of downloaded data sets, in the platform's cache folder of the user."""
    import pooch  # slow to import, and most uses of the catalog need no download

    return Path(pooch.os_cache("septum"))


def _install(entry: Entry, root: Path, progress: DownloadProgress | None) -> Path:
    """Download, check and unpack in a temporary folder inside `root`, then rename. A failure leaves nothing behind."""
    import pooch

    archive = root / entry.archive  # exists if it was saved by hand
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as work:
            if not archive.exists():
                archive = Path(work, entry.archive)
                bar = _Bar(progress) if progress else False
                pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16)(entry.url, str(archive), None)
            record = root / f"{entry.archive}.sha256"
            found = _check(entry, archive, record)
            _unpack(entry, archive, Path(work, "new"))
            top = PurePosixPath(entry.folder).parts[0]
            if not (root / entry.folder).is_dir():  # otherwise another process was faster
                os.rename(Path(work, "new", top), root / top)
            if entry.sha256 is None:
                write_text(record, f"{found}\n")
    except OSError as error:
        raise DatasetError(
            f"{entry.name} could not be downloaded from {entry.url} ({_first_cause(error)}); save that file by hand as "
            f"{root / entry.archive}, or set SEPTUM_DATA to a folder that contains {entry.folder}"
        ) from error
    return root / entry.folder


def _check(entry: Entry, archive: Path, record: Path) -> str:
    """Return the sha256 of the archive if it matches that of the catalog or, if that has none, the one in `record`."""
    import pooch

    found: str = pooch.file_hash(str(archive), alg="sha256")
    known = entry.sha256 or (record.read_text(encoding="utf-8").strip() if record.exists() else found)
    if found != known:
        fix = f"delete {record} to accept the new one" if entry.sha256 is None else "try again later"
        raise DatasetError(
            f"{entry.archive} has sha256 {found}, expected {known}: it is damaged, or it has changed at {entry.url}; "
            f"delete {record.with_suffix('')} if you saved it there, and {fix}"
        )
    return found


def _unpack(entry: Entry, archive: Path, folder: Path) -> None:
    """Write the members of the archive to their places in the catalog, volumes slice by slice."""
    import tifffile

    try:
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                place = _place(entry, info.filename)
                if place is None or info.is_dir():
                    continue
                if ".." in PurePosixPath(place).parts:
                    raise DatasetError(
                        f"{archive.name} from {entry.url} contains {info.filename!r}, which leads outside its folder; "
                        "do not use this archive"
                    )
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                content = file.read(info)
                if "{" in place:
                    for index, page in enumerate(tifffile.imread(io.BytesIO(content))):
                        tifffile.imwrite(folder / place.format(index), page)
                else:
                    (folder / place).write_bytes(content)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DatasetError(
            f"{archive.name} from {entry.url} is not an intact zip file ({error}); try again later"
        ) from error
    if not (folder / entry.folder).is_dir():
        raise DatasetError(
            f"{archive.name} from {entry.url} contains nothing that starts with "
            f"{' or '.join(start for start, _ in entry.members)}; the archive has changed: update Septum"
        )


def _place(entry: Entry, member: str) -> str | None:
    """Return the place of a member of the archive on disk; None if it is skipped."""
    for start, replacement in entry.members:
        if member.startswith(start):
            return replacement + member.removeprefix(start)
    return None


def _first_cause(error: BaseException) -> BaseException:
    """Return the innermost cause, such as "Connection refused" below three layers of libraries."""
    while error.__context__ is not None:
        error = error.__context__
    return error


class _Bar:
    """Looks like a progress bar to pooch, and passes the numbers on."""

    total = 0

    def __init__(self, progress: DownloadProgress) -> None:
        self.progress, self.done = progress, 0

    def update(self, more: int) -> None:
        self.done = min(self.done + more, self.total or self.done + more)  # pooch counts whole chunks
        self.progress(self.done, self.total)

    def reset(self) -> None:
        """Keep the count; pooch resets the bar only to fill it."""

    def close(self) -> None:
        """Nothing to close."""
