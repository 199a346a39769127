"""legacy_style.cli.athalye: every recorded command line, and sentences where the original gave tracebacks."""

import errno
import json
import re
import signal
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
from athalye_recordings import ATHALYE, ATHALYE_SHIPPED, FLAVOURS, NETWORK, cases
from PIL import Image
from recorded_runs import one_thread
from recordings import needs_shared

from legacy_style.cli import athalye as cli
from legacy_style.cli import athalye_run, paper
from legacy_style.cli.athalye_options import NETWORK as DEFAULT_NETWORK
from legacy_style.cli.athalye_options import parse, parser
from legacy_style.engine import colors, memory
from legacy_style.formats import model_files
from legacy_style.programs.athalye import story as athalye

CHECKOUT = Path(__file__).parents[2]
KINDS = ("content", "style", "tv", "total")

# What ours does otherwise, on purpose.
OURS = {
    "anishathalye/err_unknown": "--seed is an option here",
    "seed/err_default_network": "the bundled network stands in",
}
# Ours finds these before the work, or at the first loss that is not finite, and prints fewer losses.
EARLIER = {"seed/out_badext", "seed/out_noext", "seed/nan_lr"}

# Losses are printed with six digits, and rounding in another order adds to that.
AT_START = 2e-5

# Where ReLUs and maxima switch at other steps, the recordings know of more, and so much more is allowed.
# With SSE4.1 alone, one value of one picture is 3 levels off: twice that is allowed to a few.
LATER, LATER_LEVELS, LATER_SHARE = 1e-4, 6, 0.05

RECORDED = [case for case in cases("cli") if case["id"] not in OURS]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with the recordings' inputs where the recorded command lines name them."""
    work = tmp_path / "runs" / "version" / "case"
    work.mkdir(parents=True)
    if ATHALYE.is_dir():
        for name in ("inputs", "models"):
            (tmp_path / name).symlink_to(ATHALYE / name)
    monkeypatch.chdir(work)
    return work


def run(argv, version, capsys):
    """Exit status, the stream that progress is printed on, and the other one."""
    flavour = FLAVOURS[version]
    status = cli.main([*argv, "--flavour", flavour] if argv else ["--flavour", flavour])
    out, err = capsys.readouterr()
    return (status, out, err) if flavour == "current" else (status, err, out)


def printed_losses(text):
    columns = [
        [float(n) for n in re.findall(rf"^ *{kind} loss: (\S+)$", text, re.MULTILINE)] for kind in KINDS
    ]
    return [dict(zip(KINDS, block, strict=True)) for block in zip(*columns, strict=True)]


@needs_shared
@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["id"])
def test_recorded_command_line(case, folder, capsys, record_property):
    for made in case.get("pre", []):
        kind, name = made.split(":")
        (folder / name).mkdir() if kind == "mkdir" else (folder / name).write_bytes(b"placeholder")
    status, text, other = run(case["argv"], case["version"], capsys)
    assert status == case["exit_code"], other or text
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert sorted(files) == sorted(each["file"] for each in case["files"])

    agreement = case.get("agreement_with_independent_torch") or {}
    blocks, expected = printed_losses(text), case.get("printed_losses") or []
    if case["id"] not in EARLIER:
        assert len(blocks) == len(expected)
    if case["deterministic"] and case["exit_code"] == 0:
        later = max([LATER, *(2 * each["worst"] for each in agreement.values())])
        compare_losses(blocks, expected, later)
    recorded = ATHALYE / case["cwd"]
    for name, path in files.items():
        if path.suffix.lower() in (".png", ".jpg", ".bmp") and "touch:" + name not in case.get("pre", []):
            compare_images(path, recorded / name, case, agreement)
        elif path.name == "progress.txt":
            np.testing.assert_allclose(np.loadtxt(path), np.loadtxt(recorded / name), rtol=LATER)
            assert path.read_text().startswith("# itr content style tv total\n")
            assert len(path.read_text()) == len((recorded / name).read_text())
    record_property("held", "recorded command lines of anishathalye/neural-style")


@needs_shared
def test_every_recorded_command_line_is_there(record_property):
    assert len(RECORDED) == 184
    for name, why in OURS.items():
        record_property("said", f"{name} deviates on purpose: {why}")


def compare_losses(blocks, expected, later):
    for number, (ours, theirs) in enumerate(zip(blocks, expected, strict=True)):
        theirs = {kind: float(value) for kind, value in theirs.items()}
        scale = max(abs(value) for value in theirs.values())
        for kind in KINDS:
            error = abs(ours[kind] - theirs[kind]) / scale
            assert error <= (AT_START if number == 0 and len(expected) > 1 else later), (
                f"block {number}, {kind}"
            )


def compare_images(path, recorded, case, agreement):
    with Image.open(path) as picture, Image.open(recorded) as theirs:
        assert (picture.size, picture.mode, picture.format) == (theirs.size, theirs.mode, theirs.format)
        difference = np.abs(np.array(picture).astype(int) - np.array(theirs).astype(int))
    if not case["deterministic"]:
        return
    known = [each["images"].get(path.name, {"max": 0, "frac_diff": 0}) for each in agreement.values()]
    levels = LATER_LEVELS + max((2 * each["max"] for each in known), default=0)
    share = LATER_SHARE + max((each["frac_diff"] for each in known), default=0)
    assert difference.max() <= levels, path.name
    assert (difference > 0).mean() <= share, path.name


@needs_shared
def test_seed_is_ours(folder, capsys):
    (case,) = (case for case in cases("cli") if case["id"] == "anishathalye/err_unknown")
    assert run(case["argv"], case["version"], capsys)[0] == 0


@needs_shared
@pytest.mark.parametrize("name", ["print_3", "iterations_1"])
@pytest.mark.parametrize("version", ["anishathalye", "seed"])
def test_lines_are_the_recorded_ones(name, version, folder, capsys):
    """All lines but for their numbers."""
    (case,) = (case for case in cases("cli") if case["id"] == f"{version}/{name}")
    status, text, other = run(case["argv"], version, capsys)
    recorded = (
        ATHALYE / case["cwd"] / ("stdout.txt" if version == "anishathalye" else "stderr.txt")
    ).read_text()
    began = recorded.index("Optimization started...")

    def shape(lines):
        return re.sub(r"(loss:|\(|,) [^,)\n]*|\((\d+ (sec|min|hr) ?)+", r"\1", lines)

    assert status == 0 and other == ""
    assert shape(text) == shape(recorded[began:])


@pytest.mark.parametrize(
    "case", json.loads((ATHALYE_SHIPPED / "commands.json").read_text()), ids=lambda c: c["id"]
)
def test_usage_errors_and_help(case, folder, capsys):
    status, text, other = run(case["argv"], case["version"], capsys)
    assert status == case["exit_code"]
    said = text + other
    assert "usage: " in said
    assert list(folder.iterdir()) == []
    if "--help" in case["argv"]:
        assert "transposed" in said and "--seed" in said
        assert ("--overwrite" in said) == (case["version"] == "anishathalye")
        assert ("default 1000" in said, "default 300" in said) == (
            (True, False) if case["version"] == "anishathalye" else (False, True)
        )


@needs_shared
@pytest.mark.parametrize("version", ["anishathalye", "seed"])
def test_options_are_the_original_ones(version):
    recorded = set(
        re.findall(r"--[a-z0-9-]+", (ATHALYE / "runs" / version / "help" / "stdout.txt").read_text())
    )
    ours = {name for action in parser(FLAVOURS[version])._actions for name in action.option_strings}
    assert ours - {"-h"} == (recorded - {"--help"}) | {
        "--help",
        "--flavour",
        "--seed",
        "--matconvnet-orientation",
        "--exif-rotate",
        "--tile",
        "--print-plan",
        "--checkpoint",
        "--resume",
        "--color-transfer",
        "--watch",
        "--plot",
    }


@pytest.mark.parametrize(
    ("word", "value", "meant"),
    [
        ("--t", "7", "tv_weight"),
        ("--w", "7", "width"),
        ("--wa", "7", "watch"),
        ("--print", "7", "print_iterations"),
        ("--pri", "7", "print_iterations"),
        ("--checkpoint-i", "7", "checkpoint_iterations"),
        ("--it", "7", "iterations"),
        ("--n", "7", "network"),
        ("--out", "7", "output"),
        ("--ov", None, "overwrite"),
        ("--exif", None, "exif_rotate"),
        ("--til", "7", "tile"),
        ("--res", "7", "resume"),
    ],
)
def test_a_shortened_option_means_what_it_meant(word, value, meant):
    """argparse of the original, without ours: --t was --tv-weight alone."""
    base = ["--content", "a", "--styles", "b", "--output", "c"]
    for given in ([word, value], [f"{word}={value}"]) if value else ([word],):
        options = vars(parse([*base, *given])[1])
        unchanged = vars(parse(base)[1])
        assert {name for name in options if options[name] != unchanged[name]} == {meant}


@pytest.mark.parametrize("word", ["--c", "--check", "--s", "--style", "--p", "--l=3", "--pro"])
def test_a_word_that_was_short_for_several_options_still_is_refused(word, capsys):
    with pytest.raises(SystemExit):
        parse(["--content", "a", "--styles", "b", "--output", "c", word, "7"])
    assert "ambiguous" in capsys.readouterr().err or word == "--l=3"


# ---- with images of our own


@pytest.fixture
def words(folder):
    """A short command line with images drawn here."""
    random = np.random.RandomState(0)
    for name in ("content.png", "style.png"):
        Image.fromarray(random.randint(0, 256, (16, 20, 3), np.uint8)).save(folder / name)
    line = (
        f"--content content.png --styles style.png --output out.png --network {NETWORK} --initial content.png"
    )
    return [*line.split(), "--iterations", "3", "--learning-rate", "1.3"]


def size(name):
    with Image.open(name) as picture:
        return picture.size


def replaced(words, **values):
    words = list(words)
    for name, value in values.items():
        words[words.index(f"--{name}") + 1] = value
    return words


def without(words, name):
    at = words.index(name)
    return [*words[:at], *words[at + 2 :]]


def test_output_is_best_of_the_run_and_files_are_not_left_behind(words, folder, capsys):
    assert cli.main(words) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["content.png", "out.png", "style.png"]
    assert size("out.png") == (20, 16)


def test_existing_output_is_refused_then_overwritten(words, capsys):
    Path("out.png").write_bytes(b"mine")
    assert cli.main(words) == 1
    assert Path("out.png").read_bytes() == b"mine"
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 0
    assert size("out.png") == (20, 16)


def test_color_transfer_matches_styles_before_or_gives_colours_back_after(words, folder, capsys):
    content, style = (
        np.asarray(Image.open(name)).transpose(2, 0, 1) / 255 for name in ("content.png", "style.png")
    )
    matched = colors.match(style, content)
    assert cli.main([*words, "--color-transfer", "match", "--print-iterations", "1"]) == 0
    printed = capsys.readouterr().out
    # The same as with a style image that was matched before, but for its rounding to bytes.
    Image.fromarray(np.uint8(np.rint(matched.transpose(1, 2, 0) * 255))).save("style.png")
    assert cli.main([*words, "--overwrite", "--print-iterations", "1"]) == 0
    ours, theirs = (printed_losses(text)[0] for text in (printed, capsys.readouterr().out))
    assert ours["style"] == pytest.approx(theirs["style"], rel=0.01)
    assert cli.main([*words, "--overwrite", "--color-transfer", "lab"]) == 0
    result = np.asarray(Image.open("out.png")).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(
        np.median(np.abs(colors.to_lab(result) - colors.to_lab(content))[1:]), 0, atol=3
    )


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--output", "none/out.png"], 1, "folder"),
        (["--output", "out.xyz"], 1, "image format"),
        (["--network", "none.mat"], 2, "does not exist"),
        (["--network", "style.png"], 1, "PNG image"),
        (["--content", "none.png"], 1, "none.png"),
        (["--iterations", "0"], 1, "--iterations 0"),
        (["--style-blend-weights", "0"], 1, "sum 0"),
        (["--beta1", "1"], 1, "--beta1"),
        (["--beta1", "1e300"], 1, "the loss is not finite"),
        (["--beta2", "1e300"], 1, "Adam cannot make a step"),
        (["--style-weight", "1e300"], 1, "--style-weight 1e+300 is far too large"),
        (["--content-weight-blend", "1e60"], 1, "--content-weight-blend 1e+60 is far too large"),
        (["--checkpoint-output", "a_{}.png"], 2, "belong together"),
        (["--checkpoint-output", "a.png", "--checkpoint-iterations", "1"], 2, "a place for the number"),
        (["--checkpoint-output", "a%.png", "--checkpoint-iterations", "1"], 1, "cannot be filled in"),
        (["--checkpoint-output", "a{x}.png", "--checkpoint-iterations", "1"], 1, "cannot be filled in"),
        (["--checkpoint-output", "a{0.x}.png", "--checkpoint-iterations", "1"], 1, "cannot be filled in"),
        (["--checkpoint-output", "none/{}.png", "--checkpoint-iterations", "1"], 1, "folder"),
        (["--flavour", "2018"], 2, "2018"),
        (["--preserve-colors", "--color-transfer", "lab"], 2, "both colour the result; give one"),
        (["--flavour", "2017", "--overwrite"], 2, "--overwrite"),
        (["--flavour", "2017", "--checkpoint-output", "a_%d.png"], 2, "%s"),
        (["--flavour", "2017", "--output", "out.xyz"], 1, "image format"),
    ],
)
def test_errors_are_sentences_with_the_original_status(more, status, message, words, capsys):
    assert cli.main([*words, *more]) == status
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a_{}.png", ["a_0.png", "a_2.png", "a_4.png"]),
        ("a_{:03}.png", ["a_000.png", "a_002.png", "a_004.png"]),
        ("a_%02d.png", ["a_00.png", "a_02.png", "a_04.png"]),
        ("%s_{}.png", ["%s_0.png", "%s_2.png", "%s_4.png"]),
    ],
)
def test_checkpoints_are_numbered(pattern, names, words, folder, capsys):
    line = replaced(words, iterations="4")
    assert cli.main([*line, "--checkpoint-output", pattern, "--checkpoint-iterations", "2"]) == 0
    others = {"content.png", "style.png", "out.png"}
    assert sorted(path.name for path in folder.iterdir() if path.name not in others) == names
    assert Path(names[-1]).read_bytes() == Path("out.png").read_bytes()


@pytest.mark.parametrize(("flavour", "left"), [("current", ["out.png"]), ("2017", [])])
def test_gray_with_alpha_is_refused_by_name(flavour, left, words, folder, capsys):
    """As in the originals, of which the first has written its black image by then."""
    Image.new("LA", (20, 16)).save("la.png")
    assert cli.main([*replaced(words, styles="la.png"), "--flavour", flavour]) == 1
    assert "la.png has 2 channels" in capsys.readouterr().err
    assert [path.name for path in folder.glob("out*")] == left


def test_2017_writes_no_checkpoint_at_the_last_step(words, folder, capsys):
    more = ["--flavour", "2017", "--checkpoint-output", "a_%s.png", "--checkpoint-iterations", "2"]
    assert cli.main([*words, *more]) == 0
    assert sorted(path.name for path in folder.glob("a_*")) == ["a_0.png"]
    out, err = capsys.readouterr()
    assert out == "" and "Iteration    3/   3\n" in err


def test_a_seed_repeats_a_run(words, capsys):
    pictures = []
    for number, seed in enumerate(("4", "4", "5")):
        line = replaced(without(words, "--initial"), output=f"{number}.png")
        assert cli.main([*line, "--seed", seed, "--initial-noiseblend", "0.5"]) == 0
        pictures.append(Path(f"{number}.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


def test_progress_lies_beside_an_output_without_folder(words, capsys):
    """The original wrote /progress.txt then."""
    assert cli.main([*words, "--progress-write", "--print-iterations", "1"]) == 0
    rows = np.loadtxt("progress.txt")
    np.testing.assert_array_equal(rows[:, 0], [0, 1, 3])
    blocks = printed_losses(capsys.readouterr().out)
    np.testing.assert_allclose(rows[:, 1:], [list(block.values()) for block in blocks[1:]], rtol=1e-5)


def test_plot_without_matplotlib_saves_the_image_and_fails(words, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main([*words, "--progress-plot"]) == 1
    assert size("out.png") == (20, 16)
    assert capsys.readouterr().err.count("matplotlib") == 3


def test_bundled_network_stands_in_for_the_default_only(words, monkeypatch, capsys):
    monkeypatch.setattr(model_files, "bundled", lambda: NETWORK)
    assert cli.main(without(words, "--network")) == 0
    assert f"no {DEFAULT_NETWORK} here: using the bundled VGG-16" in capsys.readouterr().err
    Path(DEFAULT_NETWORK).symlink_to(NETWORK)
    assert cli.main([*without(words, "--network"), "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


def test_no_finite_loss_ends_the_run_but_a_checkpoint_saves_it(words, monkeypatch, capsys):
    assert cli.main(replaced(words, **{"learning-rate": "1e38"})) == 1
    assert "not finite after 1 iterations" in capsys.readouterr().err

    def spoil(descent, x, grad):
        if descent.state.t:
            x.fill_(float("nan"))
        descent.state.t += 1

    monkeypatch.setattr(athalye.Descent, "step", spoil)
    more = ["--overwrite", "--checkpoint-output", "a_{}.png", "--checkpoint-iterations", "5"]
    assert cli.main([*words, *more]) == 0
    assert "not finite any more at iteration 2" in capsys.readouterr().err
    assert Path("a_0.png").read_bytes() == Path("out.png").read_bytes()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_saves_what_there_is(signum, words, folder):
    line = replaced(words, iterations="100000")
    with forked.start(str(CHECKOUT / "neural_style.py"), *line) as process:
        try:
            for text in process.stdout:
                if text.startswith("Iteration    5/"):
                    break
            time.sleep(0.05)
            process.send_signal(signum)
            err = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 128 + signum
    assert "out.png" in err and "Traceback" not in err
    assert size("out.png") == (20, 16)


# ---- tiles, the plan, checkpoints


def test_tiles_are_one_piece(words, monkeypatch, capsys):
    """The pooling of the network rounds up, and its total variation looks at neighbours: both over tiles' borders."""
    random = np.random.RandomState(1)
    Image.fromarray(random.randint(0, 256, (90, 101, 3), np.uint8)).save("content.png")
    pictures = []
    for more in ([], ["--tile", "48"]):
        assert cli.main([*words, "--overwrite", "--print-iterations", "1", *more]) == 0
        pictures.append((np.array(Image.open("out.png"), int), printed_losses(capsys.readouterr().out)))
    (whole, losses), (tiled, tiled_losses) = pictures
    for one, other in zip(losses, tiled_losses, strict=True):
        assert other == {kind: pytest.approx(value, rel=1e-5) for kind, value in one.items()}
    assert (np.abs(whole - tiled) <= 1).mean() > 0.999


def test_the_plan_is_printed_and_nothing_is_written(words, folder, capsys):
    before = sorted(folder.iterdir())
    assert cli.main([*words, "--print-plan"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("image    20x16\n") and "the image and Adam's moments" in out and err == ""
    assert cli.main([*words, "--print-plan", "--tile", "48"]) == 0
    assert "in 1 tiles of 48 pixels" in capsys.readouterr().out
    assert sorted(folder.iterdir()) == before


def test_what_does_not_fit_is_worked_in_tiles_and_said(words, monkeypatch, capsys):
    random = np.random.RandomState(1)
    Image.fromarray(random.randint(0, 256, (400, 600, 3), np.uint8)).save("content.png")
    plans, make = [], memory.make
    monkeypatch.setattr(memory, "resident_memory", lambda: 100_000_000)
    monkeypatch.setattr(memory, "make", lambda *words, **more: plans.append(make(*words, **more)) or plans[0])
    assert cli.main([*words, "--print-plan"]) == 0
    monkeypatch.setattr(memory, "make", make)
    # In one piece, feature maps and holes take 60 MB, of which 10 are not there.
    free = int(plans[0].peak / memory._USABLE) - 10_000_000
    monkeypatch.setattr(memory, "available_memory", lambda processes=1: free)
    capsys.readouterr()
    assert cli.main(replaced(words, iterations="1")) == 0
    assert "working in tiles of" in capsys.readouterr().err


def long(words):
    """A run that goes downhill by leaps, so that what counts as the best matters."""
    more = ["--learning-rate", "60", "--print-iterations", "2", "--progress-write"]
    checkpoints = ["--checkpoint-iterations", "3", "--checkpoint-output", "c_{}.png"]
    return [*replaced(words, iterations="9"), *more, *checkpoints]


def made(folder):
    """The bytes of all that a run leaves, but for its state."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("state", "old")}


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_resumed_is_uninterrupted(signum, words, folder, capsys):
    with one_thread():
        assert cli.main(long(words)) == 0
    expected = made(folder)
    for name in ("out.png", "progress.txt"):
        (folder / name).unlink()
    line = [*long(words), "--checkpoint", "state", "--overwrite"]
    with forked.start(str(CHECKOUT / "neural_style.py"), *line) as process:
        try:
            for text in process.stdout:
                if text.startswith("Iteration    6/"):
                    break
            process.send_signal(signum)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == (-9 if signum == signal.SIGKILL else 130)
    with one_thread():
        assert cli.main([*line, "--resume", "state"]) == 0
    assert made(folder) == expected


def test_a_finished_run_goes_on_for_longer_as_if_it_had_never_stopped(words, folder, capsys):
    assert cli.main([*long(words), "--iterations", "6", "--checkpoint", "state"]) == 0
    assert cli.main([*long(words), "--resume", "state", "--overwrite"]) == 0
    longer = (folder / "out.png").read_bytes()
    assert cli.main([*long(words), "--overwrite"]) == 0
    assert (folder / "out.png").read_bytes() == longer


def test_another_run_s_checkpoint_is_refused(words, capsys):
    assert cli.main([*words, "--checkpoint", "state"]) == 0
    more = ["--overwrite", "--resume", "state"]
    assert cli.main([*words, *more, "--tv-weight", "1", "--pooling", "avg"]) == 1
    err = capsys.readouterr().err
    assert "--tv-weight was 100.0 and is 1.0; --pooling was 'max' and is 'avg'" in err
    Image.fromarray(np.zeros((16, 20, 3), np.uint8)).save("style.png")
    assert cli.main([*words, *more]) == 1
    assert "the style images changed" in capsys.readouterr().err
    Path("state").write_bytes(b"none")
    assert cli.main([*words, *more]) == 1
    assert "state: not a checkpoint" in capsys.readouterr().err


def test_times_are_printed_in_words():
    assert [athalye_run.duration(n) for n in (0.9, 59, 60, 3599, 3600, 90061)] == [
        "0 sec", "59 sec", "1 min 0 sec", "59 min 59 sec", "1 hr 0 min", "25 hr 1 min",
    ]  # fmt: skip


@pytest.mark.parametrize("module, smaller", [(cli, "--width"), (paper, "--image-size")])
def test_advice_names_the_options_of_the_program_that_gives_it(module, smaller, monkeypatch, capsys):
    for error, advice in (
        (MemoryError(), f"not enough memory; choose a smaller {smaller}\n"),
        (
            OSError(errno.ENOSPC, "No space"),
            "No space; free some space, or name another folder with --output\n",
        ),
    ):
        monkeypatch.setattr(module, "_program", raising(error))
        assert module.main([]) == 1
        assert capsys.readouterr().err == f"{module.NAME}: {advice}"


def raising(error):
    def program(*_):
        raise error

    return program
