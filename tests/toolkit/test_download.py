"""Downloads end in the right file or in an error that says why, whatever the server does."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from door import legacy_style
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from misbehaving import Server

from legacy_style.errors import ChecksumError, FormatError
from legacy_style.toolkit import download, known_files
from legacy_style.toolkit.download import DownloadError, Entry, Fetched, Patience, adopt, fetch

CHECKOUT = Path(__file__).parents[2]
CONTENT = b"\x80\x02" + random.Random(5).randbytes(199_998)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=3, pause=0.001, longest_pause=0.01, connect=2, read=0.3)
PLAIN = Entry("model.bin", "tests", "nobody", "none", "http://page.invalid", "nobody")
KNOWN = replace(PLAIN, bytes=len(CONTENT), sha256=SHA256)
UNMEASURED = replace(PLAIN, sha1=hashlib.sha1(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(CONTENT) as running:
        yield running


def get(server: Server, folder: Path, *paths: str, entry: Entry = KNOWN, **options: Any) -> Fetched:
    entry = replace(entry, urls=tuple(server.url(path) for path in paths))
    return fetch(entry, folder, patience=QUICK, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


@pytest.mark.parametrize(
    "path",
    [
        "good",
        "no-ranges",
        "no-length",
        "cut",
        "cut,cut,good",
        "cut-no-ranges,good",
        "cut-no-length,good",
        "cut,no-ranges",
        "cut,hangs-up,hangs-up,good",
        "cut,other-range,good",
        "cut,whole-as-range",
        "cut,no-such-range,good",
        "says-more",
        "says-more-no-ranges",
        "gzip",
        "cut,gzip",
        "drips",
        "stalls,good",
        "429,503,good",
        "hangs-up,good",
        "redirects",
        "redirects,cut",
    ],
)
@pytest.mark.parametrize("entry", [KNOWN, UNMEASURED], ids=["known length", "unknown length"])
def test_the_right_file_is_fetched_from_a_server_that(
    path: str, entry: Entry, server: Server, tmp_path: Path
) -> None:
    done = get(server, tmp_path, path, entry=entry)
    assert done.path.read_bytes() == CONTENT
    assert done.digests.sha256 == SHA256
    assert done.source == server.url(path)
    assert names(tmp_path) == ["model.bin"] + ["model.bin.sha256"] * (entry is UNMEASURED)


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        (
            "html",
            DownloadError,
            "sent no model. It is a web page: <!DOCTYPE html><html><title>This site has moved",
        ),
        ("redirects-to-html", DownloadError, r"It is a web page.*text/html.*/html\)"),
        ("lfs", DownloadError, "It is a git-lfs pointer"),
        ("json", DownloadError, 'It is a JSON answer: {"error": "quota exceeded"}'),
        ("empty", DownloadError, "sent 0 of 200000 bytes"),
        ("flipped", ChecksumError, f"not model.bin: sha256 [0-9a-f]{{64}}, expected {SHA256}"),
        ("endless", ChecksumError, "not model.bin: sha256"),
        ("404", DownloadError, "HTTP 404 Not Found"),
        ("503", DownloadError, "HTTP 503 Service Unavailable, 3 times in a row"),
        ("hangs-up", DownloadError, "RemoteDisconnected: .*, 3 times in a row"),
        ("stalls", DownloadError, "Read timed out"),
        ("cut-no-ranges", DownloadError, "3 times in a row"),
        ("redirects-in-a-ring", DownloadError, "TooManyRedirects"),
    ],
)
def test_a_file_is_refused_from_a_server_that(
    path: str, error: type[Exception], says: str, server: Server, tmp_path: Path
) -> None:
    server.stall = 1.0
    if path == "stalls":
        server.piece = 0
    with pytest.raises(error, match=says) as caught:
        get(server, tmp_path, path)
    assert type(caught.value) is error
    assert server.url(path) in str(caught.value)
    assert "--from-file" in str(caught.value)
    assert not (tmp_path / "model.bin").exists()


@pytest.mark.parametrize("path", ["says-less", "sends-more"])
def test_a_known_length_counts_for_more_than_an_announced_one(
    path: str, server: Server, tmp_path: Path
) -> None:
    assert get(server, tmp_path, path).path.read_bytes() == CONTENT


def test_a_short_announced_length_is_refused_where_only_the_checksum_is_known(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(ChecksumError, match=r"sha1 [0-9a-f]{40}, expected"):
        get(server, tmp_path, "says-less", entry=UNMEASURED)
    assert names(tmp_path) == []


def test_what_a_wrong_file_was_is_said(server: Server, tmp_path: Path) -> None:
    server.content = b"layer { name: 'conv1_1' }"
    with pytest.raises(
        ChecksumError, match=r"not model.bin: .*It begins with b\"layer { name: 'conv1_1' }\""
    ):
        get(server, tmp_path, "good", entry=UNMEASURED)


def test_a_broken_download_leaves_a_part_that_the_next_one_continues(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"model.bin.part keeps (\d+) bytes; the same command continues there"
    ):
        get(server, tmp_path, "cut,hangs-up")
    assert names(tmp_path) == ["model.bin.part"]
    kept = (tmp_path / "model.bin.part").read_bytes()
    assert len(kept) == server.piece
    assert CONTENT.startswith(kept)
    server.requests.clear()
    assert get(server, tmp_path, "good").path.read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={len(kept)}-"]
    assert names(tmp_path) == ["model.bin"]


def test_a_part_that_is_complete_needs_no_server(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").write_bytes(CONTENT)
    assert get(server, tmp_path, "good").path.read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("entry", [KNOWN, UNMEASURED], ids=["known length", "unknown length"])
@pytest.mark.parametrize("part", [b"something else", CONTENT[:-1] + b"?", CONTENT + b"tail", b""])
def test_a_part_of_another_file_is_thrown_away(
    part: bytes, entry: Entry, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "model.bin.part").write_bytes(part)
    assert get(server, tmp_path, "good", entry=entry).path.read_bytes() == CONTENT


def test_a_web_page_costs_nothing_of_an_earlier_part(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match="It is a web page"):
        get(server, tmp_path, "html")
    assert (tmp_path / "model.bin.part").read_bytes() == CONTENT[:1000]


def test_without_a_checksum_nothing_is_continued_from_an_earlier_run(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").write_bytes(CONTENT[:1000])
    get(server, tmp_path, "good", entry=PLAIN)
    assert ranges(server) == [None]


def test_without_a_checksum_a_cut_download_begins_again(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path, "cut,good", entry=PLAIN).path.read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_without_a_checksum_a_part_of_the_file_that_nobody_asked_for_is_not_taken(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(DownloadError, match="asked from byte 0, got 'bytes 40000-"):
        get(server, tmp_path, "cut,rest-unasked", entry=PLAIN)
    assert names(tmp_path) == []


@pytest.mark.parametrize("path", ["good", "no-length", "endless"])
def test_a_file_of_unknown_length_may_not_fill_the_disk(path: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="at most 100000 are taken"):
        get(server, tmp_path, path, entry=UNMEASURED, most=100_000)
    assert names(tmp_path) == []
    assert get(server, tmp_path, "good", most=100_000).path.read_bytes() == CONTENT, "its length is known"


def test_a_file_that_changed_on_the_server_is_not_joined_to_the_old_half(
    server: Server, tmp_path: Path
) -> None:
    newer = CONTENT[::-1]

    def change(done: int, total: int | None) -> None:
        server.content, server.tag = newer, '"second"'

    assert get(server, tmp_path, "cut,good", entry=PLAIN, on_progress=change).path.read_bytes() == newer


@pytest.mark.parametrize("path", ["text", "html", "json", "lfs"])
def test_without_a_checksum_text_is_refused(path: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="sent no model"):
        get(server, tmp_path, path, entry=PLAIN)
    assert names(tmp_path) == []


def test_mirrors_are_tried_in_turn_and_continue_one_another(server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    done = get(server, tmp_path, "404", "html", "cut,hangs-up", "flipped", "good", notice=said.append)
    assert done.path.read_bytes() == CONTENT
    assert done.source == server.url("good")
    assert [path for path, _ in server.requests] == ["/404", "/html"] + ["/cut,hangs-up"] * 4 + [
        "/flipped",
        "/good",
    ]
    assert f"model.bin: trying {server.url('html')}" in said
    assert any("next attempt in 0.001 s, from byte 40000" in line for line in said)


def test_attempts_that_bring_something_are_not_counted(server: Server, tmp_path: Path) -> None:
    server.piece = 30_000  # seven requests, of which QUICK would allow three
    assert get(server, tmp_path, "cut").path.read_bytes() == CONTENT
    assert len(server.requests) > 2 * QUICK.attempts


def test_pauses_double_and_heed_retry_after(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    patient = Patience(attempts=5, pause=0.2, longest_pause=10, connect=2, read=0.3)
    entry = replace(KNOWN, urls=(server.url("503,503,503,429,good"),))
    fetch(entry, tmp_path, patience=patient)
    assert pauses == [0.2, 0.4, 0.8, 1.6]
    server.requests.clear()
    pauses.clear()
    fetch(replace(KNOWN, urls=(server.url("429,good"),)), tmp_path, patience=patient, force=True)
    assert pauses == [1.0]


def test_an_address_without_a_server_is_given_up_soon(tmp_path: Path) -> None:
    with Server(CONTENT) as gone:
        url = gone.url("good")
    with pytest.raises(DownloadError, match=r"Connection refused.*, 2 times in a row"):
        fetch(replace(KNOWN, urls=(url,)), tmp_path, patience=replace(QUICK, attempts=9))


def test_a_file_that_is_there_is_checked_and_not_fetched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(CONTENT)
    assert get(server, tmp_path, "good").source == ""
    assert server.requests == []
    (tmp_path / "model.bin").write_bytes(b"mine")
    with pytest.raises(ChecksumError, match=r"model.bin: not model.bin: 4 bytes, expected 200000; sha256"):
        get(server, tmp_path, "good")
    assert (tmp_path / "model.bin").read_bytes() == b"mine"
    assert get(server, tmp_path, "good", force=True).path.read_bytes() == CONTENT


def test_the_first_file_pins_its_checksum_where_none_is_published(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path, "good", entry=PLAIN).recorded
    assert (tmp_path / "model.bin.sha256").read_text() == f"{SHA256}  model.bin\n"
    (tmp_path / "model.bin").unlink()
    assert not get(server, tmp_path, "good", entry=PLAIN).recorded
    server.content = b"\x80another model"
    (tmp_path / "model.bin").unlink()
    with pytest.raises(ChecksumError, match=rf"the first one here had {SHA256} \(model.bin.sha256\)"):
        get(server, tmp_path, "good", entry=PLAIN)
    (tmp_path / "model.bin.sha256").write_text("nonsense")
    with pytest.raises(FormatError, match="expected 64 hexadecimal digits"):
        get(server, tmp_path, "good", entry=PLAIN)


def test_a_published_beginning_of_a_checksum_is_held(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "right", "good", entry=replace(PLAIN, sha256_begins=SHA256[:8]))
    with pytest.raises(ChecksumError, match="expected one that begins with 00000000"):
        get(server, tmp_path / "wrong", "good", entry=replace(PLAIN, sha256_begins="00000000"))


@pytest.mark.parametrize("kind", ["md5", "sha1", "sha256"])
def test_each_kind_of_checksum_is_held(kind: str, server: Server, tmp_path: Path) -> None:
    right = hashlib.new(kind, CONTENT).hexdigest()
    get(server, tmp_path / "right", "good", entry=replace(PLAIN, **{kind: right}))
    wrong = right[:-1] + ("0" if right[-1] != "0" else "1")
    with pytest.raises(ChecksumError, match=f"{kind} {right}, expected {wrong}"):
        get(server, tmp_path / "wrong", "good", entry=replace(PLAIN, **{kind: wrong}))


def test_a_full_disk_is_said_before_anything_is_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DownloadError, match="needs 200000 bytes more, the disk has 1000"):
        get(server, tmp_path, "good")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_said(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").mkdir()
    with pytest.raises(DownloadError, match=r"model.bin.part: cannot be written"):
        get(server, tmp_path, "good")


def test_progress_counts_from_the_part_to_the_end(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.bin.part").write_bytes(CONTENT[:100_000])
    seen: list[tuple[int, int | None]] = []
    get(server, tmp_path, "good", on_progress=lambda done, total: seen.append((done, total)))
    counts = [done for done, _ in seen]
    assert 100_000 <= counts[0] < counts[-1] == len(CONTENT)
    assert counts == sorted(counts)
    assert {total for _, total in seen} == {len(CONTENT)}


def test_proxies_are_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    fetch(replace(KNOWN, urls=("http://models.invalid/good",)), tmp_path, patience=QUICK)
    assert len(server.requests) == 1


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "keyUsage=keyCertSign,digitalSignature",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
        ],
        check=True,
        capture_output=True,
    )
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    with Server(CONTENT, both) as server:
        with pytest.raises(DownloadError, match=r"CERTIFICATE_VERIFY_FAILED.*REQUESTS_CA_BUNDLE"):
            get(server, tmp_path / "models", "good")
        assert server.requests == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert get(server, tmp_path / "models", "good").path.read_bytes() == CONTENT


FAULTS = ["good", "cut", "cut-no-ranges", "cut-no-length", "no-ranges", "no-length", "says-more", "says-less"]
FAULTS += ["other-range", "whole-as-range", "no-such-range", "flipped", "html", "lfs", "empty", "404", "429"]
FAULTS += ["503", "hangs-up", "gzip", "sends-more", "redirects"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4), min_size=1, max_size=3),
    entry=st.sampled_from([KNOWN, UNMEASURED]),
    part=st.sampled_from([None, CONTENT[:70_000], CONTENT[:70_000][::-1]]),
)
def test_no_sequence_of_faults_puts_a_wrong_file_in_place(
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[list[str]],
    entry: Entry,
    part: bytes | None,
) -> None:
    server.requests.clear()
    folder = tmp_path_factory.mktemp("models")
    if part is not None:
        (folder / "model.bin.part").write_bytes(part)
    try:
        get(server, folder, *(",".join(words) for words in faults), entry=entry)
    except (DownloadError, ChecksumError):
        assert set(names(folder)) <= {"model.bin.part"}
        server.requests.clear()
        get(server, folder, "good", entry=entry)  # whatever was left does no harm
    assert (folder / "model.bin").read_bytes() == CONTENT
    assert "model.bin.part" not in names(folder)


def test_a_file_got_elsewhere_is_checked_and_copied(tmp_path: Path) -> None:
    source = tmp_path / "download (1).bin"
    source.write_bytes(CONTENT)
    done = adopt(source, tmp_path / "models", KNOWN)
    assert done.path == tmp_path / "models" / "model.bin"
    assert done.path.read_bytes() == CONTENT
    assert names(tmp_path / "models") == ["model.bin"]
    assert adopt(done.path, tmp_path / "models", KNOWN).path.read_bytes() == CONTENT  # it lies there already
    source.write_bytes(CONTENT[:-1])
    with pytest.raises(ChecksumError, match=r"not model.bin: 199999 bytes, expected 200000"):
        adopt(source, tmp_path / "models", KNOWN)
    with pytest.raises(ChecksumError, match="no file of the registry has sha256"):
        adopt(source, tmp_path / "models")
    source.write_bytes(b"<html>")
    with pytest.raises(ChecksumError, match="It is a web page"):
        adopt(source, tmp_path / "models", PLAIN)
    assert (tmp_path / "models" / "model.bin").read_bytes() == CONTENT
    assert names(tmp_path / "models") == ["model.bin"]


# The registry.


def test_the_registry_holds_every_fact_that_is_known_of_the_files() -> None:
    facts = CHECKOUT.parent / "shared" / "MODELS.md"
    if not facts.is_file():
        pytest.skip(f"{facts} does not exist")
    table = facts.read_text(encoding="utf-8").partition("## In this folder")[0]
    listed = known_files.registry_path().read_text(encoding="utf-8")
    digests = re.findall(r"\b(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32})\b", table)
    addresses = re.findall(r"https?://\S+/[\w.-]+\.(?:caffemodel|mat|prototxt)\b", table)
    lengths = re.findall(r"\b\d{9}\b", table)
    assert (len(digests), len(addresses), len(lengths)) == (14, 6, 4)
    missing = [fact for fact in digests + addresses + lengths if fact not in listed]
    assert missing == []
    rows = re.findall(r"^\| (\S[^|]*?) \|", table, re.MULTILINE)[2:]
    for row in rows:
        for name in re.findall(r"[\w.-]+\.(?:caffemodel|mat|pth|prototxt)", row):
            assert known_files.find(name), name


def test_every_entry_says_whose_it_is_and_where_its_checksum_comes_from() -> None:
    entries = download.registry()
    assert len({entry.name for entry in entries}) == len(entries) >= 16
    for entry in entries:
        assert all((entry.purpose, entry.author, entry.licence, entry.checksum_source)), entry.name
        assert entry.page.startswith("https://")
        assert entry.pinned or "none is published" in entry.checksum_source
        assert entry.urls or entry.inside or entry.name == "vgg16_conv.pth"
        assert not entry.inside or known_files.find(entry.inside)
        for kind, digits in (("sha256", 64), ("sha1", 40), ("md5", 32)):
            assert re.fullmatch(rf"([0-9a-f]{{{digits}}})?", getattr(entry, kind))


def test_torch7s_files_have_the_folders_of_the_original(tmp_path: Path) -> None:
    names = [entry.name for entry in download.registry() if entry.name.endswith(".t7")]
    assert [name.rpartition("/")[0] for name in names] == ["instance_norm"] * 6 + ["eccv16"] * 4 + [""]
    source = tmp_path / "a copy.t7"
    source.write_bytes(b"\3\0\0\0\1\0\0\0\0\0\0\0")
    done = download.adopt(source, tmp_path / "models", known_files.find("instance_norm/candy.t7"))
    assert done.path == tmp_path / "models" / "instance_norm" / "candy.t7" and done.recorded
    note = done.path.with_name("candy.t7.sha256")
    assert note.read_text() == f"{done.digests.sha256}  candy.t7\n"


def test_files_are_recognised_by_their_checksums_whatever_they_are_called() -> None:
    sha256 = "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
    found = known_files.find_by_checksum(known_files.Digests(574673361, "", "", sha256))
    assert found is not None
    assert found.name == "vgg19-dcbb9e9d.pth"
    assert known_files.find_by_checksum(known_files.Digests(1, "", "", "0" * 64)) is None


def test_the_bundled_network_is_the_registered_one() -> None:
    done = download.verify(known_files.find("vgg16_conv.pth") or PLAIN, CHECKOUT / "models")
    assert done.entry.name == "vgg16_conv.pth"


def test_measuring_agrees_with_hashlib(tmp_path: Path) -> None:
    path, copy = tmp_path / "file", io.BytesIO()
    path.write_bytes(CONTENT * 7)
    with path.open("rb") as file:
        digests = known_files.measure_stream(file, copy.write)
    assert digests == known_files.measure(path)
    assert (digests.bytes, copy.getvalue()) == (1_400_000, CONTENT * 7)
    for kind in ("md5", "sha1", "sha256"):
        assert getattr(digests, kind) == hashlib.new(kind, CONTENT * 7).hexdigest()


def test_importing_the_registry_imports_no_torch() -> None:
    program = "import sys; import legacy_style.toolkit.download as d; d.registry(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, check=True)


# The command.


@pytest.fixture
def command(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Result]]:
    """`legacy-style models` over a registry of the test's own: model.bin, page.bin, free.bin, held.bin."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("a_folder/held.bin")
        member.size = len(CONTENT)
        tar.addfile(member, io.BytesIO(CONTENT))
    held = tmp_path / "held.tar.gz"
    held.write_bytes(archive.getvalue())
    common = {
        "purpose": "tests",
        "author": "nobody",
        "licence": "none",
        "page": "https://page.invalid",
        "checksum_source": "us",
    }
    pinned = {"bytes": len(CONTENT), "sha256": SHA256}
    listed = [
        {"name": "model.bin", "urls": [server.url("good")], **pinned, **common},
        {"name": "page.bin", "urls": [server.url("html")], **pinned, **common},
        {"name": "free.bin", "urls": [server.url("good")], **common},
        {"name": "held.bin", "inside": "held.tar.gz", **common},
        {"name": "held.tar.gz", "urls": [server.url("archive")], **common},
    ]
    path = tmp_path / "registry.json"
    path.write_text(json.dumps({"files": listed}))
    monkeypatch.setattr(known_files, "registry_path", lambda: path)
    known_files.registry.cache_clear()
    yield lambda name, *words: legacy_style("models", name, "--to", tmp_path / "models", *words)
    known_files.registry.cache_clear()


def test_the_command_fetches_lists_and_verifies(command: Callable[..., Result], tmp_path: Path) -> None:
    done = command("get", "model.bin", "free.bin")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].startswith(
        "model.bin: 200000 bytes, the published checksum; from http://"
    )
    assert done.stdout.splitlines()[1].startswith(
        f"free.bin: 200000 bytes, no checksum is published, so sha256 {SHA256}"
    )
    assert "model.bin: 100.0% of 0.2 MB" in done.stderr
    assert names(tmp_path / "models") == ["free.bin", "free.bin.sha256", "model.bin"]

    listed = command("list")
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
        ["model.bin", "here"],
        ["page.bin", "-"],
        ["free.bin", "here"],
        ["held.bin", "-"],
        ["held.tar.gz", "-"],
    ]
    assert [entry["here"] for entry in json.loads(command("list", "--json").stdout)] == [
        True,
        False,
        True,
        False,
        False,
    ]

    assert command("verify").exit_code == 0
    (tmp_path / "models" / "free.bin").write_bytes(b"\x80changed")
    verified = command("verify", "--json")
    assert verified.exit_code == 1
    assert [(item["name"], item["ok"]) for item in json.loads(verified.stdout)] == [
        ("model.bin", True),
        ("free.bin", False),
    ]
    (tmp_path / "models" / "page.bin.part").write_bytes(b"12345")
    missing = command("verify", "page.bin")
    assert missing.exit_code == 1
    assert "page.bin: is not in" in missing.stderr
    assert "page.bin.part holds 5 bytes" in missing.stderr


def test_one_file_that_fails_does_not_keep_the_next_from_coming(
    command: Callable[..., Result], tmp_path: Path
) -> None:
    done = command("get", "page.bin", "model.bin", "--no-progress")
    assert done.exit_code == 1
    assert "legacy-style: page.bin: no address gave the file" in done.stderr
    assert "model.bin: 100.0%" not in done.stderr
    assert names(tmp_path / "models") == ["model.bin"]


def test_the_command_takes_a_file_got_elsewhere(command: Callable[..., Result], tmp_path: Path) -> None:
    source = tmp_path / "got"
    source.write_bytes(CONTENT)
    done = command("get", "--from-file", str(source))
    assert done.exit_code == 0
    assert done.stdout.startswith("model.bin: 200000 bytes, the published checksum; from ")
    assert command("get", "--from-file", str(source), "free.bin").exit_code == 0
    source.write_bytes(CONTENT[1:])
    wrong = command("get", "--from-file", str(source), "model.bin")
    assert wrong.exit_code == 1
    assert "not model.bin: 199999 bytes, expected 200000" in wrong.stderr


def test_a_file_inside_an_archive_is_taken_out(command: Callable[..., Result], tmp_path: Path) -> None:
    assert command("get", "--from-file", str(tmp_path / "held.tar.gz"), "held.tar.gz").exit_code == 0
    assert command("get", "held.bin").exit_code == 0
    assert (tmp_path / "models" / "held.bin").read_bytes() == CONTENT
    assert "held.bin.part" not in names(tmp_path / "models")


def test_wrong_use_of_the_command_is_said(command: Callable[..., Result]) -> None:
    unknown = command("get", "modle.bin")
    assert unknown.exit_code == 2
    assert "no file 'modle.bin' in the registry; near: model.bin" in unknown.stderr
    assert (
        "--from-file takes one NAME at most"
        in command("get", "--from-file", __file__, "model.bin", "free.bin").stderr
    )


def test_an_interrupted_download_says_how_to_go_on(
    command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> Fetched:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "fetch", interrupt)
    stopped = command("get", "model.bin")
    assert stopped.exit_code == 130
    assert "the same command continues it" in stopped.stderr


@pytest.mark.parametrize(
    ("name", "files"),
    [
        (
            "download_models.sh",
            [
                "VGG_ILSVRC_19_layers_deploy.prototxt",
                "vgg_normalised.caffemodel",
                "VGG_ILSVRC_19_layers.caffemodel",
            ],
        ),
        ("download_vgg16.sh", ["vgg16.t7"]),
        (
            "download_style_transfer_models.sh",
            [
                entry.name
                for entry in known_files.registry()
                if entry.name.endswith(".t7") and "/" in entry.name
            ],
        ),
    ],
)
def test_the_shell_scripts_ask_for_the_files_of_the_originals(
    tmp_path: Path, name: str, files: list[str]
) -> None:
    shutil.copytree(
        CHECKOUT / "models", tmp_path / "models", ignore=shutil.ignore_patterns("*.pth", "*.caffemodel")
    )
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "download_models.py").write_text("import sys; print(*sys.argv[1:], sep='\\n')")
    script = ["sh", str(tmp_path / "models" / name), "--verify"]
    said = subprocess.run(
        script,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert said.stdout.splitlines() == [
        "--to",
        str(tmp_path / "models"),
        "--verify",
        *files,
    ]
