"""The catalog and its downloads, from a local server of good, broken and slow files and a local package."""

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from shared.data import DatasetUnavailable, catalog, download, load

GOOD = bytes(range(256)) * 40
TEXT = "to be or not to be, that is the question\n" * 20


class Handler(BaseHTTPRequestHandler):
    """What the path's first part says: /good, /truncated, /short, /tampered, /500, /404, /flaky, /slow."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.requests.append(kind)
        if kind in ("404", "500"):
            return self.send_error(int(kind))
        if kind == "flaky" and self.server.requests.count("flaky") == 1:
            return self.send_error(503)
        body = GOOD[::-1] if kind == "tampered" else GOOD[:500] if kind == "short" else GOOD
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:500])
        self.wfile.flush()
        if kind == "slow":
            self.server.release.wait(60)
            self.server.went_on = True
        if kind != "truncated":
            self.wfile.write(body[500:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.release, server.went_on = [], threading.Event(), False
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        server.address = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.release.set()
        server.shutdown()


def entry_toml(mirrors, data=GOOD, file="things.bin"):
    return f"""
[things]
title = "Things"
kind = "images"
description = "For the tests."
license = "MIT"
citation = "None."
splits = {{ train = 8, test = 2 }}
[[things.files]]
name = "{file}"
bytes = {len(data)}
sha256 = "{hashlib.sha256(data).hexdigest()}"
mirrors = {list(mirrors)}
"""


@pytest.fixture
def things(tmp_path, monkeypatch):
    """A catalog with one dataset in a folder of its own; call it with the mirrors."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))

    def use(*mirrors, data=GOOD, file="things.bin"):
        path = tmp_path / "catalog.toml"
        path.write_text(entry_toml(mirrors, data, file))
        catalog._read.cache_clear()
        monkeypatch.setattr(catalog, "catalog_path", lambda: path)

    yield use
    catalog._read.cache_clear()


def in_cache(tmp_path):
    folder = tmp_path / "cache" / "things"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


# ----------------------------------------------------------------------------------------------- the real one


def test_every_entry_of_the_catalog_is_complete():
    names = {entry.name for entry in catalog.entries()}
    assert names >= {"mnist", "fashion-mnist", "mnist-5k", "digits", "iris", "tinyshakespeare"}
    for entry in catalog.entries():
        assert (
            entry.kind in ("images", "table", "text", "questions", "tokenizer", "model")
            and entry.license
            and entry.citation
            and entry.description
        )
        assert bool(entry.files) != bool(entry.embedded), entry.name
        for file in entry.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256) and file.bytes > 0 and len(file.mirrors) >= 2
            assert all(re.match(r"https?://|pypi:[\w-]+==[\d.]+!\S+$", mirror) for mirror in file.mirrors)


def test_every_dataset_has_a_card_that_names_its_licence():
    for entry in catalog.entries():
        card = (catalog.catalog_path().parent / entry.name / "README.md").read_text(encoding="utf-8")
        assert entry.title in card and entry.license in card, entry.name


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="no dataset is called 'minst'; the catalog has: mnist, fashion-mnist"):
        catalog.entry("minst")


def test_a_package_without_its_repository_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "site-packages" / "shared" / "data" / "catalog.py"))
    with pytest.raises(FileNotFoundError, match="runs from its repository.*pip install -e"):
        catalog.catalog_path()


def test_importing_shared_data_is_cheap():
    code = (
        "import sys, shared.data; heavy = {'pooch', 'sklearn', 'PIL', 'requests', 'tqdm', "
        "'multiprocessing.shared_memory', 'multiprocessing.connection', 'threadpoolctl'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------- by address


def test_a_good_file_is_fetched_once(things, server, tmp_path):
    things(server.address + "/good/things.bin")
    assert catalog.status("things") == "missing"
    paths = catalog.fetch("things", progress=False)
    assert paths["things.bin"].read_bytes() == GOOD and in_cache(tmp_path) == ["things.bin"]
    assert catalog.fetch("things", progress=False) == paths and server.requests == ["good"]
    assert catalog.status("things") == "cached"
    assert catalog.verify("things") == {str(paths["things.bin"]): "ok"}


def test_force_fetches_what_is_there_already(things, server, tmp_path):
    things(server.address + "/good/things.bin")
    catalog.fetch("things", progress=False)
    catalog.fetch("things", progress=False, force=True)
    assert server.requests == ["good", "good"] and in_cache(tmp_path) == ["things.bin"]


def test_a_progress_bar_is_shown_where_asked(things, server, capfd):
    things(server.address + "/good/things.bin")
    catalog.fetch("things", progress=True)
    assert "100%" in capfd.readouterr().err


@pytest.mark.parametrize("bad", ["truncated", "short", "tampered", "500", "404"])
def test_a_bad_mirror_is_passed_over_and_leaves_nothing(things, server, tmp_path, bad):
    things(f"{server.address}/{bad}/things.bin", f"{server.address}/good/things.bin")
    assert catalog.fetch("things", progress=False)["things.bin"].read_bytes() == GOOD
    assert in_cache(tmp_path) == ["things.bin"]
    assert server.requests == ([bad] if bad == "404" else [bad, bad]) + ["good"]


@pytest.mark.parametrize(
    "bad, reason",
    [
        ("truncated", "broke off the transfer"),
        ("short", "it has 500 bytes instead of 10,240"),
        ("tampered", "its SHA-256 is not the catalog's"),
        ("500", "answered 500"),
        ("404", "answered 404"),
    ],
)
def test_where_every_mirror_is_bad_one_sentence_says_why_and_what_to_do(things, server, tmp_path, bad, reason):
    things(f"{server.address}/{bad}/things.bin")
    with pytest.raises(DatasetUnavailable) as caught:
        catalog.fetch("things", progress=False)
    message = str(caught.value)
    assert reason in message and "things.bin" in message and "'things'" in message
    assert "python -m course data fetch things" in message and "$COURSE_DATA" in message
    assert message.endswith(".") and ". " not in message and "\n" not in message
    assert in_cache(tmp_path) == [] and caught.value.attempts[0][0].endswith(f"/{bad}/things.bin")


def test_a_mirror_that_fails_once_is_asked_again(things, server):
    things(server.address + "/flaky/things.bin")
    catalog.fetch("things", progress=False)
    assert server.requests == ["flaky", "flaky"]


def test_a_mirror_that_falls_silent_is_given_up(things, server, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (10, 1))
    things(server.address + "/slow/things.bin", server.address + "/good/things.bin")
    assert catalog.fetch("things", progress=False)["things.bin"].read_bytes() == GOOD
    assert not server.went_on and server.requests == ["slow", "good"], "the slow one was waited for"


def test_no_network_is_one_sentence_with_the_remedy(things, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    things("http://127.0.0.1:9/things.bin")
    with pytest.raises(DatasetUnavailable, match="127.0.0.1:9 could not be reached.*connect to the internet and run"):
        catalog.fetch("things", progress=False)


def test_a_cache_that_cannot_be_written_is_named(things, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    things("http://127.0.0.1:9/things.bin")
    with pytest.raises(DatasetUnavailable, match="cannot be written: .*set \\$COURSE_CACHE"):
        catalog.fetch("things", progress=False)


def test_a_killed_download_leaves_nothing_that_could_be_taken_for_the_file(things, server, tmp_path):
    things(server.address + "/slow/things.bin")
    code = (
        "from pathlib import Path; from shared.data import catalog; import sys; "
        "catalog.catalog_path = lambda: Path(sys.argv[1]); catalog.fetch('things', progress=False)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "catalog.toml")], cwd=Path(__file__).parents[2]
    )
    deadline = time.monotonic() + 50  # and the server waits for longer
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    left = in_cache(tmp_path)
    assert len(left) == 1 and left[0].startswith(".things.bin.")
    assert catalog.status("things") == "missing"
    old = tmp_path / "cache" / "things" / left[0]
    os.utime(old, (0, 0))
    things(server.address + "/good/things.bin")
    catalog.fetch("things", progress=False)
    assert in_cache(tmp_path) == ["things.bin"]


def test_an_interrupted_download_leaves_nothing(things, server, tmp_path, monkeypatch):
    import pooch

    def interrupted(self, url, output_file, pooch=None):
        Path(output_file).write_bytes(GOOD[:500])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    things(server.address + "/good/things.bin")
    with pytest.raises(KeyboardInterrupt):
        catalog.fetch("things", progress=False)
    assert in_cache(tmp_path) == []


# -------------------------------------------------------------------------------------- damaged and read-only


@pytest.mark.parametrize("damage, problem", [(GOOD[:-1], "10,239 bytes instead of 10,240"), (GOOD[::-1], "SHA-256")])
def test_a_damaged_file_in_the_cache_is_named_set_aside_and_replaced(things, server, tmp_path, damage, problem):
    things(server.address + "/good/things.bin")
    path = catalog.fetch("things", progress=False)["things.bin"]
    path.write_bytes(damage)
    assert problem in catalog.verify("things")[str(path)] and path.read_bytes() == damage
    with pytest.warns(UserWarning, match=f"things.bin is damaged .*{problem}.*set aside as things.bin.damaged"):
        assert catalog.fetch("things", progress=False)["things.bin"].read_bytes() == GOOD
    assert in_cache(tmp_path) == ["things.bin", "things.bin.damaged"]
    assert path.with_name("things.bin.damaged").read_bytes() == damage


def test_a_damaged_file_is_never_used_even_where_no_other_can_be_had(things, tmp_path):
    things("http://127.0.0.1:9/things.bin")
    folder = tmp_path / "cache" / "things"
    folder.mkdir(parents=True)
    (folder / "things.bin").write_bytes(GOOD[:-1])
    assert catalog.status("things") == "incomplete"
    with pytest.warns(UserWarning, match="set aside"), pytest.raises(DatasetUnavailable):
        catalog.fetch("things", progress=False)
    assert in_cache(tmp_path) == ["things.bin.damaged"]


def snapshot(folder):
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in [folder, *folder.rglob("*")]}


def test_course_data_is_found_first_and_never_written(things, tmp_path, monkeypatch):
    things("http://127.0.0.1:9/things.bin")
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "other").mkdir(parents=True)
    (second / "things").mkdir(parents=True)
    (second / "things" / "things.bin").write_bytes(GOOD)
    monkeypatch.setenv("COURSE_DATA", os.pathsep.join([str(first), str(second)]))
    before = snapshot(first), snapshot(second)
    assert catalog.fetch("things", progress=False)["things.bin"] == second / "things" / "things.bin"
    assert catalog.status("things") == "course-data"
    assert (snapshot(first), snapshot(second)) == before and not (tmp_path / "cache").exists()


def test_a_damaged_file_in_course_data_is_named_and_left_alone(things, server, tmp_path, monkeypatch):
    things(server.address + "/good/things.bin")
    folder = tmp_path / "read-only"
    (folder / "things").mkdir(parents=True)
    (folder / "things" / "things.bin").write_bytes(GOOD[::-1])
    monkeypatch.setenv("COURSE_DATA", str(folder))
    before = snapshot(folder)
    with pytest.warns(UserWarning, match="damaged .*and was not used"):
        path = catalog.fetch("things", progress=False)["things.bin"]
    assert path == tmp_path / "cache" / "things" / "things.bin" and path.read_bytes() == GOOD
    assert snapshot(folder) == before
    assert set(catalog.verify("things").values()) == {"ok", "its SHA-256 is not the catalog's"}


def test_verify_reports_a_missing_file_without_fetching(things, server):
    things(server.address + "/good/things.bin")
    assert catalog.verify("things") == {"things.bin": "missing"} and server.requests == []
    assert catalog.verify("things") == {"things.bin": "missing"}


# ------------------------------------------------------------------------------------------------- by archive


def tar(members, mode="w:gz"):
    """The bytes of a tar archive that holds `members`, {path: bytes}."""
    with io.BytesIO() as stream:
        with tarfile.open(fileobj=stream, mode=mode) as archive:
            for path, data in members.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return stream.getvalue()


@pytest.fixture
def archives(monkeypatch):
    """Downloads come from a dictionary {address: bytes}; what was asked for is in `.asked`."""

    class Served(dict):
        asked: list[str]

    served = Served()
    served.asked = []

    def send(address, workplace, progress):
        served.asked.append(address)
        (workplace / "download").write_bytes(served[address])
        return workplace / "download"

    monkeypatch.setattr(download, "_from_address", send)
    download._archives.cache_clear()
    yield served
    download._archives.cache_clear()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_member_of_an_archive_is_a_mirror_and_the_archive_is_fetched_once(things, archives, tmp_path, mode):
    archives["https://here/all.tar.gz"] = tar({"data/en/things.bin": GOOD, "data/other.txt": b"no"}, mode)
    things("https://here/all.tar.gz!data/en/things.bin")
    assert catalog.fetch("things")["things.bin"].read_bytes() == GOOD
    catalog.fetch("things", force=True)
    assert archives.asked == ["https://here/all.tar.gz"] and in_cache(tmp_path) == ["things.bin"]


def test_an_archive_is_checked_like_any_mirror(things, archives, tmp_path):
    archives["https://a/x.tar.gz"] = tar({"things.bin": GOOD})[:-40]
    archives["https://b/x.tar.gz"] = tar({"other.bin": GOOD})
    archives["https://c/x.tar.gz"] = tar({"things.bin": GOOD[::-1]})
    things(*[f"https://{host}/x.tar.gz!things.bin" for host in "abc"])
    with pytest.raises(DatasetUnavailable) as caught:
        catalog.fetch("things", progress=False)
    reasons = dict.fromkeys(reason for _, reason in caught.value.attempts)
    assert list(reasons) == [
        "a sent a damaged archive",
        "the archive of b does not hold things.bin",
        "c sent a damaged file: its SHA-256 is not the catalog's",
    ]
    assert archives.asked.count("https://a/x.tar.gz") == 2 and in_cache(tmp_path) == []


def test_a_file_may_lie_in_a_folder(things, archives, tmp_path):
    archives["https://here/all.tar.gz"] = tar({"en/things.bin": GOOD})
    things("https://here/all.tar.gz!en/things.bin", file="en/things.bin")
    assert catalog.fetch("things")["en/things.bin"] == tmp_path / "cache" / "things" / "en" / "things.bin"


# ------------------------------------------------------------------------------------------------- by package


def wheel(folder: Path, member: str, data: bytes) -> None:
    """A published package with one data file, as a package index would serve it."""
    info = "coursething-1.0.dist-info"
    with zipfile.ZipFile(folder / "coursething-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: coursething\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def package_index(tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_member_of_a_package_is_a_mirror(things, package_index, tmp_path, capfd):
    wheel(package_index, "coursething/data/things.bin", GOOD)
    things("pypi:coursething==1.0!coursething/data/things.bin")
    assert catalog.fetch("things")["things.bin"].read_bytes() == GOOD
    assert in_cache(tmp_path) == ["things.bin"]
    assert "Fetching coursething==1.0 from the package index" in capfd.readouterr().err


def test_a_package_is_checked_like_any_mirror(things, package_index, tmp_path, server):
    wheel(package_index, "coursething/data/things.bin", GOOD[::-1])
    things(
        "pypi:coursething==2.0!coursething/data/things.bin",
        "pypi:coursething==1.0!coursething/data/absent.bin",
        "pypi:coursething==1.0!coursething/data/things.bin",
    )
    with pytest.raises(DatasetUnavailable) as caught:
        catalog.fetch("things", progress=False)
    reasons = [reason for _, reason in caught.value.attempts]
    assert reasons[0] == "the package index did not serve coursething==2.0"
    assert reasons[1] == "coursething==1.0 does not hold coursething/data/absent.bin"
    assert reasons[2] == "pypi:coursething==1.0 sent a damaged file: its SHA-256 is not the catalog's"
    assert in_cache(tmp_path) == []


def test_a_missing_pip_is_named(things, monkeypatch):
    def no_pip(command, **options):
        return subprocess.CompletedProcess(command, 1, "", f"{sys.executable}: No module named pip")

    monkeypatch.setattr(download.subprocess, "run", no_pip)
    things("pypi:coursething==1.0!x")
    with pytest.raises(DatasetUnavailable, match="pip is missing here: `python -m ensurepip`"):
        catalog.fetch("things", progress=False)


@pytest.mark.parametrize("name, size", [("mnist-5k", 4000), ("tinyshakespeare", 1003854 - 64)])
def test_the_packages_of_the_catalog_hold_what_it_says(tmp_path, monkeypatch, name, size):
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    try:
        train, _ = load(name, progress=False)
    except DatasetUnavailable as error:
        pytest.skip(f"no package index here: {error.attempts}")
    assert len(train) == size


# --------------------------------------------------------------------------------------------------- fallback


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """The real catalog with mirrors that nobody answers."""
    text = re.sub(r'"(https?|pypi):[^"]*"', '"http://127.0.0.1:9/x"', catalog.catalog_path().read_text("utf-8"))
    (tmp_path / "catalog.toml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(catalog, "catalog_path", lambda: tmp_path / "catalog.toml")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_DATA", raising=False)


def test_fallback_gives_digits_for_images_and_says_so(offline, capsys):
    train, test = load("mnist-5k", fallback=True)
    assert train[0][0].shape == (1, 8, 8) and len(train) == 1442 and len(test) == 355
    assert capsys.readouterr().out == (
        "mnist-5k could not be had here; using Digits instead (1,442 train, 355 test).\n"
    )


def test_fallback_gives_the_reference_text_for_text(offline, capsys):
    train, _ = load("tinyshakespeare", fallback=True, block_size=32)
    assert "with" in train.text and len(train.text) > 300_000 and train[0][0].shape == (32,)
    assert "tinyshakespeare could not be had here; using Python's reference text" in capsys.readouterr().out


def test_without_fallback_the_error_reaches_the_user(offline):
    with pytest.raises(DatasetUnavailable, match="mnist-5k"):
        load("mnist-5k")


def test_embedded_datasets_need_no_network(offline):
    assert catalog.status("digits") == "embedded" and catalog.fetch("digits") == {} == catalog.verify("digits")
    assert len(load("digits")[0]) == 1442 and len(load("iris")[0]) == 120
