"""Manifests: read, refused, written, and the one that ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recordings import SHARED, needs_shared

from legacy_style.compare import manifest
from legacy_style.compare.manifest import File, Manifest, Printed, Row, Tolerances
from legacy_style.errors import FormatError, OptionError
from legacy_style.files import sha256
from legacy_style.programs.neural_style import options


def good() -> dict[str, Any]:
    return {
        "format": manifest.FORMAT,
        "about": "a test",
        "files": {"a.png": {"sha256": "0" * 64, "url": "https://example.org/a.png"}},
        "models": {"VGG-16": ["19f3ed55"]},
        "rows": [
            {
                "name": "one",
                "options": "-content_image 'a b.png' -seed 1",
                "expected": "a.png",
                "model": "VGG-16",
                "printed": [{"iteration": 1, "content": [1, 2.5], "style": [3], "total": 6.5}],
                "tolerances": {"losses": 0.001, "distance": None},
            }
        ],
    }


def read(tmp_path: Path, data: Any) -> Manifest:
    path = tmp_path / "manifest.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return manifest.read(path)


def test_every_field_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, good())
    assert found.about == "a test"
    assert found.files == {"a.png": File("0" * 64, "https://example.org/a.png")}
    assert found.models == {"VGG-16": ("19f3ed55",)}
    assert found.rows == (
        Row(
            "one",
            ("-content_image", "a b.png", "-seed", "1"),
            expected="a.png",
            model="VGG-16",
            printed=(Printed(1, (1.0, 2.5), (3.0,), 6.5),),
            tolerances=Tolerances(losses=0.001, distance=None),
        ),
    )


def test_tolerances_of_the_manifest_hold_for_every_row(tmp_path: Path) -> None:
    data = good()
    data["tolerances"] = {"losses": 0.5, "objective": 0.2}
    assert read(tmp_path, data).rows[0].tolerances == Tolerances(losses=0.001, distance=None, objective=0.2)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = read(tmp_path, good())
    path = tmp_path / "again.json"
    manifest.write(found, path)
    again = manifest.read(path)
    assert (again.rows, again.files, again.models, again.about) == (
        found.rows,
        found.files,
        found.models,
        found.about,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format="other"), "not a manifest"),
        (lambda data: data.pop("format"), "the field 'format' is missing"),
        (lambda data: data.update(rows=[]), "has no rows"),
        (lambda data: data.update(extra=1), "unknown field 'extra'"),
        (lambda data: data["rows"].append(data["rows"][0]), "two rows are named one"),
        (lambda data: data["rows"][0].update(tolerence={}), "row one: unknown field 'tolerence'"),
        (lambda data: data["rows"][0]["tolerances"].update(loses=1), "unknown tolerance 'loses'"),
        (lambda data: data["rows"][0]["tolerances"].update(losses=-1), "the tolerance 'losses' is -1"),
        (lambda data: data["rows"][0]["tolerances"].update(losses=True), "the tolerance 'losses' is true"),
        (lambda data: data["rows"][0].update(name="../x"), "a name is made of letters"),
        (lambda data: data["rows"][0].update(options="-a 'b"), "cannot be split into words"),
        (lambda data: data["rows"][0].update(options=[]), "'options' is .*, expected a string"),
        (lambda data: data["rows"][0].update(model="VGG-99"), "have no 'VGG-99'"),
        (lambda data: data["rows"][0].update(seeds=["1"]), "is not a whole number"),
        (lambda data: data["rows"][0].update(seeds=[True]), "is not a whole number"),
        (lambda data: data["rows"][0].update(expected="", printed=[]), "expects nothing"),
        (lambda data: data["rows"][0]["printed"][0].pop("total"), "the field 'total' is missing"),
        (lambda data: data["rows"].append(3), "row 2: expected an object"),
        (lambda data: data["files"].update(b={"sha256": "zz"}), "is not a SHA-256"),
        (lambda data: data["models"].update(b=["12"]), "is not a SHA-256, its first 8"),
        (lambda data: data["models"].update(b="12"), "expected a list of strings"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: Any, message: str) -> None:
    data = good()
    change(data)
    with pytest.raises(FormatError, match=message):
        read(tmp_path, data)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '"text"'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FormatError, match=r"manifest\.json: "):
        read(tmp_path, text)


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read as a manifest"):
        manifest.read(tmp_path / "none.json")


def test_rows_are_chosen_by_name(tmp_path: Path) -> None:
    found = manifest.read(manifest.PUBLISHED)
    assert [row.name for row in manifest.only(found, ["golden_gate_escher"]).rows] == ["golden_gate_escher"]
    assert manifest.only(found, []) == found
    with pytest.raises(OptionError, match="did you mean golden_gate_escher"):
        manifest.only(found, ["golden_gate_esher"])


def test_tolerances_are_given_by_name() -> None:
    assert manifest.parse_tolerances(["losses=1e-3", "objective=0"]) == {"losses": 1e-3, "objective": 0}
    for wrong, message in (
        ("losses", "a name and a number"),
        ("loses=1", "unknown tolerance"),
        ("losses=-1", "is -1"),
    ):
        with pytest.raises(OptionError, match=message):
            manifest.parse_tolerances([wrong])


def test_the_published_manifest_is_complete() -> None:
    found = manifest.read(manifest.PUBLISHED)
    assert len(found.rows) == 29 + 6 + 1 + 3
    for row in found.rows:
        assert options.parse(row.options) is not None
        assert row.model and row.certainty
        if row.expected:
            assert found.files[row.expected].sha256
    urls = [file.url for name, file in found.files.items() if name.startswith("examples/")]
    assert len(urls) == 14 + 35
    assert all(url.startswith("https://raw.githubusercontent.com/jcjohnson/neural-style/") for url in urls)


def test_the_losses_of_install_md_are_a_row_that_needs_vgg_19() -> None:
    (row,) = [row for row in manifest.read(manifest.PUBLISHED).rows if row.name == "install_md_iteration_1"]
    assert row.model == "VGG-19"
    assert row.printed == (
        Printed(
            1,
            (2091178.593750,),
            (30021.292114, 700349.560547, 153033.203125, 12404635.156250, 656.860304),
            15379874.666090,
        ),
    )
    assert row.tolerances.first_losses == 1e-3


@needs_shared
def test_the_published_manifest_says_what_was_published() -> None:
    found = manifest.read(manifest.PUBLISHED)
    published = json.loads((SHARED / "published/manifest.json").read_text())
    for name, digest in published["inputs"].items():
        assert found.files[name].sha256 == digest
    for entry in published["outputs"]:
        (row,) = [row for row in found.rows if row.expected == entry["output"]]
        assert found.files[row.expected].sha256 == entry["sha256"]
        assert (row.certainty, row.note) == (entry["certainty"], entry["note"])
        parsed = options.parse(row.options)
        assert parsed is not None
        assert parsed.options.content_image == entry["content"]
        assert parsed.options.style_image == ",".join(entry["style"])
        for name, value in entry["options"].items():
            if name == "model":
                assert (row.model, value) == ("Network in Network", "NIN")
            else:
                assert getattr(parsed.options, name) == value


@needs_shared
def test_the_published_manifest_knows_the_recorded_network() -> None:
    known = manifest.read(manifest.PUBLISHED).models["VGG-16"]
    digest = sha256(SHARED / "models/VGG_ILSVRC_16_layers_conv.caffemodel")
    assert any(digest.startswith(each) for each in known)
