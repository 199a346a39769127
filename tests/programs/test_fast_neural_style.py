"""fast_neural_style.lua: recordings, options, folders, errors."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from pathlib import Path

import fast_recordings
import forked
import numpy as np
import pytest
import torch
from fast_recordings import RECORDED, SHIPPED, all_cases
from PIL import Image
from recordings import needs_shared

from legacy_style.cli import fast_neural_style as cli
from legacy_style.cli import print_options, th
from legacy_style.errors import FormatError, LegacyStyleError, OptionError, UnsupportedError
from legacy_style.formats import model_files, t7
from legacy_style.formats.t7 import TorchObject
from legacy_style.programs.fast_neural_style import layers, network, options, run, saving, shapes
from legacy_style.programs.fast_neural_style.forward import Forward
from legacy_style.programs.fast_neural_style.median import median_filter
from legacy_style.programs.fast_neural_style.preprocess import RESNET, VGG
from legacy_style.torch7 import image

BARE = Path(__file__).parents[1] / "golden" / "t7" / "in_rs.t7"

CASES = [
    pytest.param(
        case,
        id=f"{root.parent.parent.name}-{name}",
    )
    for root in (SHIPPED, RECORDED)
    if root.is_dir()
    for name, case in all_cases(root).items()
]


@pytest.mark.parametrize("case", CASES)
def test_a_recording_is_held_or_deviates_on_purpose(case, tmp_path):
    assert case(tmp_path) == []


@needs_shared
def test_all_recordings_of_the_program_are_replayed():
    assert len(all_cases(RECORDED)) >= 110
    named = {*fast_recordings.DEVIATIONS, *fast_recordings.REFUSALS, *fast_recordings.REMARKS}
    assert named <= set(fast_recordings.recorded(RECORDED))


def test_layers_behind_the_strides_are_as_recorded():
    net = network.from_t7(t7.read(BARE))
    with np.load(SHIPPED / "in_rs_middle.npz") as archive, torch.no_grad():
        x = torch.from_numpy(archive["10"])
        for number in range(11, 19):
            theirs = archive[str(number)]
            # The recording of a norm was made before the ReLU behind it worked in its place.
            x = net[number - 1](x)
            apart = np.abs(x.numpy() - theirs).max()
            assert apart <= 3e-6 * np.abs(theirs).max(), f"module {number}"


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The current folder, with a checkpoint in models/in.t7 and an image in photo.png."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    t7.write("models/in.t7", {"opt": {"preprocessing": "vgg"}, "model": t7.read(BARE)})
    draw(Path("photo.png"), 40, 30)
    return tmp_path


def draw(path, width, height, mode="RGB"):
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(x / 5 + phase) * np.cos(y / (4 + phase)) for phase in range(3)]
    Image.fromarray(np.uint8(np.stack(waves, 2))).convert(mode).save(path)


def program(capsys, *words):
    """Exit status, stdout's lines and stderr of a command line."""
    status = cli.main(["-model", "models/in.t7", *words], "th")
    caught = capsys.readouterr()
    return status, caught.out.split("\n")[:-1], caught.err


def nested(depth):
    """A list in a list in a list …"""
    made = [1]
    for _ in range(depth):
        made = [made]
    return made


# The door


def test_th_serves_the_script(models):
    code = "import sys; from legacy_style.cli.th import main; sys.exit(main())"
    words = ["somewhere/fast_neural_style.lua", "-model", "models/in.t7", "-input_image", "photo.png"]
    answer = forked.run("-c", code, *words, "-image_size", "0")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "Writing output image to out.png\t\n", "")
    assert th.SCRIPTS["fast_neural_style.lua"] == "fast_neural_style"


def test_help_explains_every_option(capsys):
    assert cli.main(["--help"], "th") == 0
    text = capsys.readouterr().out
    for option in options.ORIGINAL:
        assert text.count(f"  {option.key} ") == 2, option.key
    for option in options.EXTENSIONS:
        assert f"  {option.key}" in text


def test_options_as_json(models, capsys):
    status, lines, _ = program(capsys, "-image_size", "1e2", "-gpu", "-0.5", "--print-options")
    assert status == 0
    shown = json.loads(lines[0])
    assert shown["image_size"] == 100
    assert shown["gpu"] == -0.5
    assert set(shown) == {option.key[1:] for option in options.ORIGINAL}


def test_options_of_other_programs_are_explained(models, capsys):
    status, _, errors = program(capsys, "-style_image", "candy.jpg")
    assert status == 1
    assert errors.startswith("invalid argument: -style_image\n")
    assert "a model has one style" in errors


def test_layers_are_listed_by_torch7s_paths(models, capsys):
    status, lines, _ = program(capsys, "--list-layers")
    assert status == 0
    assert lines[0] == "1 ReflectionPad2d((16, 16, 16, 16))"
    assert "11-1-2 ShaveImage(2)" in lines


# Settings


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-input_image", ""], "Must give exactly one of -input_image or -input_dir"),
        (["-input_dir", "x"], "Must give -output_dir with -input_dir"),
        (["-output_image", ""], "Must give -output_image with -input_image"),
        (["-median_filter", "2.5"], "-median_filter 2.5: give a whole number"),
        (["-median_filter", "inf"], "-median_filter inf: give a whole number"),
        (["-image_size", "inf"], "-image_size inf: give a number of pixels"),
        (["-output_image", "x.tiff"], "unknown image type: tiff"),
        (["-output_image", "x"], "unknown image type: nil"),
        (["-gpu", "inf"], "-gpu inf: give the number of a GPU"),
        (["--max-pixels", "0"], "--max-pixels takes a whole number of 1 or more"),
    ],
)
def test_what_can_be_known_is_checked_before_anything_is_loaded(words, message):
    parsed = options.parse(words)
    assert parsed is not None
    with pytest.raises(OptionError, match=message.replace("(", r"\(")):
        options.settings(parsed[0])


@pytest.mark.parametrize(
    ("gpu", "expected"), [("-1", None), ("-0.5", None), ("nan", None), ("0", 0), ("0.5", 0), ("2", 2)]
)
def test_a_gpu_counts_from_zero_on(gpu, expected):
    parsed = options.parse(["-gpu", gpu])
    assert parsed is not None
    assert options.settings(parsed[0]).gpu == expected


# Running


def test_the_image_is_as_large_as_strides_and_median_make_it(models, capsys):
    # 40x30 is padded by 16, halved twice, rounded up, cropped by 8, doubled twice: 40x32; the median takes 2.
    status, lines, errors = program(capsys, "-input_image", "photo.png", "-image_size", "0")
    assert (status, lines, errors) == (0, ["Writing output image to out.png\t"], "")
    with Image.open("out.png") as picture:
        assert picture.size == (38, 30)


def test_a_folder_is_painted_in_the_order_of_its_names(models, capsys):
    Path("in").mkdir()
    for name in ("b.PNG", "a.jpg", ".hidden.png", "notes.txt", "c.jpeg", "10.png", "9.png", "bmp.bmp"):
        draw(Path("in", "x.png"), 36, 33)
        Path("in", "x.png").rename(Path("in", name))
    status, lines, errors = program(
        capsys, "-input_dir", "in", "-output_dir", "out/deep/../er", "-input_image", "unused.png"
    )
    assert (status, errors) == (0, "")
    names = ["10.png", "9.png", "a.jpg", "b.PNG", "c.jpeg"]
    assert lines == [f"Writing output image to {models}/out/er/{name}\t" for name in names]
    assert sorted(path.name for path in Path("out/er").iterdir()) == names


def test_the_first_image_that_fails_ends_the_run_and_earlier_ones_stay(models, capsys):
    Path("in").mkdir()
    for name in ("a.png", "c.png"):
        draw(Path("in", name), 36, 33)
    Path("in", "b.png").write_bytes(b"no image")
    status, lines, errors = program(capsys, "-input_dir", "in", "-output_dir", "out")
    assert status == 1
    assert lines == [f"Writing output image to {models}/out/a.png\t"]
    assert errors.startswith(f"fast_neural_style: {models}/in/b.png: not an image")
    assert [path.name for path in Path("out").iterdir()] == ["a.png"]


def test_a_folder_gives_what_single_images_give(models, capsys):
    Path("in").mkdir()
    for number, size in enumerate(((36, 33), (36, 33), (50, 40), (36, 33))):
        draw(Path("in", f"{number}.png"), *size)
        assert (
            program(capsys, "-input_image", f"in/{number}.png", "-output_image", f"one/{number}.png")[0] == 0
        )
    assert program(capsys, "-input_dir", "in", "-output_dir", "all")[0] == 0
    for number in range(4):
        with Image.open(f"one/{number}.png") as one, Image.open(f"all/{number}.png") as other:
            assert np.array_equal(np.asarray(one), np.asarray(other))


def test_an_empty_folder_is_told(models, capsys):
    Path("in").mkdir()
    status, lines, errors = program(capsys, "-input_dir", "in", "-output_dir", "out")
    assert (status, lines) == (0, [])
    assert (
        errors == "fast_neural_style: no image in in: no name there ends in .jpg, .jpeg, .png, .ppm, .pgm\n"
    )


@pytest.mark.parametrize("timing", ["1", "2"])
def test_timing_prints_a_line_only_for_1(models, capsys, timing):
    _, lines, _ = program(capsys, "-input_image", "photo.png", "-image_size", "38", "-timing", timing)
    if timing == "1":
        assert lines.pop(0).startswith("Image photo.png (28 x 38) took 0.")
    assert lines == ["Writing output image to out.png\t"]


def test_without_cuda_it_runs_on_the_cpu_and_says_so(models, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words, remark in (
        ([], "No CUDA device here: running on the CPU (-gpu -1 says so beforehand)"),
        (["-backend", "opencl"], "-backend opencl is not served: running on the CPU"),
    ):
        status, _, errors = program(capsys, "-input_image", "photo.png", "-gpu", "0", *words)
        assert (status, errors) == (0, f"fast_neural_style: {remark}\n")


def test_too_large_a_median_filter_is_refused_before_the_work(models, capsys):
    status, lines, errors = program(
        capsys, "-input_image", "photo.png", "-image_size", "0", "-median_filter", "33"
    )
    assert (status, lines) == (1, [])
    assert "-median_filter 33 is larger than the result of 40x32 pixels" in errors


def test_too_small_an_image_is_refused_before_the_work(models, capsys):
    status, lines, errors = program(capsys, "-input_image", "photo.png", "-image_size", "20")
    assert (status, lines) == (1, [])
    assert (
        "photo.png, models/in.t7: the image is too small for this network: 20x15 pixels are left of it"
        in errors
    )


def test_a_folder_that_cannot_be_made_is_an_error(models, capsys):
    status, _, errors = program(capsys, "-input_image", "photo.png", "-output_image", "photo.png/out.png")
    assert status == 1
    assert errors.startswith("fast_neural_style: photo.png: cannot be made into a folder")


# Checkpoints


def checkpoint(**changes):
    return {"opt": {"preprocessing": "vgg"}, "model": t7.read(BARE), **changes}


def test_a_missing_model_prints_the_originals_lines_and_fails(models, capsys):
    status = cli.main(["-model", "nope.t7"], "th")
    caught = capsys.readouterr()
    assert status == 1
    assert caught.out.split("\t\n")[0] == "ERROR: Could not load model from nope.t7"
    assert caught.err == (
        "fast_neural_style: nope.t7: No such file or directory; give a .t7 checkpoint of fast-neural-style to -model"
        " (legacy-style models list has those that were published)\n"
    )


def test_a_bare_network_runs_and_says_so(models, capsys):
    shutil.copy(BARE, "models/in.t7")
    status, _, errors = program(capsys, "-input_image", "photo.png")
    assert status == 0
    assert errors == (
        "fast_neural_style: models/in.t7: a bare network without options; its preprocessing is taken to be vgg\n"
    )


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({"opt": {}}, FormatError, "not a checkpoint of fast-neural-style"),
        ([1, 2], FormatError, "not a checkpoint of fast-neural-style"),
        (checkpoint(opt={"preprocessing": "caffe"}), UnsupportedError, 'invalid -preprocessing "caffe"'),
        (checkpoint(model=TorchObject("nn.LSTM", {})), UnsupportedError, "nn.LSTM is not a module"),
        (checkpoint(model=TorchObject("nn.Sequential", {})), FormatError, "has no list of modules"),
        (
            checkpoint(model=TorchObject("nn.ShaveImage", {})),
            FormatError,
            "is broken: it has no field 'size'",
        ),
        (
            checkpoint(model=TorchObject("nn.ShaveImage", {"size": 1.5})),
            FormatError,
            "is broken: size is 1.5, not a whole number",
        ),
        (
            checkpoint(model=TorchObject("nn.ShaveImage", {"size": np.zeros((9, 9))})),
            FormatError,
            r"is broken: size is array\([^\n]{,40}, not a whole number",
        ),
        (checkpoint(opt={"preprocessing": nested(5000)}), UnsupportedError, "invalid -preprocessing"),
    ],
)
def test_other_files_are_told_apart(content, error, message):
    with pytest.raises(error, match=f"^x.t7: .*{message}"):
        network.from_checkpoint(content, "x.t7")


@pytest.mark.parametrize("strange", [nested(5000), [*nested(2), 1], {"a": nested(2)}, np.zeros(3)])
def test_options_that_are_nested_or_no_text_are_shown_by_their_kind(models, capsys, strange):
    t7.write("models/odd.t7", {"opt": {"odd": strange, "arch": "R4"}, "model": t7.read(BARE)})
    assert print_options.main(["-model", "models/odd.t7"], "th") == 0
    lines = capsys.readouterr().out.split("\n")
    assert lines[1] == "arch: R4\t" and lines[2] in ("odd: a table\t", "odd: a table,1\t", "odd: ndarray\t")
    assert model_files.load("models/odd.t7").notes == ["arch: R4"]


def test_a_padding_that_is_damaged_is_refused_before_memory_is_filled(models, capsys):
    tree = t7.read(BARE)
    next(each for each in modules_in(tree) if each.typename == "nn.SpatialConvolution").fields["padW"] = (
        10**15
    )
    t7.write("models/in.t7", tree)
    status, _, errors = program(capsys, "-input_image", "photo.png", "-image_size", "0")
    assert status == 1
    assert "fast_neural_style: photo.png, models/in.t7: the network makes 2000000000000" in errors


def test_networks_that_contain_themselves_are_refused():
    tree = TorchObject("nn.Sequential", {})
    tree.fields["modules"] = [tree]
    with pytest.raises(FormatError, match="nested more than 100 deep"):
        network.from_t7(tree)


def test_old_convolutions_and_batch_norms_are_read():
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((4, 27)).astype(np.float32)
    convolution = {"nInputPlane": 3, "nOutputPlane": 4, "kW": 3, "kH": 3, "dW": 1, "dH": 1, "padding": 1}
    convolution |= {"weight": weight, "bias": np.ones(4, np.float32)}
    module = network.from_t7(TorchObject("nn.SpatialConvolutionMM", convolution))
    assert module.padding == (1, 1)
    assert np.array_equal(module.weight.detach().numpy(), weight.reshape(4, 3, 3, 3))
    std = np.array([0.5, 2], np.float32)
    norm = network.from_t7(
        TorchObject("cudnn.SpatialBatchNormalization", {"running_mean": std, "running_std": std, "eps": 1e-3})
    )
    np.testing.assert_allclose(norm.running_var.numpy(), 1 / np.square(std) - 1e-3, rtol=1e-6)
    assert norm.weight is None


def test_networks_with_damaged_fields_are_refused_in_a_sentence_or_run():
    rng = random.Random(1)
    values = [
        0,
        -1,
        1,
        2,
        3,
        1.5,
        10**9,
        -(10**9),
        math.nan,
        math.inf,
        True,
        None,
        "x",
        {},
        [],
        np.zeros(0),
        np.ones(8),
    ]
    refused = 0
    for _ in range(100):
        tree = t7.read(BARE)
        modules = list(modules_in(tree))
        for _ in range(rng.randint(1, 3)):
            module = rng.choice(modules)
            module.fields[rng.choice([each for each in module.fields if each != "_type"])] = rng.choice(
                values
            )
        try:
            net = network.from_t7(tree)
            if shapes.output_shape(net, (3, 24, 28))[1:] < (2**12, 2**12):
                Forward(net, torch.device("cpu"))(torch.zeros(1, 3, 24, 28))
        except LegacyStyleError as error:
            refused += 1
            assert str(error)
    assert 20 < refused < 100


def modules_in(tree):
    yield tree
    for each in tree.fields.get("modules", []):
        yield from modules_in(each)


def test_a_network_is_written_as_it_was_read():
    x = torch.randn(1, 3, 40, 36, generator=torch.Generator().manual_seed(1))
    original = t7.read(BARE)
    net = network.from_t7(original)
    tree = t7.parse(t7.dump(saving.to_t7(net)))
    with torch.no_grad():
        assert torch.equal(network.from_t7(tree)(x), net(x))
    for ours, theirs in zip(tree.fields["modules"], original.fields["modules"], strict=True):
        assert (ours.typename, ours.version) == (theirs.typename, theirs.version)
        assert set(theirs.fields) <= set(ours.fields), ours.typename


def test_every_kind_of_module_is_written_and_read_back():
    torch.manual_seed(4)
    net = torch.nn.Sequential(
        *(torch.nn.ReplicationPad2d((1, 2, 3, 4)), torch.nn.Conv2d(3, 4, (3, 5), (1, 2), (1, 0), bias=False)),
        *(torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.ConvTranspose2d(4, 6, 3, 2, 1, 1)),
        *(layers.InstanceNormalization(6), torch.nn.Upsample(scale_factor=2), torch.nn.Identity()),
        *(layers.MulConstant(2.5), torch.nn.Tanh(), layers.TotalVariation(1e-3), layers.ShaveImage(1)),
    ).eval()
    torch.nn.init.uniform_(net[2].running_mean)
    x = torch.randn(1, 3, 9, 11)
    with torch.no_grad():
        assert torch.equal(network.from_t7(t7.parse(t7.dump(saving.to_t7(net))))(x), net(x))
    with pytest.raises(UnsupportedError, match="GELU cannot be written as a Torch7 module"):
        saving.to_t7(torch.nn.Sequential(torch.nn.GELU()))


# Images


def test_preprocessing_is_in_the_images_own_type():
    image = np.random.default_rng(1).random((3, 4, 5))
    expected = image[::-1] * 255 - np.array([103.939, 116.779, 123.68])[:, None, None]
    assert np.array_equal(VGG.preprocess(image), expected)
    single = VGG.preprocess(image).astype(np.float32)
    assert VGG.deprocess(single).dtype == np.float32
    assert np.abs(VGG.deprocess(single) - image).max() < 1e-6
    mean, deviation = (np.array(each)[:, None, None] for each in (RESNET.mean, RESNET.deviation))
    assert np.array_equal(RESNET.preprocess(image), (image - mean) / deviation)
    assert np.abs(RESNET.deprocess(RESNET.preprocess(image)) - image).max() < 1e-12


@pytest.mark.parametrize("r", [1, 2, 3, 4, 5, 7])
def test_the_median_of_an_even_number_is_the_lower_one(r):
    image = np.random.default_rng(r).integers(0, 9, (3, 12, 9)).astype(np.float32)
    result = median_filter(image, r)
    assert result.shape == (3, 13 - r, 10 - r)
    for y in range(13 - r):
        for x in range(10 - r):
            values = np.sort(image[:, y : y + r, x : x + r].reshape(3, -1), axis=1)
            assert np.array_equal(result[:, y, x], values[:, (r * r - 1) // 2])


def test_a_large_median_is_taken_in_parts(monkeypatch):
    image = np.random.default_rng(1).random((3, 20, 20)).astype(np.float32)
    whole = median_filter(image, 5)
    monkeypatch.setattr("legacy_style.programs.fast_neural_style.median._ELEMENTS", 1)
    assert np.array_equal(median_filter(image, 5), whole)


def test_names_that_a_folder_gives():
    names = ["a.jpg", "b.JPEG", "c.Png", "d.ppm", "e.pgm", ".f.png", "g.gif", "png", "h.png.txt", "i."]
    assert [name for name in names if run.is_image(name)] == names[:5]


def test_every_deviation_is_told_in_the_docs():
    text = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text("utf-8")
    assert [name for name in fast_recordings.DEVIATIONS if f"`{name}`" not in text] == []


def test_the_program_in_the_docs_paints_as_the_command_does(models, capsys, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "fast-neural-style.md").read_text("utf-8")
    (source,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Forward" in block]
    shutil.copy("models/in.t7", "candy.t7")
    names = {}
    exec(source, names)
    painted = names["paint"](image.load("photo.png"))
    assert program(capsys, "-input_image", "photo.png", "-image_size", "0", "-median_filter", "0")[0] == 0
    assert np.abs(image.load("out.png") - painted).max() <= 1 / 255 + 1e-5
