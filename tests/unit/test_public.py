"""Public data over HTTP from this machine: fetched whole, resumed, verified, or refused clearly."""

import errno
import hashlib
import json
import os
import shutil
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from genamp_lib._project import GenampError
from genamp_lib.cli.data import app
from genamp_lib.datasets import _download, find_source, load_jets, load_top_pairs, load_z_jets
from genamp_lib.datasets.kinematics import to_cartesian
from genamp_lib.datasets.public import (
    PUBLIC_RECORDS,
    fetch_public,
    find_public,
    list_public,
    verify_public,
)

ZENODO = "/zenodo.org/api/records/6975118"
MENDELEY = "/data.mendeley.com/public-api/datasets/pvn3xc3wy5/files"


class Repository:
    """Files by address, what was asked for, and what shall go wrong."""

    def __init__(self):
        self.files = {}
        self.requests = []
        self.cut_after = []  # bytes of the next answers for files, then the connection ends
        self.status = None  # for everything
        self.ranges = True  # whether the server knows how to give the rest of a file
        self.version = '"one"'

    def add_zenodo(self, files, record=ZENODO, **wrong):
        entries = []
        for name, content in files.items():
            address = f"{record}/files/{name}/content"
            self.files[address] = content
            checksum = "md5:" + hashlib.md5(content).hexdigest()
            entry = {"key": name, "size": len(content), "checksum": checksum}
            entries.append({**entry, "links": {"self": f"https:/{address}"}, **wrong})
        self.files[record] = json.dumps({"files": entries}).encode()

    def n_asked(self, ending):
        return sum(path.endswith(ending) for path, _ in self.requests)


@pytest.fixture
def repository():
    return Repository()


@pytest.fixture
def served(repository, tmp_path, monkeypatch):
    """Let the repository answer; no pause between attempts; data in a folder of the test."""
    monkeypatch.setattr(_download, "PAUSE", 0.0)
    monkeypatch.setattr(_download, "CHUNK", 1000)
    monkeypatch.setenv("GENAMP_DATA", str(tmp_path / "data"))
    with server_of(repository) as address:
        monkeypatch.setenv("GENAMP_MIRROR", address)
        yield tmp_path / "data"


@contextmanager
def server_of(repository):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            path = self.path.partition("?")[0]
            asked = self.headers.get("Range")
            repository.requests.append((self.path, asked))
            if repository.status or path not in repository.files:
                self.send_error(repository.status or 404)
                return
            content = repository.files[path]
            start = 0
            version = self.headers.get("If-Range", repository.version)
            if asked and repository.ranges and version == repository.version:
                start = int(asked.removeprefix("bytes=").partition("-")[0])
            if start > len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                end = f"{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", f"bytes {start}-{end}")
            if repository.version:
                self.send_header("ETag", repository.version)
            self.end_headers()
            is_file = not path.endswith(("6975118", "files"))
            cut = repository.cut_after.pop(0) if repository.cut_after and is_file else None
            self.wfile.write(content[start:][:cut])
            self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def content_of(n, seed=0):
    return np.random.default_rng(seed).bytes(n)


def files_in(folder):
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    return sorted(name for name in names if not name.endswith(".lock"))


def test_a_file_is_fetched_once_and_kept_with_the_answer_about_it(served, repository):
    content = content_of(12_345)
    repository.add_zenodo({"g.hdf5": content, "q.hdf5": b"other"})
    seen = []
    path = fetch_public("jetnet/g.hdf5", progress=lambda done, total: seen.append((done, total)))
    assert path == served / "jetnet" / "g.hdf5"
    assert path.read_bytes() == content
    assert files_in(served) == ["g.hdf5", "record.json"]
    assert seen[0] == (0, 12_345)
    assert seen[-1] == (12_345, 12_345)
    n_requests = len(repository.requests)
    assert fetch_public("jetnet/g.hdf5") == path
    assert fetch_public("jetnet/q.hdf5").read_bytes() == b"other"
    assert len(repository.requests) == n_requests + 1  # the second file, and nothing else
    checksum, published = verify_public("jetnet/g.hdf5")
    assert published
    assert checksum == "md5:" + hashlib.md5(content).hexdigest()
    assert find_public("jetnet/g.hdf5").state() == "fetched"
    assert oct(path.stat().st_mode)[-3:] == "644"


def test_a_cut_connection_is_taken_up_again(served, repository):
    content = content_of(9_000)
    repository.add_zenodo({"g.hdf5": content})
    repository.cut_after = [4_000, 3_000]
    assert fetch_public("jetnet/g.hdf5").read_bytes() == content
    ranges = [asked for path, asked in repository.requests if path.endswith("content")]
    assert ranges[0] is None
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges[1:]]
    # What was received in whole pieces counts, of the 4,000 and 7,000 bytes that were sent.
    assert len(starts) == 2
    assert 3_000 <= starts[0] <= 4_000 < starts[1] <= 7_000


def test_what_came_before_a_failure_is_continued_by_the_next_call(served, repository):
    content = content_of(9_000)
    repository.add_zenodo({"g.hdf5": content})
    repository.cut_after = [4_000, 0]
    with pytest.raises(GenampError, match="cannot be reached"):
        fetch_public("jetnet/g.hdf5")
    assert files_in(served) == ["g.hdf5.part", "g.hdf5.part.json", "record.json"]
    assert find_public("jetnet/g.hdf5").state() == "partly fetched"
    seen = []
    path = fetch_public("jetnet/g.hdf5", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == content
    assert repository.requests[-1][1].startswith("bytes=")
    assert 3_000 <= seen[0][0] <= 4_000
    assert seen[-1] == (9_000, 9_000)
    assert files_in(served) == ["g.hdf5", "record.json"]


@pytest.mark.parametrize("change", ["no ranges", "a new version", "a shorter file"])
def test_a_piece_that_does_not_fit_is_started_anew(served, repository, change):
    content = content_of(9_000)
    repository.add_zenodo({"g.hdf5": content})
    part = served / "jetnet" / "g.hdf5.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (20_000 if change == "a shorter file" else 4_000))
    if change == "no ranges":
        repository.ranges = False
    if change == "a new version":
        part.with_name("g.hdf5.part.json").write_text('{"version": "\\"zero\\""}')
    assert fetch_public("jetnet/g.hdf5").read_bytes() == content


def test_a_wrong_checksum_is_refused_and_nothing_stays(served, repository):
    repository.add_zenodo({"g.hdf5": content_of(3_000)})
    address = f"{ZENODO}/files/g.hdf5/content"
    repository.files[address] = content_of(3_000, seed=1)
    with pytest.raises(GenampError, match=r"does not have the published checksum md5:.*by hand"):
        fetch_public("jetnet/g.hdf5")
    assert files_in(served) == ["record.json"]


def test_a_changed_file_is_refused_by_verify_fetch_and_loaders(served, repository):
    repository.add_zenodo({"g.hdf5": content_of(3_000)})
    path = fetch_public("jetnet/g.hdf5")
    path.write_bytes(content_of(3_000, seed=1))
    for call in (verify_public, fetch_public):
        with pytest.raises(GenampError, match=r"damaged or another file, .* must have MD5 .*remov"):
            call("jetnet/g.hdf5")
    with pytest.raises(GenampError, match="damaged or another file"):
        load_jets(source="public")
    path.write_bytes(b"short")
    assert find_public("jetnet/g.hdf5").state() == "damaged"


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses_is_one_line_with_what_to_do_instead(served, repository, status):
    repository.status = status
    with pytest.raises(GenampError) as caught:
        load_jets(source="public")
    message = str(caught.value)
    assert "\n" not in message
    for text in (
        f"https://zenodo.org/api/records/6975118 cannot be reached (HTTP status {status})",
        "source='shipped'",
        "genamp data simulate jets",
        "by hand from https://doi.org/10.5281/zenodo.6975118",
        str(served / "jetnet"),
    ):
        assert text in message
    assert files_in(served) == []


def test_no_server_at_all(served, monkeypatch):
    monkeypatch.setenv("GENAMP_MIRROR", "http://127.0.0.1:9")
    with pytest.raises(GenampError, match=r"ttbar.hdf5: .*cannot be reached \(ConnectionError\)"):
        fetch_public("ttbar")


@pytest.mark.parametrize("answer", [b"{}", b'{"files": [{"key": "g.hdf5"}]}', b"[3]", b"<html>"])
def test_an_answer_that_is_no_list_of_files(served, repository, answer):
    repository.files[ZENODO] = answer
    with pytest.raises(GenampError, match=r"must list files|cannot be reached"):
        fetch_public("jetnet/g.hdf5")
    assert files_in(served) == []


def test_a_file_that_the_record_does_not_have(served, repository):
    repository.add_zenodo({"train.hdf5": b"1"}, "/zenodo.org/api/records/5904188")
    with pytest.raises(GenampError, match=r"no such file, it has train\.hdf5"):
        fetch_public("caloflow/test.hdf5")
    assert fetch_public("caloflow/train.hdf5").read_bytes() == b"1"


def test_mendeley_lists_files_in_its_own_way(served, repository):
    content = content_of(2_000)
    address = "/data.mendeley.com/public-files/datasets/pvn3xc3wy5/files/1/file_downloaded"
    details = {
        "sha256_hash": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "download_url": f"https:/{address}",
    }
    answer = [{"filename": "eplus.hdf5", "content_details": details}]
    repository.files |= {MENDELEY: json.dumps(answer).encode(), address: content}
    assert fetch_public("calogan/eplus.hdf5").read_bytes() == content
    assert repository.requests[0][0].endswith("?folder_id=root&version=1")
    assert verify_public("calogan/eplus.hdf5")[0].startswith("sha256:")


def test_a_file_without_published_checksum_is_noted(served, repository):
    address = "/www.thphys.uni-heidelberg.de/~plehn/data/event_generation_ttbar.hdf5"
    repository.files[address] = content_of(500)
    path = fetch_public("ttbar")
    assert verify_public("ttbar/event_generation_ttbar.hdf5")[1] is False
    path.write_bytes(content_of(500, seed=1))
    with pytest.raises(GenampError, match="damaged or another file"):
        verify_public("ttbar")


def test_a_file_that_was_put_there_by_hand(served, repository):
    content = content_of(700)
    path = served / "jetnet" / "g.hdf5"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    repository.status = 500  # its record is out of reach
    assert fetch_public("jetnet/g.hdf5") == path
    assert verify_public("jetnet/g.hdf5")[1] is False
    repository.status = None
    repository.add_zenodo({"g.hdf5": content})
    assert verify_public("jetnet/g.hdf5")[1] is True
    assert repository.n_asked("content") == 0


def test_a_full_disk_leaves_what_can_be_continued(served, repository, monkeypatch):
    content = content_of(5_000)
    repository.add_zenodo({"g.hdf5": content})

    class Full:
        """A file on a disk with 2,000 bytes left."""

        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115

        def write(self, piece):
            if self.file.tell() + len(piece) > 2_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(piece)

        def __enter__(self):
            return self

        def __exit__(self, *problem):
            self.file.close()

    monkeypatch.setattr(_download, "open", Full, raising=False)
    with pytest.raises(GenampError, match=r"the disk is full; free .*g\.hdf5\.part is kept"):
        fetch_public("jetnet/g.hdf5")
    assert files_in(served) == ["g.hdf5.part", "g.hdf5.part.json", "record.json"]
    assert (served / "jetnet/g.hdf5.part").read_bytes() == content[:2_000]
    monkeypatch.delattr(_download, "open")
    assert fetch_public("jetnet/g.hdf5").read_bytes() == content


def test_a_disk_that_is_too_small_is_told_before_the_download(served, repository, monkeypatch):
    repository.add_zenodo({"g.hdf5": content_of(5_000)})
    usage = shutil.disk_usage(os.getcwd())._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(GenampError, match=r"needs 0 MB, .* free; give another folder"):
        fetch_public("jetnet/g.hdf5")
    assert repository.n_asked("content") == 0


def test_unknown_names():
    with pytest.raises(GenampError, match="did you mean `jetnet`"):
        find_public("jetnt/g.hdf5")
    with pytest.raises(GenampError, match=r"must be RECORD/FILE; choose jetnet/g\.hdf5, "):
        find_public("jetnet")
    for name in ("jetnet/../g.hdf5", "jetnet/.g", "caloflow"):
        with pytest.raises(GenampError, match="must be RECORD/FILE"):
            find_public(name)
    with pytest.raises(GenampError, match="no public counterpart"):
        find_source("rings", "public")


def test_the_catalogue():
    assert len({record.name for record in PUBLIC_RECORDS}) == len(PUBLIC_RECORDS)
    for public in list_public():
        assert public.record.address.startswith("https://")
        assert public.record.page.startswith("https://")
        assert find_public(public.name) == public
        assert public.record.doi in public.record.page
    commands = CliRunner().invoke(app, ["simulate", "--help"]).stdout
    for record in PUBLIC_RECORDS:
        assert f" {record.simulate} " in commands


def jetnet_file(path, n=6):
    rng = np.random.default_rng(1)
    particles = np.zeros((n, 30, 4))
    particles[:, :20, :2] = rng.normal(scale=0.1, size=(n, 20, 2))
    particles[:, :20, 2:] = [0.05, 1.0]
    with h5py.File(path, "w") as file:
        file["particle_features"] = particles
        file["jet_features"] = np.tile([1000.0, 0.1, 90.0, 20.0], (n, 1))
    return path.read_bytes()


def test_loaders_read_public_files_and_say_so(served, repository, tmp_path):
    """JetNet's layout, and tables as pandas writes them, with several multiplicities."""
    repository.add_zenodo({"t.hdf5": jetnet_file(tmp_path / "t.hdf5")})
    jets = load_jets("jets_top_r04", source="public", n_jets=4)
    assert jets.particles.shape == (4, 30, 4)
    assert jets.source.kind == "public"
    assert str(jets.source) == "the public file jetnet/t.hdf5 (doi:10.5281/zenodo.6975118)"
    assert jets.source.checksum == hashlib.md5((tmp_path / "t.hdf5").read_bytes()).hexdigest()
    assert jets[:2].source == jets.source

    rows = np.zeros((8, 5, 4))
    rows[:, :3] = to_cartesian([[45, 0.3, 1.0, 0.1], [44, -1.0, -2.0, 0.1], [60, 2.0, 0.5, 5.0]])
    rows[3:, 3] = to_cartesian([25, -2.0, 2.5, 4.0])
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["data/block0_values"] = rows.reshape(8, 20)
    record = "/zenodo.org/api/records/10277550"
    repository.add_zenodo({"truth.h5": (tmp_path / "truth.h5").read_bytes()}, record)
    assert [len(load_z_jets(n, source="public")) for n in (1, 2)] == [3, 5]
    events = load_z_jets(2, source="public", n_events=4)
    assert events.of("j2")[:, 0] == pytest.approx(np.tile([25, -2.0, 2.5, 4.0], (4, 1)), rel=1e-5)
    assert events.source.name == "classifier_samples/truth.h5"

    with h5py.File(tmp_path / "tt.h5", "w") as file:
        file["ttbar+0jet"] = np.tile(to_cartesian([50, 0.1, 0.2, 5.0]), (7, 6))
    address = "/www.thphys.uni-heidelberg.de/~plehn/data/event_generation_ttbar.hdf5"
    repository.files[address] = (tmp_path / "tt.h5").read_bytes()
    events = load_top_pairs(0, source="public", n_events=5)
    assert len(events) == 5
    assert events.source.doi == ""


def test_public_file_of_another_dataset(served, repository, tmp_path):
    with h5py.File(tmp_path / "g.hdf5", "w") as file:
        file["layer_0"] = np.zeros((2, 3, 96))
    repository.add_zenodo({"g.hdf5": (tmp_path / "g.hdf5").read_bytes()})
    with pytest.raises(GenampError, match=r"must have the dataset `particle_features`, has layer"):
        load_jets(source="public")


def test_sources_of_all_kinds(tmp_path, monkeypatch):
    jetnet_file(tmp_path / "own.h5")
    own = load_jets(source=tmp_path / "own.h5")
    assert own.source.kind == "file"
    assert str(own.source) == f"the file {tmp_path / 'own.h5'}"
    assert own.source.checksum == hashlib.sha256((tmp_path / "own.h5").read_bytes()).hexdigest()
    shipped = load_z_jets(3, n_events=2)
    assert str(shipped.source) == "the shipped sample z_jets_3j"
    with pytest.raises(GenampError, match=r"`source` must be shipped, public, a file"):
        load_jets(source="publc")


def call(*arguments):
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def test_commands_fetch_list_and_verify(served, repository, tmp_path):
    repository.add_zenodo({"g.hdf5": content_of(2_000)})
    assert "not fetched" in call("list").stdout
    result = call("fetch", "jetnet/g.hdf5", "--folder", str(tmp_path / "other"))
    assert result.exit_code == 0, result.exception
    for text in ("https://doi.org/10.5281/zenodo.6975118", "0.0 MB, md5:", "(as published)"):
        assert text in result.stdout
    assert (tmp_path / "other/jetnet/g.hdf5").stat().st_size == 2_000
    assert call("fetch", "jetnet/g.hdf5").exit_code == 0
    listed = next(line for line in call("list").stdout.splitlines() if "jetnet/g.hdf5" in line)
    assert " fetched " in listed
    assert "10.5281/zenodo.6975118" in listed
    verified = call("verify").stdout
    assert "jetnet/g.hdf5: as published, md5:" in verified
    assert "jets_gluon: as published, SHA-256" in verified
    (served / "jetnet/g.hdf5").write_bytes(content_of(2_000, seed=1))
    result = call("verify", "jetnet/g.hdf5")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: jetnet/g.hdf5: damaged or another file")
    assert "not fetched; run `genamp data fetch" in call("verify", "jetnet/q.hdf5").stderr
