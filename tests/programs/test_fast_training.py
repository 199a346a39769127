"""`th train.lua` and `th slow_neural_style.lua`: recorded runs, photographs, and trainings that go on."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import thin_networks
import torch
import training_runs
from PIL import Image
from recordings import needs_shared
from training_runs import NOT_OURS, RECORDED, recorded

from legacy_style.cli.slow_neural_style import main as slow
from legacy_style.cli.train import main as train
from legacy_style.engine import loadcaffe
from legacy_style.formats import t7
from legacy_style.programs.fast_neural_style import loading, saving, train_options
from legacy_style.programs.fast_neural_style.loss_network import LossNetwork

CHECKOUT = Path(__file__).parents[2]

RUNS = [name for name in recorded(RECORDED) if name not in NOT_OURS] if RECORDED.is_dir() else []


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_as_recorded_or_deviates_on_purpose(name, tmp_path):
    run = recorded(RECORDED)[name]
    assert not list(training_runs.differences(run, training_runs.perform(run, tmp_path)))


@needs_shared
def test_all_64_recorded_runs_are_replayed_or_accounted_for():
    assert len(RUNS) == 62
    assert set(recorded(RECORDED)) == {*RUNS, *NOT_OURS}
    for table in (
        training_runs.STEADY,
        training_runs.FEWER,
        training_runs.DEVIATIONS,
        training_runs.REFUSED_EARLIER,
    ):
        assert set(table) <= set(RUNS)


# The rest needs no recording: a tiny network, a loss network of 64 random filters, six photographs of waves.


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    Path("photos").mkdir()
    y, x = np.mgrid[0:48, 0:64]
    for number in range(6):
        waves = [np.sin(x / (3 + number) + phase) * np.cos(y / (5 + phase)) for phase in range(3)]
        Image.fromarray(np.uint8(127 + 120 * np.stack(waves, 2))).save(f"photos/{number}.png")
    torch.manual_seed(7)
    loss_network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(True),
        torch.nn.Conv2d(8, 8, 3, padding=1),
        torch.nn.ReLU(True),
    )
    t7.write("loss.t7", saving.to_t7(loss_network))
    return tmp_path


def words(*more: str) -> list[str]:
    """A command line for a training that takes a second."""
    return [
        *("-arch", "c3s1-4,d4,R4,U2,c3s1-3", "-padding_type", "reflect", "-loss_network", "loss.t7"),
        *(
            "-content_layers",
            "4",
            "-style_layers",
            "2,4",
            "-style_image",
            "photos/0.png",
            "-style_image_size",
            "32",
        ),
        *(
            "--image-dir",
            "photos",
            "--crop",
            "24",
            "-batch_size",
            "2",
            "-num_val_batches",
            "1",
            "--seed",
            "1",
        ),
        *("-gpu", "-1", "-checkpoint_every", "0", "-num_iterations", "6"),
        *more,
    ]


def parameters(path: str) -> np.ndarray:
    return np.concatenate([each.ravel() for each in _weights(t7.read(path)["model"])])


def _weights(module):
    for name in ("weight", "bias"):
        if module.get(name) is not None:
            yield module.get(name)
    for child in module.get("modules", []):
        yield from _weights(child)


def test_the_same_seed_gives_the_same_network_and_another_seed_another(folder):
    for name, seed in (("one", "1"), ("same", "1"), ("other", "2")):
        assert train(words("--seed", seed, "-checkpoint_every", "6", "-checkpoint_name", name)) == 0
    one, same, other = map(parameters, ("one.t7", "same.t7", "other.t7"))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_resumed_training_is_the_uninterrupted_one_to_the_last_bit(folder, capsys):
    more = ("-lr_decay_every", "4", "-checkpoint_every", "3", "-use_instance_norm", "0")
    assert train(words("-num_iterations", "9", "-checkpoint_name", "whole", *more)) == 0
    lines = [line for line in capsys.readouterr().out.split("\n") if line.startswith("Epoch")]
    assert train(words("-num_iterations", "5", "-checkpoint_name", "half", "--state", "s", *more)) == 0
    resumed = ("-num_iterations", "9", "-checkpoint_name", "half", "--state", "s", "--resume", "s", *more)
    capsys.readouterr()
    assert train(words(*resumed)) == 0
    captured = capsys.readouterr()
    assert [line for line in captured.out.split("\n") if line.startswith("Epoch")] == lines[5:]
    assert "going on from iteration 5" in captured.err
    np.testing.assert_array_equal(parameters("half.t7"), parameters("whole.t7"))
    whole, half = (json.loads(Path(f"{name}.json").read_text()) for name in ("whole", "half"))
    for key in ("train_loss_history", "val_loss_history", "val_loss_history_ts", "style_loss_history"):
        assert half[key] == whole[key]


def test_a_checkpoints_state_has_the_decay_of_its_iteration(folder, monkeypatch):
    """Whoever is killed after it must not go on with the old learning rate."""
    written = []
    monkeypatch.setattr(
        "legacy_style.programs.fast_neural_style.training_state.write", lambda *rest: written.append(rest)
    )
    assert (
        train(words("--state", "s", "-checkpoint_every", "4", "-lr_decay_every", "4", "-num_iterations", "4"))
        == 0
    )
    assert [(content["iteration"], content["learning_rate"]) for _, content, _ in written] == [
        (4, 0.0005)
    ] * 2


def test_padding_that_began_with_the_first_image_is_resumed_too(folder):
    more = ("-padding_type", "reflect-start", "-checkpoint_every", "4", "--state", "s")
    assert train(words("-num_iterations", "4", "-checkpoint_name", "whole", *more)) == 0
    assert train(words("-num_iterations", "2", "-checkpoint_name", "half", *more)) == 0
    assert train(words("-num_iterations", "4", "-checkpoint_name", "half", "--resume", "s", *more)) == 0
    np.testing.assert_array_equal(parameters("half.t7"), parameters("whole.t7"))
    assert t7.read("half.t7")["model"].get("modules")[0].typename == "nn.SpatialReflectionPadding"


def test_a_training_without_a_seed_goes_on_with_its_own(folder, capsys):
    more = ("--seed", "-1", "--state", "s")
    assert train(words("-num_iterations", "2", *more)) == 0
    assert train(words("-num_iterations", "4", "--resume", "s", *more)) == 0
    assert capsys.readouterr().out.count("Epoch") == 4


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("-learning_rate", "0.1"), "learning_rate was 0.001 and is 0.1"),
        (("--crop", "16"), "crop was 24.0 and is 16.0"),
        (("-arch", "c3s1-3"), "arch was"),
    ],
)
def test_a_state_is_not_resumed_with_other_options(folder, capsys, change, told):
    assert train(words("-num_iterations", "1", "--state", "s")) == 0
    assert train(words("-num_iterations", "2", "--resume", "s", *change)) == 1
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"\x80\x02."])
def test_what_is_no_state_is_refused(folder, capsys, content):
    Path("s").write_bytes(content)
    assert train(words("--resume", "s")) == 1
    assert "give the file of --state" in capsys.readouterr().err


def test_damage_inside_a_state_is_told_as_one(folder, capsys):
    """Every value in turn is replaced by one of another kind or size; the sums of the file fit."""
    assert train(words("-num_iterations", "1", "--state", "s")) == 0
    content = torch.load("s", weights_only=True)
    places = [("options",), ("seed",), ("iteration",), ("learning_rate",), ("padding",), ("history",)]
    places += [("weights",), ("weights", "0.weight"), ("adam",), ("adam", "t"), ("adam", "m"), ("adam", "v")]
    places += [("history", "train_loss_history"), ("history", "style_loss_history")]
    for place in places:
        for other in (None, "text", -1, {"a": 1}, torch.zeros(2)):
            damaged = copy.deepcopy(content)
            inner = damaged
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = other
            torch.save(damaged, "s")
            capsys.readouterr()
            status = train(words("-num_iterations", "2", "--resume", "s"))
            told = capsys.readouterr().err
            assert "Traceback" not in told
            other_options = place == ("options",) and isinstance(other, dict)
            what = (
                "--resume s: this is not the training of"
                if other_options
                else "s: not the state of a training"
            )
            assert (status, told.startswith(f"train: {what}")) == (1, True), (place, other, told)


def test_a_compressed_state_is_no_state(folder, capsys):
    assert train(words("-num_iterations", "1", "--state", "s")) == 0
    with zipfile.ZipFile("s") as old, zipfile.ZipFile("new", "w", zipfile.ZIP_DEFLATED) as new:
        for each in old.infolist():
            new.writestr(each.filename, old.read(each))
    assert train(words("--resume", "new")) == 1
    assert "in it is compressed; give the file of --state" in capsys.readouterr().err


def test_an_interrupted_training_keeps_its_state(folder, processor):
    """Ctrl-C at whatever moment: the state on disk is that between two iterations."""
    # On the processor that goes on with it here.
    code = "import contextlib, sys\nfrom other_processor import OtherProcessor\n"
    code += "from legacy_style.cli.train import main\n"
    code += f"with {'contextlib.nullcontext()' if processor is None else f'OtherProcessor({processor})'}:\n"
    command = [sys.executable, "-c", code + "    sys.exit(main())"]
    # As many threads as here: others would add up in another order.
    threads = str(torch.get_num_threads())
    path = os.pathsep.join(map(str, (CHECKOUT, CHECKOUT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads}
    process = subprocess.Popen(
        [*command, *words("-num_iterations", "100000", "--state", "s")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += line.startswith("Epoch")
        if seen == 3:
            break
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "the training is in s; the same command with --resume s goes on with it" in told
    state = torch.load("s", weights_only=True)
    assert state["iteration"] >= 3
    assert len(state["history"]["train_loss_history"]) == state["iteration"]
    total = str(state["iteration"] + 2)
    assert (
        train(
            words(
                "-num_iterations",
                total,
                "--resume",
                "s",
                "-checkpoint_name",
                "on",
                "-checkpoint_every",
                total,
            )
        )
        == 0
    )
    assert (
        train(words("-num_iterations", total, "-checkpoint_name", "whole", "-checkpoint_every", total)) == 0
    )
    np.testing.assert_array_equal(parameters("on.t7"), parameters("whole.t7"))


def test_a_picture_is_painted_beside_a_checkpoint(folder):
    assert (
        train(words("-checkpoint_every", "6", "-checkpoint_name", "new/ck", "--picture", "photos/1.png")) == 0
    )
    assert sorted(path.name for path in Path("new").iterdir()) == ["ck.json", "ck.png", "ck.t7"]
    with Image.open("new/ck.png") as picture:
        assert picture.size == (64, 48)


def test_a_training_learns(folder, capsys):
    assert train(words("-num_iterations", "60", "-learning_rate", "1e-2")) == 0
    losses = training_runs.losses(capsys.readouterr().out.split("\n"))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:3])


def test_bfloat16_is_refused_where_it_would_be_slow(folder, capsys, monkeypatch):
    monkeypatch.setattr("legacy_style.engine.machine._has_fast_bfloat16", lambda: False)
    assert train(words("--precision", "bfloat16")) == 1
    assert "--precision bfloat16: this processor has no instructions for bfloat16" in capsys.readouterr().err


def test_bfloat16_trains_nearly_as_float32_does(folder, capsys, monkeypatch):
    monkeypatch.setattr("legacy_style.engine.machine._has_fast_bfloat16", lambda: True)
    losses = {}
    for precision in ("float32", "bfloat16"):
        assert train(words("--precision", precision)) == 0
        losses[precision] = training_runs.losses(capsys.readouterr().out.split("\n"))
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--image-dir", "nowhere"), "--image-dir nowhere: there is no such folder"),
        (("--image-dir", "", "-h5_file", "none.h5"), "-h5_file none.h5: there is no such file"),
        (("--image-dir", "", "-h5_file", "loss.t7"), "loss.t7: not an HDF5 file"),
        (("-loss_network", "none.t7"), "-loss_network none.t7: No such file or directory; give a VGG-16"),
        (("-loss_network", "photos/0.png"), "photos/0.png"),
        (("-style_image", "none.png"), "none.png: No such file or directory"),
        (("-batch_size", "0"), "-batch_size takes a whole number of 1 or more, not 0."),
        (("--scales", "2,1"), "--scales takes the smaller number first"),
        (("--scales", "a"), "--scales takes two numbers"),
        (("-checkpoint_every", "1", "-num_val_batches", "0"), "-num_val_batches 0: a checkpoint needs"),
        (("-checkpoint_every", "1", "-num_val_batches", "inf"), "-num_val_batches inf: a checkpoint needs"),
        (("-checkpoint_every", "1", "-num_val_batches", "nan"), "-num_val_batches nan: a checkpoint needs"),
        (("--seed", "1.5"), "--seed takes a whole number"),
        (("-task", "upsample"), "--image-dir serves -task style"),
        (
            ("-resume_from_checkpoint", "none.t7"),
            "-resume_from_checkpoint none.t7: No such file or directory",
        ),
        (("-gpu", "0.5"), "-gpu takes a whole number"),
        (("-padding_type", "reflect-start", "--crop", "17"), "-padding_type reflect-start: images of 17x17"),
        (("--state", "nowhere/s"), "--state nowhere/s: the folder nowhere is missing"),
        (("-checkpoint_every", "1", "-checkpoint_name", "loss.t7/ck"), "-checkpoint_name loss.t7/ck: "),
        (("-checkpoint_every", "1", "--picture", "none.png"), "none.png: No such file or directory"),
        (("-batch_size", "1e308"), "-batch_size 1e+308 with --crop 24 is a batch of inf numbers"),
        (
            ("--crop", "1e9"),
            "-batch_size 2 with --crop 1000000000 is a batch of 6e+18 numbers; choose smaller ones",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(folder, capsys, more, told):
    assert train(words(*more)) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def hdf5(images, validation=None, **more):
    h5py = pytest.importorskip("h5py")
    with h5py.File("data.h5", "w") as file:
        file.create_dataset("train2014/images", data=images, **more)
        file.create_dataset("val2014/images", data=images if validation is None else validation)
    return ("--image-dir", "", "-h5_file", "data.h5")


def test_hdf5_files_that_hold_something_else_or_are_damaged(folder, capsys):
    images = np.random.RandomState(1).randint(0, 256, (8, 3, 24, 24)).astype(np.uint8)
    assert train(words(*hdf5(images), "-max_train", "inf", "-num_iterations", "1")) == 0
    capsys.readouterr()
    assert train(words(*hdf5(np.full((4, 3, 24, 24), b"text")))) == 1
    assert "data.h5: /train2014/images holds |S4, where integers are expected" in capsys.readouterr().err
    # A chunk whose checksum does not fit any more.
    more = hdf5(images, chunks=(8, 3, 24, 24), fletcher32=True)
    content = bytearray(Path("data.h5").read_bytes())
    content[content.index(images.tobytes()[:64])] ^= 1
    Path("data.h5").write_bytes(content)
    assert train(words(*more, "-num_iterations", "1")) == 1
    assert "train: data.h5: images 1 to " in (told := capsys.readouterr().err) and "cannot be read" in told


@pytest.mark.parametrize(
    ("arch", "more", "told"),
    [
        (
            "c3s2-4,c3s1-3",
            (),
            "-arch: the network makes 12x12 pixels in 3 channels of images of 24x24, and",
        ),
        ("c3s1-4,u2,c3s1-3", (), "-arch: the network makes 48x48 pixels in 3 channels of images of 24x24"),
        (
            "c3s1-4,R4,u2,c3s1-3",
            ("-padding_type", "none"),
            "-arch: the network makes 40x40 pixels in 3 channels",
        ),
        ("c3s1-4,d4,U2,c3s1-4", (), "-arch: the network makes 24x24 pixels in 4 channels of images of 24x24"),
        (
            "c3s1-4,d4,U2,c3s1-3",
            ("--crop", "25"),
            "-arch: the network makes 26x26 pixels in 3 channels of images of 25x25",
        ),
        ("c9s1-4,d4,d4,d4,d4,d4,c9s1-3", (), "-arch: the image is too small for this network"),
    ],
)
def test_a_network_whose_pictures_do_not_fit_is_refused_before_the_work(
    folder, capsys, monkeypatch, arch, more, told
):
    monkeypatch.setattr("legacy_style.programs.fast_neural_style.train.Trainer", None)
    assert train(words("-arch", arch, *more)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"train: {told}")


def test_images_to_validate_with_have_to_fit_too(folder, capsys, monkeypatch):
    monkeypatch.setattr("legacy_style.programs.fast_neural_style.train.Trainer", None)
    images = np.zeros((4, 3, 24, 24), np.uint8)
    assert train(words(*hdf5(images, np.zeros((2, 3, 25, 25), np.uint8)))) == 1
    assert "makes 26x26 pixels in 3 channels of images of 25x25" in capsys.readouterr().err


def test_a_loss_network_may_normalise_its_maps(folder, capsys):
    torch.manual_seed(7)
    first, second = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 8, 3, padding=1)
    parts = saving.to_t7(torch.nn.Sequential(first, torch.nn.ReLU(True), second)).fields["modules"]
    norm = t7.TorchObject("nn.SpatialCrossMapLRN", {"size": 3.0, "alpha": 0.5, "beta": 0.75, "k": 2.0}, 1)
    t7.write("lrn.t7", t7.TorchObject("nn.Sequential", {"modules": [*parts[:2], norm, parts[2]]}, 1))
    modules = loading.loss_network("lrn.t7", print)
    x = torch.rand(2, 3, 9, 8)
    maps = LossNetwork(modules).run(x, [(2,), (3,), (4,)])
    # nn.SpatialCrossMapLRN by its definition, a channel at a time.
    before, expected = maps[(2,)], torch.empty_like(maps[(2,)])
    for channel in range(8):
        near = before[:, max(channel - 1, 0) : channel + 2]
        expected[:, channel] = before[:, channel] * (2 + 0.5 / 3 * near.pow(2).sum(1)) ** -0.75
    torch.testing.assert_close(maps[(3,)], expected)
    torch.testing.assert_close(maps[(4,)], second(expected))
    more = ("-loss_network", "lrn.t7", "-content_layers", "3", "-style_layers", "2,4", "-num_iterations", "2")
    assert train(words(*more)) == 0
    assert "Traceback" not in capsys.readouterr().err


def test_a_caffe_loss_network_goes_on_behind_a_normalisation():
    modules = loading.loss_network(thin_networks.path("caffenet"), print)
    x = torch.rand(1, 3, 67, 67, generator=torch.Generator().manual_seed(1)) * 100
    chain, _ = loadcaffe.modules(thin_networks.load("caffenet"))
    y, wanted = x, {}
    for number, module in enumerate(chain[: len(modules)], 1):
        y = wanted[(number,)] = module.build().forward(y.clone())
    found = LossNetwork(modules).run(x, list(wanted))
    kinds = [type(module).__name__ for module in modules]
    assert kinds.count("Conv2d") >= 5
    for place, each in wanted.items():
        assert (found[place] - each).abs().max() <= 1e-5 * each.abs().max(), place


def test_numbers_without_end(folder, capsys):
    given = ["-content_image", "photos/0.png", "-style_image", "photos/1.png", "-image_size", "24"]
    given += [
        "-style_image_size",
        "24",
        "-loss_network",
        "loss.t7",
        "-content_layers",
        "4",
        "-style_layers",
        "2",
    ]
    for optimizer, number in (("adam", "nan"), ("sgd", "-inf"), ("adam", "2.5")):
        given_more = ["-optimizer", optimizer, "-num_iterations", number, "-save_every", "inf"]
        assert slow([*given, *given_more]) == 0
        lines = [line for line in capsys.readouterr().out.split("\n") if line.startswith("Iteration")]
        assert len(lines) == (2 if number == "2.5" else 0)


@pytest.mark.parametrize("program", [train, slow])
def test_a_word_that_is_no_option_gives_the_usage(capsys, program):
    assert program(["-foo", "1"], "TORCH/bin/th") == 1
    captured = capsys.readouterr()
    assert captured.err == "invalid argument: -foo"
    assert captured.out.startswith("\t\n\t\nUsage: [options]\n")


@pytest.mark.parametrize("program", [train, slow])
def test_help_names_the_originals_options_and_ours(capsys, program):
    assert program(["-help"], "TORCH/bin/th") == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: TORCH/bin/th [options]\n")
    assert "-style_weights" in text
    assert "--seed" in text


def test_options_are_printed_as_json(capsys):
    assert train(["-batch_size", "8", "--print-options"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == [option.key[1:] for option in train_options.ORIGINAL]
    assert printed["batch_size"] == 8


def test_the_slow_way_needs_no_recording_to_lower_its_loss(folder, capsys):
    given = [
        "-content_image",
        "photos/1.png",
        "-style_image",
        "photos/0.png",
        "-image_size",
        "32",
        "--seed",
        "3",
    ]
    given += [
        "-style_image_size",
        "32",
        "-loss_network",
        "loss.t7",
        "-content_layers",
        "4",
        "-style_layers",
        "2,4",
    ]
    given += ["-optimizer", "adam", "-learning_rate", "5"]
    assert slow([*given, "-num_iterations", "20", "-save_every", "20"]) == 0
    losses = training_runs.losses(capsys.readouterr().out.split("\n"))
    assert len(losses) == 20
    assert losses[-1] < losses[0] / 5
    assert Path("out_20.png").is_file()


def test_without_the_default_loss_network_the_bundled_one_is_used_and_that_is_said(folder, capsys):
    given = words(
        "-loss_network", "models/vgg16.t7", "-num_iterations", "1", "--crop", "16", "-style_image_size", "16"
    )
    assert train(given) == 0
    assert "No models/vgg16.t7 here: using the bundled VGG-16 instead" in capsys.readouterr().err


def checkpoint() -> np.ndarray:
    """Train for a moment, and return the parameters of ck.t7."""
    assert train(words("-num_iterations", "2", "-checkpoint_every", "2", "-checkpoint_name", "ck")) == 0
    return parameters("ck.t7")


def test_another_reader_finds_the_same_in_a_checkpoint(folder):
    """PyPI's torchfile, which knows nothing of ours."""
    torchfile = pytest.importorskip("torchfile")
    ours = checkpoint()
    content = torchfile.load("ck.t7")
    assert content[b"opt"][b"style_layers"] == [b"2", b"4"]
    assert content[b"opt"][b"batch_size"] == 2
    assert len(content[b"train_loss_history"]) == 2
    model = content[b"model"]
    assert model.torch_typename() == b"nn.Sequential"
    found = []

    def visit(module) -> None:
        for name in (b"weight", b"bias"):
            if isinstance(getattr(module, "_obj", {}), dict) and module._obj.get(name) is not None:
                found.append(module._obj[name].ravel())
        for child in module._obj.get(b"modules") or []:
            visit(child)

    visit(model)
    np.testing.assert_array_equal(np.concatenate(found), ours)


@needs_shared
def test_the_reader_beside_the_recordings_reads_a_checkpoint_to_its_last_byte(folder):
    import importlib.util

    place = importlib.util.spec_from_file_location("reference_t7", RECORDED / "reference" / "t7.py")
    reference = importlib.util.module_from_spec(place)
    place.loader.exec_module(reference)
    ours = checkpoint()
    reader = reference.Reader(Path("ck.t7").read_bytes())
    content = reader.obj()
    assert reader.p == len(reader.b)
    found = []

    def visit(module) -> None:
        found.extend(module[name].ravel() for name in ("weight", "bias") if module.get(name) is not None)
        for number in sorted(module.get("modules", {})):
            visit(module["modules"][number])

    visit(content["model"])
    np.testing.assert_array_equal(np.concatenate(found), ours)
    assert [content["model"]["modules"][number].cls for number in (1.0, 2.0)] == [
        "nn.SpatialReflectionPadding",
        "nn.SpatialConvolution",
    ]
