"""Batches: which pictures they mean, what is painted again, and runs of a small network in one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import thin_networks
from PIL import Image

from legacy_style.cli import batch, neural_style
from legacy_style.errors import FormatError, OptionError
from legacy_style.formats import model_files
from legacy_style.formats.caffe import caffemodel
from legacy_style.programs.neural_style.batch import JOURNAL, Journal, digest, jobs
from legacy_style.programs.neural_style.kept import KeptNetwork
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.story import stylize

WORDS = [
    *("-model_file", thin_networks.path("vgg19"), "-image_size", "32", "-gpu", "-1", "-seed", "1"),
    *("-optimizer", "adam", "-num_iterations", "3", "-save_iter", "0"),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[0:36, 0:48]
    for place in ("photos", "styles"):
        Path(place).mkdir()
    for name, phase in (("photos/a", 3), ("photos/b", 4), ("styles/ink", 7), ("styles/oil", 9)):
        waves = np.stack([np.sin(x / (phase + each)) * np.cos(y / (5 + each)) for each in range(3)], 2)
        Image.fromarray(np.uint8(127 + 120 * waves)).save(f"{name}.png")
    return tmp_path


def run(*words: str) -> int:
    return neural_style.main([*WORDS, *words], "th")


def planned(*words: str, **options: str) -> list[tuple[str, str, str]]:
    found = jobs(Options(**options), *words)  # type: ignore[arg-type]
    return [(each.content_image, each.style_image, each.output_image) for each in found]


def test_a_folder_a_pattern_and_a_folder_of_styles(folder: Path) -> None:
    both = [("photos/a.png", "s.png", "out/a.png"), ("photos/b.png", "s.png", "out/b.png")]
    assert planned("photos", "out", style_image="s.png") == both
    assert planned("photos/*.png", "out", style_image="s.png") == both
    assert planned(f"{folder}/photos/b.*", "out", style_image="s.png", output_image="x.jpg") == [
        (f"{folder}/photos/b.png", "s.png", "out/b.jpg")
    ]
    assert planned("", "out", content_image="photos/a.png", style_image="styles") == [
        ("photos/a.png", "styles/ink.png", "out/a_ink.png"),
        ("photos/a.png", "styles/oil.png", "out/a_oil.png"),
    ]
    assert len(planned("photos", "out", style_image="styles")) == 4


def test_a_csv_file_names_content_style_output_and_any_option(folder: Path) -> None:
    Path("list.csv").write_text(
        "content,style,output,style_weight,exif_rotate\n"
        "photos/a.png,styles/ink.png,first.jpg,2e3,yes\n"
        '"photos/b.png","styles/ink.png,styles/oil.png",,,\n',
        encoding="utf-8-sig",
    )
    first, second = jobs(Options(style_weight=7.0, output_image="x.png"), "list.csv", "out")
    assert (first.output_image, first.style_weight, first.exif_rotate) == ("out/first.jpg", 2000.0, True)
    assert (second.output_image, second.style_weight, second.exif_rotate) == ("out/b.png", 7.0, False)
    assert second.style_image == "styles/ink.png,styles/oil.png"
    assert first.is_explicit("content_image")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("content,colour\na,b\n", "the column 'colour' is no option; columns are content, style"),
        ("content,version\na,1\n", "the column 'version' is no option"),
        ("content,style_weight\na,heavy\n", "line 2: invalid type for option -style_weight"),
        ("content,tile\na,-1\n", "line 2: --tile takes a whole number"),
        ("content,style\na\n", "line 2: it has more or fewer cells"),
        ("content,style\na,b,c\n", "line 2: it has more or fewer cells"),
        ("content,style\n", "there are no rows"),
        ("", "there are no rows"),
        ('content\n"a"b\n', "line 2: "),
    ],
)
def test_a_csv_file_that_makes_no_sense(folder: Path, text: str, words: str) -> None:
    Path("list.csv").write_text(text)
    with pytest.raises((OptionError, FormatError), match=f"^list.csv.*{words}"):
        jobs(Options(), "list.csv", "out")


def test_what_cannot_be_a_batch_is_said_before_anything_is_loaded(folder: Path) -> None:
    for words, options, message in (
        (("photos", ""), {}, "give --output-dir"),
        (("photos/*.gif", "out"), {}, "there is no such file"),
        (("styles/..", "out"), {}, "there are no images in it"),
        (("none.csv", "out"), {}, "none.csv: No such file"),
        (("photos", "out"), {"checkpoint": "x"}, "belong to one run"),
        (("p*/*", "out"), {"style_image": "photos/.."}, "-style_image .*there are no images"),
    ):
        with pytest.raises(OptionError, match=message):
            jobs(Options(**options), *words)  # type: ignore[arg-type]
    Image.new("RGB", (4, 4)).save("photos/a.jpg")
    with pytest.raises(OptionError, match=r"photos/a.jpg and photos/a.png would both become out/a.png"):
        jobs(Options(), "photos", "out")


def test_the_digest_is_of_all_that_decides_on_a_picture(folder: Path) -> None:
    options = Options(content_image="photos/a.png", style_image="styles/ink.png")
    same = digest(options)
    assert digest(options.changed(print_iter=1.0, output_image="y.png")) == same
    assert digest(options.changed(style_weight=1.0)) != same
    assert digest(options.changed(style_image="styles/oil.png")) != same
    Path("styles/ink.png").write_bytes(Path("styles/oil.png").read_bytes())
    assert digest(options) != same


def test_a_journal_that_is_none_is_said_to_be(folder: Path) -> None:
    for text in ("{", "[]", '{"format": "x"}', '{"format": "legacy-style batch 1", "pictures": {"a": 3}}'):
        Path(JOURNAL).write_text(text)
        with pytest.raises(FormatError, match="not the journal of a batch; delete it"):
            Journal(".")


def test_pictures_are_those_of_single_runs(folder: Path) -> None:
    assert run("--batch", "photos", "-style_image", "styles", "--output-dir", "out") == 0
    for photo in "ab":
        for style in ("ink", "oil"):
            single = ["-content_image", f"photos/{photo}.png", "-style_image", f"styles/{style}.png"]
            assert run(*single, "-output_image", "single.png") == 0
            assert Path(f"out/{photo}_{style}.png").read_bytes() == Path("single.png").read_bytes()
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(
        [JOURNAL, "a_ink.png", "a_oil.png", "b_ink.png", "b_oil.png"]
    )


def test_pictures_do_not_depend_on_those_before_them(folder: Path) -> None:
    """Each row takes over what the rows before it left."""
    Path("photos/bad.png").write_text("no image")
    rows = [
        ("a", "ink", ""),
        ("b", "ink", ""),
        ("bad", "ink", ""),
        ("none", "ink", ""),
        ("a", "oil", ""),
        ("b", "oil", "-image_size 40"),
        ("b", "oil", "-image_size 40 -style_scale 0.8"),
        ("b", "ink", "-init image -init_image photos/a.png"),
        ("a", "ink", "-optimizer lbfgs"),
        ("a", "ink", "--tile 16"),
        ("a", "ink", "-style_weight 7 -tv_weight 0"),
        ("b", "ink", "-pooling avg"),
        ("a", "ink", "-pooling avg -optimizer lbfgs"),
        ("b", "ink", "-style_layers relu2_1"),
        ("b", "ink", "--color-transfer match"),
        ("a", "ink", "--color-transfer match"),
        ("a", "ink", "--mask styles/oil.png"),
        ("b", "ink", "--mask styles/oil.png"),
        ("a", "ink", ""),
    ]
    options = sorted({word for _, _, more in rows for word in more.split() if word.startswith("-")})
    lines = [",".join(["content", "style", "output", *(word.lstrip("-") for word in options)])]
    for number, (photo, style, more) in enumerate(rows):
        given = dict(zip(more.split()[::2], more.split()[1::2], strict=True))
        cells = [f"photos/{photo}.png", f"styles/{style}.png", f"{number}.png"]
        lines.append(",".join([*cells, *(given.get(word, "") for word in options)]))
    Path("list.csv").write_text("\n".join(lines).replace("color-transfer", "color_transfer"))
    assert run("--batch", "list.csv", "--output-dir", "out") == 1
    for number, (photo, style, more) in enumerate(rows):
        single = ["-content_image", f"photos/{photo}.png", "-style_image", f"styles/{style}.png"]
        failed = photo in ("bad", "none")
        assert run(*single, *more.split(), "-output_image", "single.png") == int(failed)
        if failed:
            assert not Path(f"out/{number}.png").exists()
        else:
            assert Path(f"out/{number}.png").read_bytes() == Path("single.png").read_bytes(), rows[number]


def test_stages_of_a_batch_are_those_of_single_runs(folder: Path) -> None:
    words = ["--stages", "24:2,32:3:style_scale=0.75", "-style_image", "styles/ink.png"]
    base = [*WORDS[:2], "-gpu", "-1", "-seed", "1", "-optimizer", "adam", "-save_iter", "0", *words]
    assert neural_style.main([*base, "--batch", "photos", "--output-dir", "out"], "th") == 0
    for photo in "ab":
        single = ["-content_image", f"photos/{photo}.png", "-output_image", f"{photo}.png"]
        assert neural_style.main([*base, *single], "th") == 0
        for name in (f"{photo}.png", f"{photo}_stage1.png"):
            assert Path("out", name).read_bytes() == Path(name).read_bytes()


def test_the_network_and_the_targets_of_a_style_are_taken_once(folder: Path) -> None:
    kept = KeptNetwork()
    given = Options(
        model_file=thin_networks.path("vgg19"), gpu="-1", image_size=32.0, num_iterations=1.0, seed=1.0
    )

    def said(photo: str, style: str) -> list[str]:
        lines: list[str] = []
        options = given.changed(content_image=f"photos/{photo}.png", style_image=f"styles/{style}.png")
        stylize(options, log=lines.append, save=False, kept=kept)
        return [
            line.split()[0]
            for line in lines
            if line.startswith(("Successfully", "Setting", "Capturing style"))
        ]

    assert said("a", "ink") == ["Successfully", *["Setting"] * 6, "Capturing"]
    assert said("b", "ink") == []
    Path("styles/ink.png").write_bytes(Path("styles/oil.png").read_bytes())
    assert said("b", "ink") == ["Capturing"]
    assert said("a", "oil") == []


def test_a_bad_file_stops_nobody_else_and_the_rest_is_not_painted_twice(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos/aa.png").write_text("no image")
    words = ("--batch", "photos", "-style_image", "styles/ink.png", "--output-dir", "out")
    assert run(*words) == 1
    said = capsys.readouterr().out
    assert "2 of 3: photos/aa.png -> out/aa.png\nleft out: photos/aa.png: not an image" in said
    assert "failed  out/aa.png  photos/aa.png: not an image" in said
    assert said.endswith("3 pictures, 1 failed\n")
    painted = {name: Path(f"out/{name}.png").stat().st_mtime_ns for name in "ab"}
    Path("photos/aa.png").write_bytes(Path("photos/a.png").read_bytes())
    Path("out/b.png").write_bytes(b"something else")
    assert run(*words) == 0
    said = capsys.readouterr().out
    states = [line.split()[:2] for line in said.split("\n\n")[1].splitlines()[:3]]
    assert states == [["there", "out/a.png"], ["painted", "out/aa.png"], ["painted", "out/b.png"]]
    assert Path("out/a.png").stat().st_mtime_ns == painted["a"]
    assert run(*words, "-style_weight", "1") == 0
    assert capsys.readouterr().out.count("painted ") == 3


def test_another_model_under_the_same_name_paints_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path("m.caffemodel")
    model.write_bytes(Path(thin_networks.path("vgg19")).read_bytes())
    words = ("-model_file", "m.caffemodel", "-style_image", "styles/ink.png", "--output-dir", "out")
    words = (*words, "--batch", "photos/a.png", "-content_layers", "relu2_1", "-style_layers", "relu1_1")
    assert run(*words) == 0
    assert run(*words) == 0
    assert "there   out/a.png" in capsys.readouterr().out
    net = model_files.load(model)
    net.name = "another"
    caffemodel.write("changed.caffemodel", net)
    Path("changed.caffemodel").replace(model)
    assert run(*words) == 0
    assert "painted out/a.png" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["0", "-3", "0.5", "2.5"])
def test_a_row_that_saves_no_image_is_a_failed_one(
    folder: Path, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("jobs.csv").write_text(f"content,num_iterations\nphotos/a.png,{number}\nphotos/b.png,2\n")
    Path("out").mkdir()
    Path("out/a.png").write_bytes(b"of another run")
    assert run("--batch", "jobs.csv", "-style_image", "styles/ink.png", "--output-dir", "out") == 1
    said = capsys.readouterr().out
    assert f"failed  out/a.png  no image was saved: -num_iterations is {number}; give a whole number" in said
    assert "painted out/b.png" in said
    assert Path("out/a.png").read_bytes() == b"of another run"
    assert list(Journal("out")._pictures) == ["b.png"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            OSError(28, "No space left on device", "out/a.png"),
            "out/a.png: No space left on device; free some space",
        ),
        (MemoryError(), "not enough memory; choose"),
        (RuntimeError("can't allocate memory: you tried to allocate 99 bytes"), "not enough memory; choose"),
    ],
)
def test_a_row_that_the_machine_has_no_room_for_stops_nobody_else(
    folder: Path, error: Exception, says: str
) -> None:
    first = Options(content_image="photos/a.png", style_image="styles/ink.png", output_image="out/a.png")
    rows = [first, first.changed(content_image="photos/b.png", output_image="out/b.png")]

    def paint(options: Options, place: batch.Place) -> None:
        if options is rows[0]:
            raise error
        Path(options.output_image).write_bytes(b"painted")

    outcomes = batch.run(rows, "out", paint, print)
    assert [each.state for each in outcomes] == ["failed", "painted"]
    assert outcomes[0].detail.startswith(says)


def test_an_error_of_ours_is_not_a_failed_row(folder: Path) -> None:
    def paint(options: Options, place: batch.Place) -> None:
        raise KeyError("ours")

    one = Options(content_image="photos/a.png", style_image="styles/ink.png", output_image="out/a.png")
    with pytest.raises(KeyError):
        batch.run([one], "out", paint, print)
