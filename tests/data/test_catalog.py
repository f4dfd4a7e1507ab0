"""The catalog: data on disk are found, others are downloaded whole and checked, or refused in one sentence."""

import dataclasses
import hashlib
import http.server
import io
import os
import threading
import zipfile
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import tifffile

from septum.data import catalog
from septum.data.catalog import CATALOG, find
from septum.errors import DatasetError

DOCS = Path(__file__).parents[2] / "docs" / "data.md"


def make_zip(**files):
    """Bytes of a zip file; double underscores in a name stand for slashes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name.replace("__", "/"), content)
    return buffer.getvalue()


def make_tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


VIDEO = make_zip(**{"PhC-C2DH-U373/01/t000.tif": b"frame", "PhC-C2DH-U373/01_GT/SEG/man_seg000.tif": b"truth"})


class Server:
    """An HTTP server on this machine that answers every request with `content`, or cuts it short after `sent` bytes."""

    def __init__(self):
        self.content, self.sent, self.status, self.requests = b"", None, 200, 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content[: outer.sent])

            def log_message(self, *_):
                """Say nothing."""

        self.http = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.close()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache and no SEPTUM_DATA."""
    monkeypatch.delenv("SEPTUM_DATA", raising=False)
    monkeypatch.setattr(catalog, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def point_at(monkeypatch):
    """Function that makes the catalog fetch a data set from an address on this machine."""

    def change(name, server, sha256):
        url = f"http://127.0.0.1:{server.http.server_port}/{CATALOG[name].archive}"
        entry = dataclasses.replace(CATALOG[name], url=url, sha256=sha256)
        monkeypatch.setattr(catalog, "CATALOG", MappingProxyType({**CATALOG, name: entry}))

    return change


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def everything_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_download_is_unpacked_into_the_cache_and_used_from_then_on(server, cache, point_at):
    server.content = VIDEO
    point_at("phc-u373", server, sha256(VIDEO))
    seen = []
    folder = find("phc-u373", progress=lambda done, total: seen.append((done, total)))
    assert folder == cache / "PhC-C2DH-U373"
    assert everything_in(cache) == ["PhC-C2DH-U373/01/t000.tif", "PhC-C2DH-U373/01_GT/SEG/man_seg000.tif"]
    assert (folder / "01" / "t000.tif").read_bytes() == b"frame"
    assert seen[-1] == (len(VIDEO), len(VIDEO))
    assert find("phc-u373") == find("phc-u373", download=False) == folder
    assert server.requests == 1


def test_progress_never_goes_back_or_beyond_the_total(server, cache, point_at):
    server.content = make_zip(**{"PhC-C2DH-U373/01/t000.tif": os.urandom(300_000)})
    point_at("phc-u373", server, sha256(server.content))
    seen = []
    find("phc-u373", progress=lambda done, total: seen.append(done))
    assert seen == sorted(seen)
    assert len(set(seen)) >= 5
    assert max(seen) == len(server.content)


def test_a_wrong_checksum_is_refused_and_leaves_nothing(server, cache, point_at):
    server.content = VIDEO
    point_at("phc-u373", server, sha256(b"other"))
    with pytest.raises(
        DatasetError,
        match=f"has sha256 {sha256(VIDEO)}, expected {sha256(b'other')}: it is damaged, or it has changed at",
    ):
        find("phc-u373")
    assert not list(cache.iterdir())


def test_a_truncated_download_leaves_nothing(server, cache, point_at):
    server.content, server.sent = VIDEO, len(VIDEO) // 2
    point_at("phc-u373", server, sha256(VIDEO))
    with pytest.raises(DatasetError, match=r"could not be downloaded from .*; save that file by hand as"):
        find("phc-u373")
    assert not list(cache.iterdir())
    server.sent = None
    assert (find("phc-u373") / "01" / "t000.tif").read_bytes() == b"frame"


def test_a_download_that_is_interrupted_leaves_nothing(server, cache, point_at):
    def interrupt(done, total):
        raise KeyboardInterrupt

    server.content = VIDEO
    point_at("phc-u373", server, sha256(VIDEO))
    with pytest.raises(KeyboardInterrupt):
        find("phc-u373", progress=interrupt)
    assert not list(cache.iterdir())


def test_without_network_the_error_says_what_to_do(server, cache, point_at):
    point_at("phc-u373", server, sha256(VIDEO))
    server.close()  # nothing listens there any more
    with pytest.raises(DatasetError) as caught:
        find("phc-u373")
    for words in ("http://127.0.0.1", "Connection refused", str(cache / "PhC-C2DH-U373.zip"), "set SEPTUM_DATA"):
        assert words in str(caught.value)
    assert "HTTPConnectionPool" not in str(caught.value)  # what the libraries wrap around it
    assert "\n" not in str(caught.value)


def test_a_missing_page_is_reported(server, cache, point_at):
    server.status = 404
    point_at("phc-u373", server, sha256(VIDEO))
    with pytest.raises(DatasetError, match="404"):
        find("phc-u373")


def test_an_archive_saved_by_hand_needs_no_network_and_stays(server, cache, point_at):
    point_at("phc-u373", server, sha256(VIDEO))
    cache.mkdir()
    (cache / "PhC-C2DH-U373.zip").write_bytes(VIDEO)
    assert (find("phc-u373") / "01" / "t000.tif").read_bytes() == b"frame"
    assert server.requests == 0
    assert (cache / "PhC-C2DH-U373.zip").exists()


def test_a_folder_that_cannot_be_written_is_reported(cache):
    cache.parent.joinpath("cache").write_text("a file where the folder should be")
    with pytest.raises(DatasetError, match=r"File exists.*set SEPTUM_DATA"):
        find("phc-u373")


def isbi_zip(volume, labels):
    return make_zip(
        **{
            "ISBI-2012-challenge/train-volume.tif": make_tiff(volume, imagej=True),
            "ISBI-2012-challenge/train-labels.tif": make_tiff(labels),
            "ISBI-2012-challenge/test-volume.tif": make_tiff(volume[:2]),
            "ISBI-2012-challenge/README": b"left out",
        }
    )


@pytest.fixture
def volumes():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 16, 20), np.uint8), 255 * rng.integers(0, 2, (12, 16, 20), np.uint8)


def test_isbi_volumes_become_one_file_per_slice(server, cache, point_at, volumes):
    server.content = isbi_zip(*volumes)
    point_at("isbi2012", server, None)
    folder = find("isbi2012")
    assert folder == cache / "isbi2012" / "train"
    for name, volume in zip(("images", "labels"), volumes, strict=True):
        files = sorted((folder / name).iterdir())
        assert [file.stem for file in files] == [f"{index:02d}" for index in range(12)]
        np.testing.assert_array_equal([tifffile.imread(file) for file in files], volume)
    assert len(list((cache / "isbi2012" / "test" / "images").iterdir())) == 2
    assert not list(cache.rglob("README*"))


def test_without_a_published_checksum_later_downloads_are_compared_with_the_first(server, cache, point_at, volumes):
    server.content = isbi_zip(*volumes)
    point_at("isbi2012", server, None)
    find("isbi2012")
    record = cache / "ISBI-2012-challenge.zip.sha256"
    assert record.read_text() == sha256(server.content) + "\n"

    (cache / "isbi2012").rename(cache / "gone")
    find("isbi2012")  # the same bytes again
    (cache / "isbi2012").rename(cache / "gone too")
    server.content = isbi_zip(volumes[0] // 2, volumes[1])
    with pytest.raises(DatasetError, match=f"{sha256(server.content)}.*delete {record} to accept"):
        find("isbi2012")
    assert not (cache / "isbi2012").exists()
    record.unlink()
    find("isbi2012")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>please log in</html>", "is not an intact zip file"),
        (make_zip(other__train=b""), "contains nothing that starts with ISBI-2012-challenge/train-volume.tif"),
    ],
)
def test_an_archive_with_other_contents_is_refused_and_its_checksum_is_not_kept(
    server, cache, point_at, volumes, content, words
):
    server.content = content
    point_at("isbi2012", server, None)
    with pytest.raises(DatasetError, match=words):
        find("isbi2012")
    assert not list(cache.iterdir())
    server.content = isbi_zip(*volumes)
    find("isbi2012")


def test_no_member_of_an_archive_is_written_outside_its_folder(server, cache, point_at):
    server.content = make_zip(**{"PhC-C2DH-U373/01/t000.tif": b"", "PhC-C2DH-U373/../../../evil": b"gotcha"})
    point_at("phc-u373", server, sha256(server.content))
    with pytest.raises(DatasetError, match=r"contains .* leads outside its folder; do not use this archive"):
        find("phc-u373")
    assert everything_in(cache.parent) == []


def test_dsb2018_is_its_training_images_and_the_test_images_are_separate(server, cache, point_at):
    parts = ("train/images", "train/masks", "test/images", "test/masks")
    server.content = make_zip(**{f"dsb2018/{part}/a.tif": part.encode() for part in parts})
    point_at("dsb2018", server, sha256(server.content))
    assert {path: (cache / "dsb2018" / path).read_text() for path in everything_in(find("dsb2018"))} == {
        "images/a.tif": "train/images",
        "labels/a.tif": "train/masks",
        "test/images/a.tif": "test/images",
        "test/labels/a.tif": "test/masks",
    }


def test_septum_data_comes_before_the_cache_and_the_cache_before_a_download(cache, monkeypatch, tmp_path):
    (cache / "PhC-C2DH-U373").mkdir(parents=True)
    assert find("phc-u373") == cache / "PhC-C2DH-U373"
    monkeypatch.setenv("SEPTUM_DATA", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    assert find("phc-u373") == cache / "PhC-C2DH-U373"
    (tmp_path / "mine" / "PhC-C2DH-U373").mkdir()
    assert find("phc-u373") == tmp_path / "mine" / "PhC-C2DH-U373"


def test_nothing_is_downloaded_if_only_the_disk_may_be_searched(cache):
    with pytest.raises(DatasetError, match=f"phc-u373 is not in {cache}; download it with 'septum data get phc-u373'"):
        find("phc-u373", download=False)
    assert not cache.exists()


def test_a_septum_data_that_is_not_a_folder_is_an_error_before_any_download(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("SEPTUM_DATA", str(tmp_path / "typo"))
    with pytest.raises(DatasetError, match=r"SEPTUM_DATA is .*typo, which is not a folder; correct it or unset it"):
        find("phc-u373")


def test_the_cache_belongs_to_the_user():
    assert "septum" in catalog.cache().parts
    assert catalog.cache().is_relative_to(Path.home())


@pytest.mark.parametrize("name", ["isbi2012", "dsb2018"])
def test_the_real_data_have_a_label_for_every_image(name):
    if "SEPTUM_DATA" not in os.environ:
        pytest.skip("SEPTUM_DATA is not set: no real data here")
    folder = find(name, download=False)
    stems = sorted(path.stem for path in (folder / "images").iterdir())
    assert len(stems) >= 30
    assert stems == sorted(path.stem for path in (folder / "labels").iterdir())


def test_every_entry_can_be_downloaded_and_is_described_in_the_docs():
    text = DOCS.read_text(encoding="utf-8")
    for name, entry in CATALOG.items():
        assert name == entry.name
        assert entry.url.startswith("https://")
        assert entry.url.endswith(".zip")
        assert entry.sha256 is None or len(bytes.fromhex(entry.sha256)) == 32
        assert any(place.startswith(f"{entry.folder}/") for _, place in entry.members)
        for words in (f"`{name}`", entry.title, entry.terms, entry.citation, f"`{entry.folder}`", entry.url):
            assert words in text, f"docs/data.md does not say {words!r}"


def test_entries_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CATALOG["isbi2012"].url = "https://elsewhere"
    with pytest.raises(TypeError):
        CATALOG["mine"] = CATALOG["isbi2012"]
