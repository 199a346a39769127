"""--checkpoint and --resume: a run killed at any moment goes on to the same bits; anything else is refused with why."""

import contextlib
import copy
import errno
import multiprocessing
import os
import pickle
import pkgutil
import random
import shutil
import signal
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import thin_networks as thin
import torch
from PIL import Image

from legacy_style.engine import checkpoint
from legacy_style.engine import memory as plan
from legacy_style.errors import FormatError, OptionError
from legacy_style.formats import model_files
from legacy_style.programs.neural_style.options import Options
from legacy_style.programs.neural_style.story import stylize

GIVEN = {
    "content_image": "content.png",
    "style_image": "style.png",
    "model_file": thin.path("vgg19"),
    "image_size": 48,
    "gpu": "-1",
    "seed": 1,
    "num_iterations": 24,
    "save_iter": 5,
    "lbfgs_num_correction": 7,  # so few that pairs are forgotten
    "content_layers": "relu2_1",
    "style_layers": "relu1_1,relu2_1",
    "checkpoint": "state",
}

both_optimizers = pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])


def draw(path, height, width, seed):
    pixels = 128 + thin.smooth(height, width, seed, 40)[0].permute(1, 2, 0)
    Image.fromarray(pixels.clamp(0, 255).byte().numpy()).save(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    draw(folder / "content.png", 40, 48, 1)
    draw(folder / "style.png", 36, 50, 2)
    draw(folder / "init.png", 36, 50, 3)
    return folder


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """What an uninterrupted run writes, name -> bytes, and its result, by optimiser."""
    runs = {}
    for optimizer in ("lbfgs", "adam"):
        folder = tmp_path_factory.mktemp(optimizer)
        given = GIVEN | {"output_image": str(folder / "out.png"), "checkpoint": "", "optimizer": optimizer}
        given |= {name: str(images / given[name]) for name in ("content_image", "style_image")}
        result = stylize(Options(**given))
        runs[optimizer] = outputs(folder), result
        assert sorted(runs[optimizer][0]) == [
            "out.png",
            "out_10.png",
            "out_15.png",
            "out_20.png",
            "out_5.png",
        ]
    return runs


@pytest.fixture(autouse=True)
def folder(images, tmp_path, monkeypatch):
    """The images in a folder of their own, in which the test works."""
    for path in images.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(**more):
    return Options(**GIVEN | more)


def outputs(folder):
    return {path.name: path.read_bytes() for path in folder.glob("out*")}


def check_is_whole(result, folder, expected):
    """That a resumed run gave, together with what went before it, all that an uninterrupted one gives."""
    images, uninterrupted = expected
    assert np.array_equal(result.image, uninterrupted.image)
    assert result.losses == uninterrupted.losses
    assert outputs(folder) == images


# Killed. The processes are forked from one that has loaded everything, which takes seconds.

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch", "legacy_style.programs.neural_style.story"])

OBJECTIVE = "legacy_style.engine.objective.Objective.launch"
WRITE = "legacy_style.engine.checkpoint.torch.save"
REPLACE = "pathlib.Path.replace"
IMAGE = "legacy_style.torch7.image.save"

# What is called, for which time, and whether SIGKILL comes before, within or after that. Images are written after the
# evaluations 5, 10 and so on, checkpoints in them.
MOMENTS = {
    "before the first evaluation": (OBJECTIVE, 1, "before"),
    "after a few evaluations": (OBJECTIVE, 4, "after"),
    "before the first checkpoint": (WRITE, 1, "before"),
    "while the first checkpoint is written": (WRITE, 1, "within"),
    "while the second checkpoint is written": (WRITE, 2, "within"),
    "before a checkpoint takes its place": (REPLACE, 4, "before"),
    "when a checkpoint has taken its place": (REPLACE, 4, "after"),
    "before an image is written": (IMAGE, 2, "before"),
    "when an image was written": (IMAGE, 2, "after"),
    "in an evaluation that nothing is saved of": (OBJECTIVE, 13, "before"),
    "before the last image is written": (IMAGE, 5, "before"),
}


def _killing(target, call, when):
    """A stand-in for `target` in which SIGKILL comes at the given call."""
    original = pkgutil.resolve_name(target)
    calls = 0

    def stand_in(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if calls == call and when == "within":
            content, file = arguments
            original(content, "elsewhere")
            file.write(Path("elsewhere").read_bytes()[:5000])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return stand_in


def _run(folder, options, moment, begun):
    os.chdir(folder)
    torch.set_num_threads(1)
    with ExitStack() as stack:
        if moment:
            stack.enter_context(mock.patch(moment[0], _killing(*moment)))
        stylize(options, on_progress=lambda progress: begun.set())


def start(options, moment=None):
    begun = _context.Event()
    process = _context.Process(target=_run, args=(str(Path.cwd()), options, moment, begun))
    process.start()
    return process, begun


@both_optimizers
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_was_killed_goes_on_to_the_same_bits(moment, optimizer, whole, folder):
    process, _ = start(options(optimizer=optimizer), MOMENTS[moment])
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    resume = "state" if Path("state").exists() else ""
    assert bool(resume) == (moment not in list(MOMENTS)[:4])
    if resume:
        checkpoint.read("state")
    result = stylize(options(optimizer=optimizer, resume=resume))
    check_is_whole(result, folder, whole[optimizer])
    left = {path.name for path in folder.iterdir()} - set(outputs(folder))
    assert left - {"elsewhere"} == {"content.png", "style.png", "init.png", "state"}


@both_optimizers
def test_a_run_that_is_killed_again_and_again_at_random_moments(optimizer, whole, folder):
    seed = random.randrange(10**6)
    print(f"moments of seed {seed}")  # which pytest shows where the test fails
    rng = random.Random(seed)
    kills, calls = 0, []
    while True:
        resume = "state" if Path("state").exists() else ""
        if resume:
            calls.append(checkpoint.read("state")["calls"])
        process, begun = start(options(optimizer=optimizer, resume=resume))
        assert begun.wait(60)
        if kills < 5:
            time.sleep(rng.uniform(0, 0.2))
            process.kill()
        process.join(60)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert calls == sorted(calls)
    assert outputs(folder) == whole[optimizer][0]
    # What was being written when a kill came; of images there may be one for each.
    hidden = {path.suffix for path in folder.iterdir() if path.name.startswith(".")}
    assert hidden <= {".part", ".tmp"}


# Interrupted.


def interrupted_in_progress(iteration):
    def on_progress(progress):
        if progress.iteration == iteration:
            raise KeyboardInterrupt

    return {"on_progress": on_progress}


def interrupted_while_printing(iteration):
    def log(line):
        if line.startswith(f"Iteration {iteration} "):
            raise KeyboardInterrupt

    return {"log": log}


@both_optimizers
@pytest.mark.parametrize("how", [interrupted_in_progress, interrupted_while_printing])
@pytest.mark.parametrize("iteration", [2, 5, 13, 24])
def test_an_interrupt_leaves_a_checkpoint_to_go_on_from(how, iteration, optimizer, whole, folder):
    with pytest.raises(KeyboardInterrupt):
        stylize(options(optimizer=optimizer, print_iter=1), **how(iteration))
    # The evaluation that is looked at, of which the checkpoint has the image, is made again.
    assert checkpoint.read("state")["calls"] == iteration - 1
    for path in folder.glob("out*"):
        if path.name not in whole[optimizer][0]:
            path.unlink()  # the image of the interruption
    result = stylize(options(optimizer=optimizer, resume="state"))
    check_is_whole(result, folder, whole[optimizer])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("optimizer", "step"),
    [("lbfgs", "_two_loop_recursion"), ("lbfgs", "_remember_pair"), ("adam", "math.sqrt")],
)
def test_a_signal_in_the_middle_of_a_step_waits_until_there_is_a_state(
    optimizer, step, number, whole, folder
):
    """With -save_iter 0 there would be nothing to go on from otherwise."""
    target = f"legacy_style.torch7.optim.{step}"
    original = pkgutil.resolve_name(target)
    calls = 0

    def stand_in(*arguments):
        nonlocal calls
        calls += 1
        if calls == 9:
            os.kill(os.getpid(), number)
        return original(*arguments)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    previous = signal.signal(number, interrupt)
    try:
        with mock.patch(target, stand_in), pytest.raises(KeyboardInterrupt):
            stylize(options(optimizer=optimizer, save_iter=0))
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, previous)
    assert 3 < checkpoint.read("state")["calls"] < 12
    result = stylize(options(optimizer=optimizer, resume="state"))
    assert np.array_equal(result.image, whole[optimizer][1].image)


def test_a_signal_in_the_last_step_of_a_run_without_checkpoint_is_an_interrupt_as_ever(folder):
    def stand_in(*arguments):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)  # which shells ignore in the background
    with mock.patch("legacy_style.torch7.optim._remember_pair", stand_in), pytest.raises(KeyboardInterrupt):
        stylize(options(checkpoint=""))
    assert not Path("state").exists()
    assert signal.getsignal(signal.SIGINT) is before


# What may change, and what may not.


@pytest.fixture
def interrupted_run():
    """A folder with the checkpoint of an interrupted run."""

    def interrupt(**more):
        with pytest.raises(KeyboardInterrupt):
            stylize(options(**more), **interrupted_in_progress(6))

    return interrupt


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"content_weight": 7.0}, "-content_weight was 5.0 and is 7.0"),
        ({"optimizer": "adam"}, "-optimizer was 'lbfgs' and is 'adam'"),
        ({"seed": 2}, "-seed was 1 and is 2"),
        ({"style_layers": "relu2_1"}, "-style_layers was 'relu1_1,relu2_1' and is 'relu2_1'"),
        ({"tile": 24}, "-tile was 0 and is 24"),
        (
            {"tv_weight": 1.0, "pooling": "avg"},
            "-tv_weight was 0.001 and is 1.0; -pooling was 'max' and is 'avg'",
        ),
    ],
)
def test_a_changed_option_is_refused_with_both_values(change, told, interrupted_run):
    interrupted_run()
    before = Path("state").read_bytes()
    message = f"--resume state: this is not the run of the checkpoint: {told}. Give the options and files that it was"
    with pytest.raises(OptionError) as caught:
        stylize(options(resume="state", **change))
    assert str(caught.value).startswith(message)
    assert Path("state").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("content.png", "the content image changed"),
        ("style.png", "the style images changed"),
        ("init.png", "the init image changed"),
        ("model", "the model changed"),
    ],
)
def test_a_changed_file_is_refused(name, told, interrupted_run):
    shutil.copy(thin.path("vgg19"), "model")
    given = {"init": "image", "init_image": "init.png", "model_file": "model"}
    interrupted_run(**given)
    if name == "model":
        content = bytearray(Path("model").read_bytes())
        weights = model_files.load("model").layer("conv1_1").blobs[0].copy()
        content[content.index(weights.tobytes())] ^= 1
        Path("model").write_bytes(content)
    else:
        pixels = np.array(Image.open(name))
        pixels[3, 4, 1] ^= 8
        Image.fromarray(pixels).save(name)
    with pytest.raises(OptionError, match=told):
        stylize(options(resume="state", **given))


def test_what_is_written_and_when_may_change(interrupted_run, whole, folder):
    interrupted_run()
    result = stylize(
        options(
            resume="state",
            save_iter=0,
            print_iter=3,
            output_image="other.jpg",
            checkpoint="",
            max_pixels=10**6,
        )
    )
    assert np.array_equal(result.image, whole["lbfgs"][1].image)
    assert Path("other.jpg").exists()


@both_optimizers
def test_a_resumed_run_that_is_interrupted_at_once_leaves_all_as_it_was(
    optimizer, whole, folder, monkeypatch
):
    with pytest.raises(KeyboardInterrupt):
        stylize(options(optimizer=optimizer), **interrupted_in_progress(6))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "out_6.png" in before

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(OBJECTIVE, interrupt)
        with pytest.raises(KeyboardInterrupt):
            stylize(options(optimizer=optimizer, resume="state"), on_saved=pytest.fail)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    result = stylize(options(optimizer=optimizer, resume="state"))
    assert np.array_equal(result.image, whole[optimizer][1].image)


@both_optimizers
def test_a_run_in_automatic_tiles_goes_on_in_the_same_tiles(optimizer, monkeypatch):
    given = {"optimizer": optimizer, "image_size": 200, "num_iterations": 8}
    draw("content.png", 150, 200, 1)
    plans = []
    make = plan.make
    monkeypatch.setattr(
        plan, "make", lambda *given, **named: plans.append(make(*given, **named)) or plans[-1]
    )
    monkeypatch.setattr(plan, "resident_memory", lambda: 0)
    monkeypatch.setattr(plan, "_LIBRARIES", 0)
    monkeypatch.setattr(plan, "available_memory", lambda *_: None)
    stylize(options(**given, checkpoint=""))
    # A little less than it takes in one piece.
    monkeypatch.setattr(plan, "available_memory", lambda *_: int(0.95 * plans[0].peak / plan._USABLE))
    said = []
    with pytest.raises(KeyboardInterrupt):
        stylize(options(**given), notice=said.append, **interrupted_in_progress(4))
    (notice,) = said
    assert notice.startswith("The image is too large for one piece here: working in tiles of ")
    tile = checkpoint.read("state")["options"]["tile"]
    assert tile > 0
    monkeypatch.setattr(plan, "available_memory", lambda *_: 10**12)
    result = stylize(options(**given, resume="state"))
    expected = stylize(options(**given, tile=tile, checkpoint=""))
    assert np.array_equal(result.image, expected.image)
    assert result.losses == expected.losses


@pytest.mark.parametrize(
    ("tile", "share", "pieces"),
    [(0, 0.9, "one piece"), (0, 0.1, "one piece"), (64, 0.1, "tiles of 64 pixels")],
)
def test_a_run_is_not_resumed_where_it_does_not_fit_any_more(tile, share, pieces, monkeypatch):
    plans = []
    make = plan.make
    monkeypatch.setattr(
        plan, "make", lambda *given, **named: plans.append(make(*given, **named)) or plans[-1]
    )
    draw("content.png", 150, 200, 1)
    with pytest.raises(KeyboardInterrupt):
        stylize(options(image_size=200, tile=tile), **interrupted_in_progress(3))
    before = Path("state").read_bytes()
    monkeypatch.setattr(plan, "resident_memory", lambda: 0)
    monkeypatch.setattr(plan, "_LIBRARIES", 0)
    needed = sum(list(plans[0].memory.values())[1:])
    monkeypatch.setattr(plan, "available_memory", lambda *_: int(share * needed))
    message = f"--resume state: that run was in {pieces}, for which there is not enough memory"
    with pytest.raises(OptionError, match=message):
        stylize(options(image_size=200, resume="state"))
    with pytest.raises(OptionError, match="-image_size was 200 and is 190;"):
        stylize(options(image_size=190, resume="state"))
    assert Path("state").read_bytes() == before


@both_optimizers
def test_a_run_may_be_made_longer(optimizer, folder):
    """From the end of a run of 12: to the same bits as one that was to make 24 from the beginning."""
    stylize(options(optimizer=optimizer, num_iterations=12))
    longer = stylize(options(optimizer=optimizer, resume="state"))
    straight = stylize(options(optimizer=optimizer, checkpoint="", output_image="straight.png"))
    assert longer.losses == straight.losses
    assert np.array_equal(longer.image, straight.image)
    with pytest.raises(OptionError, match=r"that run has made 23 iterations before.* ask for more of them"):
        stylize(options(optimizer=optimizer, resume="state", num_iterations=20))


def test_files_may_have_other_names_for_the_same_content(interrupted_run, whole, folder):
    interrupted_run()
    Path("there").mkdir()
    shutil.copy("style.png", "there/copy.png")
    given = {"content_image": f"../{folder.name}/content.png", "style_image": "there/copy.png"}
    result = stylize(options(resume="state", **given))
    assert np.array_equal(result.image, whole["lbfgs"][1].image)


def test_an_option_that_the_checkpoint_does_not_know_had_its_default(interrupted_run, whole):
    interrupted_run()
    content = torch.load("state", weights_only=True)
    del content["options"]["matconvnet_orientation"]
    torch.save(content, "state")
    with pytest.raises(OptionError, match="-matconvnet_orientation was 'hw' and is 'wh'"):
        stylize(options(resume="state", matconvnet_orientation="wh"))
    assert np.array_equal(stylize(options(resume="state")).image, whole["lbfgs"][1].image)


@pytest.mark.parametrize("moment", ["the last iteration", "an interrupt"])
def test_the_image_is_saved_where_the_checkpoint_cannot_be(moment, folder, monkeypatch):
    def full(content, file):
        raise RuntimeError("[enforce fail at inline_container.cc:672]") from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("legacy_style.engine.checkpoint.torch.save", full)
    more = {} if moment == "the last iteration" else interrupted_in_progress(6)
    with pytest.raises(OptionError, match=r"^state: the checkpoint could not be written"):
        stylize(options(save_iter=0), **more)
    assert Path("out.png" if moment == "the last iteration" else "out_6.png").exists()


# Files that are no checkpoints.


class Code:
    """Writes a file where it is unpickled by who does not care."""

    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def foreign(kind):
    """Write such a file as `state`, which is a checkpoint."""
    content = Path("state").read_bytes()
    if kind == "empty":
        Path("state").write_bytes(b"")
    elif kind == "text":
        Path("state").write_text("once upon a time")
    elif kind == "picture":
        shutil.copy("content.png", "state")
    elif kind == "code":
        Path("state").write_bytes(pickle.dumps({"format": checkpoint.FORMAT, "x": Code()}))
    elif kind == "code in a zip":
        torch.save({"format": checkpoint.FORMAT, "x": Code()}, "state")
    elif kind == "weights":
        torch.save({"conv1_1.weight": torch.zeros(3)}, "state")
    elif kind == "a tensor":
        torch.save(torch.zeros(3), "state")
    elif kind == "another version":
        torch.save({"format": "legacy-style checkpoint 0"}, "state")
    elif kind == "without content":
        torch.save({"format": checkpoint.FORMAT}, "state")
    else:
        Path("state").write_bytes(content[: int(kind)])


KINDS = [
    "empty",
    "text",
    "picture",
    "code",
    "code in a zip",
    "weights",
    "a tensor",
    "another version",
    "without content",
]


@pytest.mark.parametrize("kind", [*KINDS, "1", "100", "2000", "-1", "-100", "-30000"])
def test_a_file_that_is_no_checkpoint_or_only_a_part_of_one(kind, interrupted_run):
    interrupted_run()
    foreign(kind)
    with pytest.raises(FormatError, match=r"^state: .*not a checkpoint"):
        stylize(options(resume="state"))
    assert not Path("executed").exists()


def test_flipped_bits_do_not_go_unnoticed(interrupted_run):
    interrupted_run()
    good = Path("state").read_bytes()
    rng = random.Random(1)
    for _ in range(60):
        content = bytearray(good)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        Path("state").write_bytes(content)
        try:
            found = checkpoint.read("state")
        except FormatError:
            continue
        # Some bits carry no meaning: padding, dates.
        Path("state").write_bytes(good)
        assert repr(found) == repr(checkpoint.read("state"))


def test_a_missing_file_and_a_folder():
    with pytest.raises(
        OptionError, match="--resume nothing: No such file or directory; give the file that --checkpoint"
    ):
        stylize(options(resume="nothing"))
    Path("folder").mkdir()
    with pytest.raises(OptionError, match="--resume folder: Is a directory"):
        stylize(options(resume="folder"))


# Places that cannot be written.


@pytest.mark.parametrize("path", ["nowhere/state", "content.png/state", "folder", "sealed/state"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_runs(path, monkeypatch):
    Path("folder").mkdir()
    Path("sealed").mkdir()
    access = os.access  # root may write anywhere
    monkeypatch.setattr(os, "access", lambda name, mode: Path(name).name != "sealed" and access(name, mode))
    lines = []
    with pytest.raises(OptionError, match=f"^--checkpoint {path}: "):
        stylize(options(checkpoint=path), log=lines.append)
    assert not lines


def test_a_disk_that_is_full_leaves_the_checkpoint_before(interrupted_run, folder):
    interrupted_run()
    before = Path("state").read_bytes()

    def full(content, file):
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        mock.patch("legacy_style.engine.checkpoint.torch.save", full),
        pytest.raises(
            OptionError,
            match=r"^state: the checkpoint could not be written: No space left on device; free some",
        ),
    ):
        stylize(options(resume="state"))
    assert Path("state").read_bytes() == before
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_checkpoint_that_is_a_link_stays_one(whole, folder):
    Path("elsewhere").mkdir()
    Path("state").symlink_to("elsewhere/real")
    stylize(options(num_iterations=2))
    assert Path("state").is_symlink()
    assert checkpoint.read("elsewhere/real")["calls"] == 1


def test_a_part_of_an_image_is_not_the_image(interrupted_run):
    """What one of several processes wrote, each for its part, is none for one process alone."""
    interrupted_run()
    content = torch.load("state", weights_only=True)
    x, state = content["x"][:, :, :20].clone(), content["optimizer"]
    for name in ("direction", "g_old", "steps", "changes"):
        state[name] = state[name][..., : x.numel()].clone()
    torch.save(content | {"x": x, "optimizer": state}, "state")
    with pytest.raises(
        OptionError, match=r"--resume state: its image has another shape .* as many processes as wrote it"
    ):
        stylize(options(resume="state"))


def test_damage_inside_is_told_as_one(interrupted_run):
    """Every value in turn is replaced by one of another kind or size; the sums of the file fit."""
    interrupted_run()
    content = torch.load("state", weights_only=True)
    for path, value in list(_values(content)):
        for other in (None, "text", -1, [], {}, torch.zeros(2), torch.zeros(1, 3, 2, 2, dtype=torch.int8)):
            if type(other) is type(value) and not isinstance(value, torch.Tensor):
                continue
            damaged = copy.deepcopy(content)
            inner = damaged
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = other
            torch.save(damaged, "state")
            with contextlib.suppress(FormatError):
                checkpoint.read("state")
                kinds = {"options", "inputs"} & set(path) or path[-1] in ("products",)
                assert kinds, (path, other)


def _values(content, path=()):
    for key, value in content.items():
        yield (*path, key), value
        if isinstance(value, dict):
            yield from _values(value, (*path, key))


def test_a_compressed_checkpoint_is_no_checkpoint(interrupted_run):
    interrupted_run()
    with zipfile.ZipFile("state") as old, zipfile.ZipFile("new", "w", zipfile.ZIP_DEFLATED) as new:
        for each in old.infolist():
            new.writestr(each.filename, old.read(each))
    with pytest.raises(FormatError, match="in it is compressed"):
        checkpoint.read("new")
