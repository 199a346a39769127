"""stylize as a function: what it returns, says and leaves behind, where no recording tells."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from recordings import SHIPPED
from thin_options import VGG, thin_options

from legacy_style import Options
from legacy_style.cli.neural_style import main
from legacy_style.errors import DivergenceError, FormatError, OptionError
from legacy_style.files import sha256
from legacy_style.formats import model_files
from legacy_style.formats.caffe import caffemodel
from legacy_style.formats.caffe.netparam import Blob
from legacy_style.programs import devices
from legacy_style.programs.neural_style import record
from legacy_style.programs.neural_style.options import as_words, parse
from legacy_style.programs.neural_style.settings import read
from legacy_style.programs.neural_style.story import load_model, stylize

pytestmark = pytest.mark.usefixtures("two_images")


def options(**given):
    return thin_options(**{"image_size": 24, "num_iterations": 4, **given})


def files(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if path.name not in ("content.png", "style.png"))


def saved(name):
    return np.asarray(Image.open(name))


def as_saved(image):
    """What image.save makes of RGB in [0,1]: clamped, times 255, truncated."""
    return np.uint8(np.clip(image, 0, 1) * 255).transpose(1, 2, 0)


# What the function gives.


def test_it_returns_the_image_that_it_saves_and_the_losses_of_every_evaluation(tmp_path):
    seen, lines = [], []
    result = stylize(options(print_iter=1), log=lines.append, on_progress=seen.append)
    assert result.image.dtype == np.float64
    assert result.image.shape == (3, 18, 24)
    assert np.array_equal(as_saved(result.image), saved("out.png"))
    assert files(tmp_path) == ["out.png"]
    assert [each.iteration for each in seen] == [1, 2, 3, 4]
    assert [each.losses for each in seen] == result.losses
    assert [each.num_iterations for each in seen] == [4.0] * 4
    seconds = [each.seconds for each in seen]
    assert seconds == sorted(seconds)
    assert [(len(each.content), len(each.style)) for each in result.losses] == [(1, 2)] * 4
    for each in result.losses:
        assert each.total == pytest.approx(sum(each.content) + sum(each.style))
    printed = [line for line in lines if "Total loss" in line]
    assert printed == [f"  Total loss: {each.total:f}\t" for each in result.losses]


def test_without_save_no_file_is_written_and_no_place_for_one_is_needed(tmp_path):
    with_files, without = stylize(options()), stylize(options(output_image="nowhere/out.gif"), save=False)
    assert np.array_equal(with_files.image, without.image)
    assert files(tmp_path) == ["out.png"]


def test_with_metadata_the_final_image_keeps_how_it_was_made_and_its_pixels(tmp_path):
    stylize(options(output_image="plain.png", save_iter=2))
    made = stylize(options(metadata=True, save_iter=2, init="image", init_image="style.png", seed=7))
    assert files(tmp_path) == ["out.png", "out.png.json", "out_2.png", "plain.png", "plain_2.png"]
    stylize(options(output_image="again.png", save_iter=0, init="image", init_image="style.png", seed=7))
    plain, kept = (tmp_path / "again.png").read_bytes(), (tmp_path / "out.png").read_bytes()
    start = plain.index(b"IDAT") - 4
    assert kept.startswith(plain[:start]) and kept.endswith(plain[start:]) and len(kept) > len(plain)
    assert record.read_png((tmp_path / "out_2.png").read_bytes()) == {}

    described = record.read("out.png")
    (tmp_path / "out.png.json").unlink()
    assert described == record.read("out.png")
    assert described["options"]["init_image"] == "style.png"
    assert sorted(described["inputs"]) == ["content.png", "style.png"]
    assert described["model"] == {"file": VGG.name, "sha256": sha256(VGG)}
    assert described["losses"]["total"] == pytest.approx([each.total for each in made.losses], rel=1e-8)
    assert described["seconds"] > 0


def test_the_command_of_a_record_makes_the_picture_again(tmp_path):
    stylize(options(metadata=True, optimizer="adam", normalize_gradients=True, tv_weight=0.25))
    described = record.read("out.png")
    before = saved("out.png")
    (tmp_path / "out.png").unlink()
    assert described["command"][:3] == ["python", "-m", "legacy_style"]
    stylize(parse(described["command"][3:]).options)
    assert np.array_equal(saved("out.png"), before)


def test_without_a_final_image_there_is_no_record(tmp_path):
    stylize(options(metadata=True), save=False)
    with pytest.raises(KeyboardInterrupt):
        stylize(options(metadata=True), on_progress=interrupting(2))
    assert files(tmp_path) == ["out_2.png"]


def test_the_record_names_the_bundled_network_where_that_was_used():
    stylize(options(metadata=True, num_iterations=1, model_file=Options.model_file))
    assert record.read("out.png")["model"]["sha256"] == sha256(model_files.bundled())


def test_the_same_options_give_the_same_image_again():
    assert np.array_equal(stylize(options()).image, stylize(options()).image)
    assert not np.array_equal(stylize(options(seed=2)).image, stylize(options()).image)


def test_a_negative_seed_is_another_start_each_time():
    first, second = (stylize(options(seed=-1, num_iterations=1)).image for _ in range(2))
    assert not np.array_equal(first, second)


def test_the_options_are_not_changed():
    given = options()
    before = dict(vars(given))
    stylize(given, save=False)
    assert vars(given) == before


def test_no_gradient_is_recorded_for_the_caller():
    assert torch.is_grad_enabled()
    stylize(options(num_iterations=1), save=False)
    assert torch.is_grad_enabled()


# Interruptions.


def interrupting(iteration):
    def on_progress(progress):
        if progress.iteration == iteration:
            raise KeyboardInterrupt

    return on_progress


def test_an_interrupt_saves_the_image_of_the_last_evaluation(tmp_path):
    told = []
    whole = stylize(options(save_iter=1), on_saved=told.append)
    assert told == ["./out_1.png", "./out_2.png", "./out_3.png", "out.png"]
    told.clear()
    expected = saved("out_3.png")
    for path in tmp_path.glob("out*"):
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        stylize(options(save_iter=0), on_progress=interrupting(3), on_saved=told.append)
    assert told == ["./out_3.png"]
    assert files(tmp_path) == ["out_3.png"]
    assert np.array_equal(saved("out_3.png"), expected)
    assert len(whole.losses) == 4


def test_an_interrupt_within_an_evaluation_saves_that_of_the_one_before(tmp_path, monkeypatch):
    """The signal arrives while the third evaluation prints its losses."""

    def log(line):
        if line.startswith("Iteration 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stylize(options(print_iter=1), log=log)
    assert files(tmp_path) == ["out_2.png"]


def test_an_interrupt_where_nothing_is_saved_is_only_an_interrupt(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stylize(options(), on_progress=interrupting(2), on_saved=pytest.fail, save=False)

    def log(line):
        if line.startswith("Capturing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stylize(options(), log=log, on_saved=pytest.fail)
    assert files(tmp_path) == []


# Losses that leave the finite numbers.


def test_a_loss_that_is_not_finite_ends_the_run_after_saving_the_last_good_image(tmp_path):
    lines = []
    wild = {"optimizer": "adam", "learning_rate": 1e30, "print_iter": 1, "num_iterations": 9}
    with pytest.raises(DivergenceError) as caught:
        stylize(options(**wild), log=lines.append)
    assert "not finite any more at iteration 2. The image of iteration 1 is in ./out_1.png." in str(
        caught.value
    )
    assert "-learning_rate" in str(caught.value)
    assert files(tmp_path) == ["out_1.png"]
    first = stylize(options(num_iterations=1), save=False)
    assert np.array_equal(saved("out_1.png"), as_saved(first.image))
    assert [line for line in lines if line.startswith("Iteration")] == [
        "Iteration 1 / 9\t",
        "Iteration 2 / 9\t",
    ]


def test_a_first_loss_that_is_not_finite_leaves_no_image(tmp_path):
    with pytest.raises(DivergenceError, match=r"at iteration 1\. Likely"):
        stylize(options(style_weight=math.inf))
    assert files(tmp_path) == []


# What is checked before the first iteration.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_size": 3}, r"the content image is too small \(3x2\): nothing of it is left at layer pool2"),
        ({"style_scale": 0.1}, r"the style image is too small \(3x2\): nothing of it is left at layer pool2"),
        ({"image_size": 1, "tv_weight": 1}, "-tv_weight needs an image of at least 2x2 pixels"),
    ],
)
def test_an_image_too_small_for_the_network_names_the_layer(given, message):
    layers = {"pooling": "avg", "content_layers": "pool2", "style_layers": "relu1_1"}
    if "tv_weight" in given:
        layers = {"content_layers": "relu1_1", "style_layers": "relu1_1"}
    with pytest.raises(OptionError, match=message):
        stylize(options(**layers, **given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"init": "noise"}, 'Invalid init type: -init is "noise"; give random or image'),
        ({"optimizer": "sgd"}, 'Unrecognized optimizer "sgd"; give -optimizer lbfgs or adam'),
        ({"image_size": math.inf}, "-image_size and -style_scale must be finite"),
        ({"style_image": ""}, "-style_image '' has an empty element"),
        ({"style_image": "style.png,,style.png"}, "has an empty element"),
        ({"style_blend_weights": "1,2"}, "there are 2 weights for 1 images"),
        ({"output_image": "out"}, "unknown image type: nil"),
        ({"output_image": "folder/out.png"}, "could not be opened for writing"),
        ({"content_layers": "relu2_9"}, "the model has no layer 'relu2_9'; did you mean relu2_2"),
        ({"content_image": "other.png"}, "other.png: No such file or directory"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_printed_of_the_optimisation(given, message, tmp_path):
    lines = []
    with pytest.raises(OptionError, match=message):
        stylize(options(**given), log=lines.append)
    assert not any("optimization" in line for line in lines)
    assert files(tmp_path) == []


def test_weights_that_are_not_finite_are_refused(tmp_path):
    net = caffemodel.read(VGG)
    weights = net.layer("conv1_2").blobs[0].data().copy()
    weights[3, 2, 1, 1] = math.nan
    net.layer("conv1_2").blobs[0] = Blob.from_array(weights)
    caffemodel.write(tmp_path / "broken.caffemodel", net)
    with pytest.raises(
        FormatError, match=r"broken.caffemodel: layer conv1_2, blob 0, holds weights that are not finite"
    ):
        stylize(options(model_file="broken.caffemodel"))


@pytest.mark.parametrize(
    ("weights", "normalised"),
    [
        ("nil", [1 / 3] * 3),
        ("1,1,2", [0.25, 0.25, 0.5]),
        (" 1, 3 ,0", [0.25, 0.75, 0]),
        ("2,-1,0", [2, -1, 0]),
    ],
)
def test_blend_weights_have_the_sum_one(weights, normalised):
    given = options(style_image="a.png,b.png,c.png,", style_blend_weights=weights)
    assert read(given).blend_weights == pytest.approx(normalised)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("0,0", "have the sum 0"),
        ("1,-1", "have the sum 0"),
        ("inf,1", "have the sum inf"),
        ("nan,1", "have the sum nan"),
        ("1,x", "are not all numbers; give for example 1,3"),
        ("", "there are 0 weights for 2 images"),
    ],
)
def test_blend_weights_that_cannot_be_normalised_are_refused(weights, message):
    with pytest.raises(OptionError, match=message):
        read(options(style_image="a.png,b.png", style_blend_weights=weights))


# Devices.


@pytest.mark.parametrize("gpu", ["-1", "-2", "-1.5"])
def test_numbers_of_minus_one_and_less_are_the_cpu(gpu):
    said = []
    assert read(options(gpu=gpu)).gpus == ()
    assert devices.choose((), said.append) == [torch.device("cpu")]
    assert said == []


@pytest.mark.parametrize("gpu", ["0", "3", "-0.5", "0,1", "0,"])
def test_a_gpu_where_there_is_none_is_the_cpu_and_is_said_once(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = []
    assert devices.choose(read(options(gpu=gpu)).gpus, said.append) == [torch.device("cpu")]
    assert len(said) == 1
    assert said[0].startswith("No CUDA device here: running on the CPU")


@pytest.mark.parametrize("gpu", ["c", "0,c"])
def test_the_cpu_of_neural_style_pt_is_explained(gpu):
    with pytest.raises(
        OptionError, match=r"\(c, the CPU, is neural-style-pt's\); give 0, .* or -1 for the CPU"
    ):
        read(options(gpu=gpu))


@pytest.mark.parametrize("gpu", ["cuda", "", "0,x", "nan", ","])
def test_a_gpu_that_is_no_number_is_refused(gpu):
    with pytest.raises(OptionError, match="is not a GPU's number; give 0, or 0,1 for two, or -1 for the CPU"):
        read(options(gpu=gpu))


@pytest.mark.parametrize(
    ("gpu", "expected"), [("1", ["cuda:1"]), ("0,1", ["cuda:0", "cuda:1"]), ("1,0", ["cuda:1", "cuda:0"])]
)
def test_gpus_are_counted_from_zero(gpu, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = devices.choose(read(options(gpu=gpu)).gpus, pytest.fail)
    assert found == [torch.device(name) for name in expected]
    with pytest.raises(OptionError, match="-gpu 2: there is no GPU 2, only 0 to 1"):
        devices.choose((2,), pytest.fail)


def test_layers_to_split_after_are_numbers_where_there_are_several_gpus():
    assert read(options(gpu="0,1", multigpu_strategy="3")).splits == (3,)
    assert read(options(gpu="0,1")).splits is None
    assert read(options(gpu="0", multigpu_strategy="three")).splits is None
    with pytest.raises(OptionError, match="-multigpu_strategy: 'three' is not a layer number"):
        read(options(gpu="0,1", multigpu_strategy="three"))


# The model.


def test_without_a_model_file_the_bundled_network_is_used_and_said():
    said = []
    net = load_model(Options(), said.append)
    assert net.path == str(model_files.bundled())
    assert len(said) == 1
    assert "No models/VGG_ILSVRC_19_layers.caffemodel here: using the bundled VGG-16 instead" in said[0]


def test_the_default_model_is_used_without_a_word_where_it_lies(tmp_path):
    (tmp_path / "models").symlink_to(SHIPPED / "models")
    net = load_model(Options(), pytest.fail)
    assert net.path == "models/VGG_ILSVRC_19_layers.caffemodel"


def test_a_default_model_that_was_chosen_stays_chosen():
    """A copy with other options must not be measured with the bundled network."""
    chosen = parse(["-model_file", Options.model_file]).options
    for copy in (
        replace(chosen, image_size=64),
        chosen.changed(seed=1),
        Options().changed(model_file=Options.model_file),
    ):
        assert read(copy, save=False).model_file == Options.model_file
        words = as_words(copy)
        assert words[words.index("-model_file") + 1] == Options.model_file
    assert read(Options(), save=False).model_file == str(model_files.bundled())


def test_a_model_file_that_was_named_must_be_there():
    lines = []
    with pytest.raises(OptionError, match=r"other\.caffemodel: No such file or directory"):
        stylize(options(model_file="other.caffemodel"), log=lines.append)
    assert lines == ["Couldn't load other.caffemodel"]


@pytest.mark.parametrize(("number", "written"), [(0, []), (3.5, []), (math.inf, None), (2, ["out.png"])])
def test_a_number_of_iterations_that_never_comes_is_told(number, written, tmp_path):
    said = []
    if written is None:
        with pytest.raises(KeyboardInterrupt):
            stylize(options(num_iterations=number), notice=said.append, on_progress=interrupt)
    else:
        stylize(options(num_iterations=number), notice=said.append)
        assert files(tmp_path) == written
    assert [line for line in said if "will not be written, as in the original" in line] == (
        [] if number == 2 else said
    )
    assert bool(said) == (number != 2)


@pytest.mark.parametrize(("init", "count"), [("random", 1), ("image", 0)])
def test_an_init_image_that_nothing_begins_at_is_told_once(init, count):
    said = []
    stylize(options(init=init, init_image="style.png"), notice=said.append, save=False)
    assert said == count * ["-init_image style.png is not used, as in the original, without -init image"]


def interrupt(progress):
    raise KeyboardInterrupt


@pytest.mark.parametrize("option", ["-content_weight", "-style_weight", "-tv_weight", "-learning_rate"])
def test_a_number_beyond_single_precision_is_an_error_of_one_line(option, capsys):
    words = ["-model_file", str(VGG), "-image_size", "32", "-gpu", "-1", "-seed", "1"]
    words += ["-content_image", "content.png", "-style_image", "style.png", "-optimizer", "adam"]
    assert main([*words, "-num_iterations", "2", option, "1e300"], "th") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "neural_style: a weight or the learning rate is far too large: single precision ends at 3.4e38; choose a"
        " smaller one"
    )
