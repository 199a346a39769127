"""The paper's experiments: losses and gradients by the printed formulas, autograd and finite differences."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torch.nn.functional as F
from athalye_recordings import NETWORK
from PIL import Image

from legacy_style.cli import paper as cli
from legacy_style.cli import watching
from legacy_style.engine import loadcaffe
from legacy_style.engine.loadcaffe import Module
from legacy_style.errors import DivergenceError, FormatError, OptionError
from legacy_style.formats import model_files
from legacy_style.programs.paper import experiments as paper
from legacy_style.torch7 import nn

TERMS = {
    "content": paper.Terms(content=("conv4_2",)),
    "contents": paper.Terms(content=("conv1_1", "conv3_1"), alpha=0.5),
    "style": paper.Terms(style=("conv1_1", "conv2_1", "conv3_1"), beta=3.0),
    "both": paper.Terms(("conv4_2",), paper.LAYERS, alpha=1e-3),
}


@pytest.fixture(scope="module")
def chain():
    return loadcaffe.modules(model_files.load(NETWORK))[0]


def images(height=21, width=26):
    """Content, style and x in float64; odd sizes, so that pooling reaches over the border."""
    generator = torch.Generator().manual_seed(3)
    return [60 * torch.randn(1, 3, height, width, generator=generator, dtype=torch.float64) for _ in range(3)]


def responses(x):
    """conv1_1 to conv5_1 behind their ReLUs, of the weights as SciPy reads them, with average pooling."""
    found = {}
    for entry in scipy.io.loadmat(NETWORK)["layers"][0]:
        layer = entry[0, 0]
        name, kind = layer["name"][0], layer["type"][0]
        if kind == "conv" and name.startswith("conv"):
            kernel, bias = layer["weights"][0]
            weight = torch.from_numpy(kernel.astype(np.float64)).permute(3, 2, 0, 1)
            if name == "conv1_1":
                weight = weight.flip(1)  # the file wants red first
            x = F.relu(F.conv2d(x, weight, torch.from_numpy(bias.astype(np.float64)).flatten(), padding=1))
            found[name] = x
        elif kind == "pool":
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        if name == "conv5_1":
            return found
    raise AssertionError("no conv5_1")


def formula(terms, content, style, x):
    """Equations 1, 4, 5 and 7, with unnormalised Gram matrices (eq. 3)."""
    of_content, of_style, of_x = responses(content), responses(style), responses(x)
    total = torch.zeros((), dtype=torch.float64)
    for name in terms.content:
        total = total + terms.alpha * (of_x[name] - of_content[name]).square().sum() / 2
    for name in terms.style:
        flat, goal = of_x[name].flatten(2)[0], of_style[name].flatten(2)[0]
        maps, positions = flat.shape
        squares = (flat @ flat.T - goal @ goal.T).square().sum()
        total = total + terms.beta / len(terms.style) * squares / (4 * maps**2 * positions**2)
    return total


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_losses_and_gradients_are_the_formulas(chain, terms):
    content, style, x = images()
    objective = paper.build(chain, terms, content, style, torch.float64)
    x.requires_grad_()
    expected = formula(terms, content, style, x)
    expected.backward()
    values, grad = objective(x.detach())
    assert sum(values.values()) == pytest.approx(expected.item(), rel=1e-11)
    torch.testing.assert_close(grad, x.grad, rtol=1e-8, atol=1e-9 * x.grad.abs().max().item())


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_gradients_agree_with_finite_differences(chain, terms):
    content, style, x = images()
    objective = paper.build(chain, terms, content, style, torch.float64)
    grad = objective(x)[1]
    generator = torch.Generator().manual_seed(8)
    for _ in range(4):
        direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        ends = [objective(x + sign * 1e-5 * direction) for sign in (1, -1)]
        above, below = (sum(values.values()) for values, _ in ends)
        slope = (grad * direction).sum().item()
        assert (above - below) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_gradients_are_printed_so_and_zero_where_f_is():
    """With a convolution that changes nothing, the gradient is that with respect to the responses."""
    identity = torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1)
    one_layer = [
        Module("conv1_1", "Convolution", lambda: nn.SpatialConvolution("conv1_1", identity.clone(), None)),
        Module("relu1_1", "ReLU", lambda: nn.ReLU("relu1_1")),
    ]
    content, style, x = images(5, 4)
    x[0, :, 0, 0] = 0
    f, p, a = (image.clamp(min=0) for image in (x, content, style))
    grad = paper.build(one_layer, paper.Terms(("conv1_1",)), content, None, torch.float64)(x)[1]
    torch.testing.assert_close(grad, torch.where(f > 0, f - p, 0.0), rtol=1e-12, atol=1e-12)

    grad = paper.build(one_layer, paper.Terms(style=("conv1_1",)), None, style, torch.float64)(x)[1]
    flat, goal = f.flatten(2)[0], a.flatten(2)[0]
    printed = (flat.T @ (flat @ flat.T - goal @ goal.T)).T / (3**2 * 20**2)
    torch.testing.assert_close(grad, torch.where(f > 0, printed.view(x.shape), 0.0), rtol=1e-10, atol=1e-10)
    assert (grad[f == 0] == 0).all() and (f == 0).sum() > 20


def test_float32_is_near_float64(chain):
    content, style, x = images()
    exact = paper.build(chain, TERMS["both"], content, style, torch.float64)(x)
    rough = paper.build(chain, TERMS["both"], content.float(), style.float())(x.float())
    assert rough[0] == {name: pytest.approx(value, rel=1e-5) for name, value in exact[0].items()}
    assert rough[1].dtype == torch.float32 and exact[1].dtype == torch.float64


def test_lbfgs_lowers_the_loss_and_returns_its_best_image(chain):
    content, style, _ = (image.float() for image in images())
    objective = paper.build(chain, TERMS["both"], content, style)
    start = paper.white_noise((26, 21), 5)
    before = start.clone()
    found = paper.minimise(objective, start, 15)
    best, losses = found.image, found.losses
    assert not found.stopped
    torch.testing.assert_close(start, before, rtol=0, atol=0)
    assert 15 <= len(losses) <= 19 and min(losses) < losses[0] / 10
    values, _ = objective(best)
    assert sum(values.values()) == pytest.approx(min(losses), rel=1e-6)


@pytest.mark.parametrize("iterations", [3, 20])
def test_the_share_of_a_descent_that_is_done_grows_to_its_whole(chain, iterations):
    content, style, _ = (image.float() for image in images())
    objective, shares = paper.build(chain, TERMS["both"], content, style), []
    paper.minimise(
        objective, paper.white_noise((26, 21), 5), iterations, lambda *told: shares.append(told[-1])
    )
    assert shares == sorted(shares)
    assert 0 < shares[0] <= 1 / iterations
    assert 1 - 1 / iterations <= shares[-1] <= 1


def test_the_work_of_a_sheet_is_that_of_its_images_layers(words, monkeypatch):
    told = []
    monkeypatch.setattr(watching.Show, "follow", lambda show, step: told.append(step.work))
    assert (
        cli.main(["reconstruct", "--content", "content.png", "--content-from", "conv1_1", "conv3_1", *words])
        == 0
    )
    first, second = ([work.done for work in told if work.part == (number,)] for number in (0, 1))
    total = told[0].total
    assert first + second == sorted(first + second)
    assert first[-1] < second[0] and second[-1] > 0.9 * total
    # Of VGG-16's convolutions up to relu1_1 and relu3_1, both for 24x16 pixels: the deeper takes most of the time.
    assert first[-1] < 0.2 * total


def test_a_loss_that_is_not_finite_is_an_error(chain):
    content, style, _ = (image.float() for image in images())
    objective = paper.build(chain, TERMS["both"], content, style)
    with pytest.raises(DivergenceError, match="not finite at evaluation 1"):
        paper.minimise(objective, content * float("nan"), 3)


def test_white_noise_is_repeated_by_a_seed():
    assert paper.white_noise((5, 4), 1).shape == (1, 3, 4, 5)
    torch.testing.assert_close(paper.white_noise((5, 4), 1), paper.white_noise((5, 4), 1), rtol=0, atol=0)
    assert not torch.equal(paper.white_noise((5, 4), None), paper.white_noise((5, 4), None))


def test_images_are_scaled_or_cut_and_come_back(tmp_path):
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (30, 60, 3), np.uint8))
    picture.save(tmp_path / "a.png")
    assert paper.load(str(tmp_path / "a.png"), 20).size == (20, 10)
    cut = paper.load(str(tmp_path / "a.png"), (10, 10))
    assert cut.size == (10, 10)
    np.testing.assert_array_equal(np.array(paper.to_image(paper.to_network(cut))), np.array(cut))
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(FormatError, match=r"text\.png: not an image"):
        paper.load(str(tmp_path / "text.png"), 20)


def test_a_large_photograph_is_scaled_as_it_was_decoded(tmp_path):
    Image.new("RGB", (1600, 1200), (10, 20, 30)).save(tmp_path / "large.png")  # in a small file
    tracemalloc.start()
    try:
        assert paper.load(str(tmp_path / "large.png"), 64).size == (64, 48)
        peak = tracemalloc.get_traced_memory()[1]  # without what Pillow itself holds
    finally:
        tracemalloc.stop()
    assert peak < 1600 * 1200


def test_style_layers_grow():
    assert paper.up_to("conv1_1") == [("conv1_1",)]
    assert paper.up_to("conv3_1")[-1] == ("conv1_1", "conv2_1", "conv3_1")
    assert len(paper.up_to("conv5_1")) == 5
    with pytest.raises(OptionError, match="conv4_2"):
        paper.up_to("conv4_2")


# ---- the commands


@pytest.fixture
def words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.RandomState(0)
    for name in ("content.png", "style.png"):
        Image.fromarray(random.randint(0, 256, (20, 30, 3), np.uint8)).save(name)
    return f"--network {NETWORK} --image-size 24 --iterations 2 --seed 1".split()


def sheet(name):
    with Image.open(name) as picture:
        return picture.size, np.array(picture.convert("RGB"))


def test_reconstruct_draws_figure_1(words, capsys):
    command = [
        "reconstruct",
        "--content",
        "content.png",
        "--style",
        "style.png",
        "--output",
        "sheet.png",
        *words,
    ]
    more = ["--content-from", "conv1_1", "conv2_1,conv3_1", "--style-up-to", "conv2_1"]
    assert cli.main([*command, *more]) == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["a  conv1_1", "b  conv2_1", "c  conv3_1", "a  conv1_1", "b  conv1_1 to 2_1"]
    (_, height), pixels = sheet("sheet.png")
    assert height == 6 + 2 * (16 + 20 + 6)
    # The first image is the content itself, scaled; beside it, labels and images that are not white.
    np.testing.assert_array_equal(pixels[6:22, 6:30], np.array(paper.load("content.png", 24)))
    assert (pixels[22:42] < 128).any()


def test_reconstruct_of_one_image_has_one_row(words, capsys):
    assert cli.main(["reconstruct", "--style", "style.png", *words]) == 0
    assert sheet("paper.png")[0][1] == 6 + 16 + 20 + 6
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_matrix_draws_figure_3(words, capsys):
    command = [
        "matrix",
        "-content_image",
        "content.png",
        "-style_image",
        "style.png",
        "-output_image",
        "m.jpg",
        *words,
    ]
    assert cli.main([*command, "--style-up-to", "conv2_1", "--ratios", "1e-5", "1e-2"]) == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [
        f"{row}, alpha/beta {ratio}" for row in ("A  conv1_1", "B  conv2_1") for ratio in ("1e-05", "0.01")
    ]
    assert sheet("m.jpg")[0][1] == 6 + 3 * (16 + 20 + 6)


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("reconstruct", 1, "--content, --style or both"),
        ("reconstruct --style style.png --content-from conv1_1", 1, "--content-from needs --content"),
        ("reconstruct --content content.png --content-from conv9_1", 1, "'conv9_1' is no layer"),
        ("reconstruct --content content.png --content-from pool1", 1, "'pool1' is no layer"),
        ("reconstruct --style style.png --style-up-to conv4_2", 1, "conv4_2"),
        ("reconstruct --style none.png", 1, "none.png"),
        ("reconstruct --style style.png --output sheet.xyz", 1, "image format"),
        ("reconstruct --style style.png --image-size 0", 1, "at least 1"),
        ("matrix --style style.png", 2, "--content"),
        ("matrix --style style.png --content content.png --ratios 1e-3 -1", 1, "--ratios must be"),
        ("matrix --style style.png --content content.png --ratios nan", 1, "--ratios must be"),
        ("matrix --style style.png --content content.png --ratios 1e300", 1, "--ratios must be"),
        ("", 2, "usage"),
    ],
)
def test_errors_are_sentences(command, status, message, words, capsys):
    command = command.split()
    assert cli.main([*command[:1], *words, *command[1:]] if command else []) == status
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


def test_interrupted_command_saves_what_is_done(words, monkeypatch, capsys):
    minimise, calls = paper.minimise, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return minimise(*arguments)

    monkeypatch.setattr(paper, "minimise", interrupted)
    assert cli.main(["reconstruct", "--content", "content.png", *words]) == 130
    assert "paper.png" in capsys.readouterr().err
    assert sheet("paper.png")[0][1] == 6 + 16 + 20 + 6


# ---- tiles, the plan, checkpoints


def test_tiles_are_one_piece(chain):
    content, style, x = images(70, 90)
    for terms in TERMS.values():
        whole = paper.build(chain, terms, content, style, torch.float64)(x)
        tiled = paper.build(chain, terms, content, style, torch.float64, tile=32)(x)
        assert tiled[0] == {name: pytest.approx(value, rel=1e-10) for name, value in whole[0].items()}
        torch.testing.assert_close(tiled[1], whole[1], rtol=1e-8, atol=1e-10 * whole[1].abs().max().item())


def test_the_plan_is_printed_and_nothing_is_written(words, tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    line = ["reconstruct", "--content", "content.png", *words, "--print-plan"]
    assert cli.main(line) == 0
    out, err = capsys.readouterr()
    assert out.startswith("image    24x16\n") and "L-BFGS's correction pairs" in out and err == ""
    assert cli.main([*line, "--tile", "16"]) == 0
    assert "tiles of 16 pixels" in capsys.readouterr().out
    assert sorted(tmp_path.iterdir()) == before


FIGURE = ["matrix", "--content", "content.png", "--style", "style.png", "--style-up-to", "conv2_1"]


@pytest.mark.parametrize("more", [[], ["--tile", "16"]])
def test_killed_and_resumed_is_uninterrupted(more, words, tmp_path, monkeypatch, capsys):
    words = [
        *FIGURE,
        *words[:-2],
        *more,
        "--checkpoint",
        "state",
    ]  # without a seed: the noise is in the state
    minimise, calls = paper.minimise, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 6:
            raise MemoryError  # in the midst of the sixth of eight images
        return minimise(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(paper, "minimise", killed)
        assert cli.main(words) == 1
    assert not (tmp_path / "paper.png").exists()
    first = capsys.readouterr().out
    noise = torch.load(tmp_path / "state", weights_only=True)["x"]
    assert cli.main([*words, "--resume", "state", "--plot", "resumed.svg"]) == 0
    resumed, rest = (tmp_path / "paper.png").read_bytes(), capsys.readouterr().out
    assert (len(first.splitlines()), len(rest.splitlines())) == (5, 3)
    monkeypatch.setattr(paper, "white_noise", lambda size, seed: noise)
    assert cli.main([*words, "--plot", "whole.svg"]) == 0
    assert (tmp_path / "paper.png").read_bytes() == resumed
    assert capsys.readouterr().out == first + rest
    whole = (tmp_path / "whole.svg").read_bytes()
    assert (tmp_path / "resumed.svg").read_bytes() == whole
    assert cli.main([*words, "--resume", "state", "--plot", "again.svg"]) == 0  # with nothing left to do
    assert (tmp_path / "again.svg").read_bytes() == whole


def test_another_run_s_checkpoint_is_refused(words, capsys):
    assert cli.main([*FIGURE, *words, "--ratios", "1e-3", "--checkpoint", "state"]) == 0
    assert cli.main([*FIGURE, *words, "--ratios", "1e-4", "--resume", "state"]) == 1
    assert "--ratios was '[0.001]' and is '[0.0001]'" in capsys.readouterr().err
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("style.png")
    assert cli.main([*FIGURE, *words, "--ratios", "1e-3", "--resume", "state"]) == 1
    assert "the images changed" in capsys.readouterr().err


def test_a_shortened_option_means_what_it_meant(words, capsys):
    line = [*FIGURE, *words, "--r", "1e-3", "--i", "1"]
    assert cli.main(line) == 2  # --i is short for two
    assert "ambiguous" in capsys.readouterr().err
    assert cli.main([*line[:-2], "--it", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_help_comes_from_the_module():
    command = [sys.executable, "-m", "legacy_style.paper", "--help"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "reconstruct" in done.stdout and done.stderr == ""
