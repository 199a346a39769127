"""artistic_video.lua's parts, each held to its recording: flow files, warping, masks, weights, names, options, loss."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recordings import needs_shared
from video_recordings import RECORDED, SHIPPED

from legacy_style.errors import FormatError, OptionError
from legacy_style.programs.artistic_video import (
    consistency,
    flo,
    masks,
    multi_pass,
    options,
    painter,
    patterns,
    settings,
    single,
)
from legacy_style.programs.artistic_video.temporal import TemporalLoss
from legacy_style.programs.artistic_video.warp import MEAN_PIXEL_RGB, warp
from legacy_style.torch7 import image as torch_image
from legacy_style.torch7 import optim
from legacy_style.torch7.cmdline import UsageError

ROOTS = [root for root in (SHIPPED, RECORDED) if root.is_dir()]
MASKS = [path for root in ROOTS for path in sorted(root.glob("flow/reliable_*.pgm"))]


def flow_of(path):
    """The two flows that a recorded mask was made from: the one that it judges, and the opposite one."""
    one, other = path.stem.removeprefix("reliable_").split("_")
    names = [
        f"{'backward' if int(a) > int(b) else 'forward'}_{a}_{b}.flo" for a, b in ((one, other), (other, one))
    ]
    return [flo.read(str(path.with_name(name))) for name in names]


# ---- flow files


@pytest.mark.parametrize("path", [path for root in ROOTS for path in sorted(root.glob("flow/*.flo"))])
def test_a_flow_file_is_written_as_it_was_read(path, tmp_path):
    flow = flo.read(str(path))
    flo.write(str(tmp_path / "copy.flo"), flow)
    assert flow.shape == (2, 48, 64) and flow.dtype == np.float32
    assert (tmp_path / "copy.flo").read_bytes() == path.read_bytes()


def test_u_comes_before_v_row_by_row(tmp_path):
    values = np.arange(12, dtype="<f4")
    header = np.array([202021.25], "<f4").tobytes() + np.array([3, 2], "<i4").tobytes()
    (tmp_path / "a.flo").write_bytes(header + values.tobytes())
    flow = flo.read(str(tmp_path / "a.flo"))
    assert flow[0].tolist() == [[0, 2, 4], [6, 8, 10]]
    assert flow[1].tolist() == [[1, 3, 5], [7, 9, 11]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "only 0 bytes"),
        (np.array([202021.25], "<f4").tobytes() + np.array([3, 2], "<i4").tobytes() + b"1234", "3x2 pixels"),
        (np.array([202021.25], "<f4").tobytes() + np.array([-1, 2], "<i4").tobytes(), "-1x2 pixels"),
    ],
)
def test_a_broken_flow_file_is_told(data, says, tmp_path):
    (tmp_path / "a.flo").write_bytes(data)
    with pytest.raises(FormatError, match=says):
        flo.read(str(tmp_path / "a.flo"))


def test_a_missing_flow_file_is_told(tmp_path):
    with pytest.raises(OptionError, match="make the flow files first"):
        flo.read(str(tmp_path / "a.flo"))
    with pytest.raises(OptionError, match="could not be written"):
        flo.write(str(tmp_path / "nodir" / "a.flo"), np.zeros((2, 2, 2), np.float32))


# ---- masks


@pytest.mark.parametrize("path", MASKS, ids=[f"{path.parents[1].parent.name}-{path.stem}" for path in MASKS])
def test_masks_are_the_consistency_checkers_to_the_byte(path, tmp_path):
    consistency.write(str(tmp_path / "mask.pgm"), consistency.certainty(*flow_of(path)))
    assert (tmp_path / "mask.pgm").read_bytes() == path.read_bytes()


def test_a_flow_that_is_no_number_or_leaves_the_image_is_not_trusted():
    there = np.zeros((2, 20, 20), np.float32)
    there[0, 5, 5], there[1, 10, 10], there[0, 15, 15] = np.nan, np.inf, 1e30
    mask = consistency.certainty(there, np.zeros_like(there))
    assert mask[1, 1] > 250
    assert mask[5, 5] < 255 and mask[10, 10] < 255 and mask[15, 15] < 255


def test_flows_of_two_sizes_are_refused_and_thin_ones_have_no_certainty():
    with pytest.raises(OptionError, match="6x5 and 5x5"):
        consistency.certainty(np.zeros((2, 5, 6), np.float32), np.zeros((2, 5, 5), np.float32))
    assert not consistency.certainty(np.zeros((2, 1, 6), np.float32), np.zeros((2, 1, 6), np.float32)).any()


@pytest.mark.parametrize("root", ROOTS)
def test_closest_first_is_as_recorded(root):
    with np.load(root / "traces" / "v_rel12" / "arrays.npz") as arrays:
        theirs = [arrays[f"flowweights_02_{number}"] for number in (1, 2)]
    own = [masks.read(str(root / "flow" / f"reliable_3_{number}.pgm")) for number in (2, 1)]
    for one, other in zip(masks.combine(own, "closestFirst"), theirs, strict=True):
        assert np.array_equal(one[:1], other)


@needs_shared
def test_normalised_weights_are_as_recorded():
    with np.load(RECORDED / "traces" / "v_rel12_norm" / "arrays.npz") as arrays:
        theirs = [arrays[f"flowweights_03_{number}"] for number in (1, 2)]
    own = [masks.read(str(RECORDED / "flow" / f"reliable_4_{number}.pgm")) for number in (3, 2)]
    for one, other in zip(masks.combine(own, "normalize"), theirs, strict=True):
        assert np.array_equal(one[:1], other)


def test_three_weights_leave_to_each_what_the_nearer_ones_left():
    weights = [np.full((1, 1, 1), value, np.float32) for value in (0.5, 0.75, 1.0)]
    assert [each.item() for each in masks.combine(weights, "closestFirst")] == [0.5, 0.25, 0.25]
    assert [each.item() for each in masks.combine(weights, "none")] == [0.5, 0.75, 1.0]
    assert [each.item() for each in masks.combine(weights[:1], "normalize")] == [0.5]
    assert masks.combine(weights, "normalize")[2].item() == pytest.approx(1 / 2.25)


def test_inverted_weights_are_one_minus_the_mask():
    path = str(SHIPPED / "flow" / "reliable_2_1.pgm")
    assert np.array_equal(masks.read(path, invert=True), 1 - masks.read(path))


# ---- warping


@needs_shared
def test_warping_is_as_recorded_to_the_last_bit():
    with np.load(RECORDED / "traces" / "v_base" / "arrays.npz") as arrays:
        theirs = arrays["warp_01"]
    image = torch_image.load(RECORDED / "runs" / "v_base" / "files" / "out-1.png")
    assert np.array_equal(warp(image, flo.read(str(RECORDED / "flow" / "backward_2_1.flo"))), theirs)


def test_a_warped_pixel_is_where_the_flow_points_and_the_mean_where_it_leaves():
    image = np.arange(60, dtype=np.float64).reshape(3, 4, 5)
    flow = np.zeros((2, 4, 5), np.float32)
    flow[0], flow[1] = 1, 0.5
    moved = warp(image, flow)
    assert moved[0, 0, 0] == (image[0, 0, 1] + image[0, 1, 1]) / 2
    assert moved[:, 0, 4].tolist() == list(MEAN_PIXEL_RGB)  # column 5 is outside
    assert moved[:, 3, 0].tolist() == list(MEAN_PIXEL_RGB)  # row 3.5 is outside
    at_border = warp(image, flow, "border")
    assert at_border[0, 0, 4] == (image[0, 0, 4] + image[0, 1, 4]) / 2
    assert at_border[0, 3, 0] == image[0, 3, 1]


def test_a_flow_of_another_size_is_refused():
    with pytest.raises(OptionError, match="the flow is 5x4 pixels, the image 6x4"):
        warp(np.zeros((3, 4, 6)), np.zeros((2, 4, 5), np.float32))


@pytest.mark.parametrize("weight", [math.inf, 1e300, 1e308])
def test_blending_weights_without_end_make_no_lines_of_numpys(weight, tmp_path):
    torch_image.save(tmp_path / "out.png", np.full((3, 4, 6), 0.5))
    output = SimpleNamespace(name=lambda frame, number: str(tmp_path / "out.png"))
    settings = SimpleNamespace(blend=weight, blend_last_pass=weight)
    passes = SimpleNamespace(settings=settings, common=SimpleNamespace(output=output))
    weights = np.tile(np.float32([0, 0.5]), (3, 4, 3))
    neighbour = multi_pass.Neighbour(np.full((3, 4, 6), 0.5), lambda: weights)
    blended = multi_pass.Passes.blended(passes, 2, 2, neighbour, neighbour)
    assert blended.shape == (3, 4, 6)


@pytest.mark.parametrize("scale", [1e308, math.inf, math.nan, 0.0, -1.0])
def test_a_style_image_that_cannot_be_made_is_refused(scale):
    assert painter.style_size(10, 20, 800, 0.5) == (20, 10)
    with pytest.raises(OptionError, match=r"a style image cannot be made .* times as large"):
        painter.style_size(10, 20, 200, scale)


def test_a_flow_of_another_size_than_the_frames_is_named(tmp_path):
    flo.write(str(tmp_path / "backward_2_1.flo"), np.zeros((2, 4, 5), np.float32))
    told = []
    with pytest.raises(OptionError, match=r"backward_2_1\.flo: the flow is 5x4 pixels, the frame 6x4; make"):
        single.read_flow(
            f"{tmp_path}/backward_[%d]_{{%d}}.flo",
            1,
            2,
            "-flow_pattern",
            "flow",
            told.append,
            like=np.zeros((3, 4, 6)),
        )
    assert told == [f'Reading flow file "{tmp_path}/backward_2_1.flo".\t']


# ---- the temporal loss


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    x, target = (torch.randn((1, 3, 4, 5), generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    weights = torch.rand((1, 4, 5), generator=generator, dtype=torch.float64)
    return x, target[0], weights


def evaluate(loss, x, parts=(((0, 4), (0, 5)),)):
    """Value and gradient of an image loss, in one piece or in rectangles."""

    def cut(image, where):
        (top, bottom), (left, right) = where
        return image[:, :, top:bottom, left:right]

    grad = torch.zeros_like(x)
    loss.begin()
    for where in parts:
        loss.accumulate(cut(x, where), where)
    assert not loss.finish(loss.sums())
    for where in parts:
        loss.backward(cut(x, where), cut(grad, where), where)
    return float(loss.value), grad


@pytest.mark.parametrize("criterion", ["mse", "smoothl1"])
def test_the_temporal_loss_and_its_gradient_without_the_last_factor(images, criterion):
    x, target, weights = images
    found, grad = evaluate(TemporalLoss("temporal 1", target, weights, strength=10.0, criterion=criterion), x)
    roots = weights.sqrt()
    held = (x * roots).requires_grad_()
    functions = {"mse": torch.nn.functional.mse_loss, "smoothl1": torch.nn.functional.smooth_l1_loss}
    value = 10 * functions[criterion](held, (target * roots).unsqueeze(0))
    value.backward()
    assert found == pytest.approx(value.item(), rel=1e-12)
    # The derivative by sqrt(w) x, where that by x would have the factor sqrt(w) once more.
    torch.testing.assert_close(grad, held.grad, rtol=1e-12, atol=1e-14)


def test_a_normalised_temporal_gradient_has_the_strength_as_its_l1_norm(images):
    x, target, weights = images
    _, grad = evaluate(TemporalLoss("temporal 1", target, weights, strength=7.0, normalize=True), x)
    assert grad.abs().sum().item() == pytest.approx(7.0, rel=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_temporal_loss_in_rectangles_is_that_in_one_piece(images, normalize):
    x, target, weights = images
    parts = [((0, 3), (0, 5)), ((3, 4), (0, 2)), ((3, 4), (2, 5))]
    whole, cut = (
        evaluate(TemporalLoss("temporal 1", target, weights, strength=3.0, normalize=normalize), x, each)
        for each in ([((0, 4), (0, 5))], parts)
    )
    assert cut[0] == pytest.approx(whole[0], rel=1e-12)
    torch.testing.assert_close(cut[1], whole[1], rtol=1e-12, atol=1e-14)


# ---- names


def test_flow_names_hold_the_earlier_frame_in_braces_and_the_current_one_in_brackets():
    assert patterns.between("backward_[%d]_{%d}.flo", 1, 2, "-flow_pattern") == "backward_2_1.flo"
    assert patterns.between("{%02d}/[%d]-{%d}", 3, 7, "-flow_pattern") == "03/7-3"
    assert patterns.between("plain.flo", 3, 7, "-flow_pattern") == "plain.flo"


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("f_%04d.ppm", "f_0012.ppm"),
        ("%d%%", "12%"),
        ("%5.3i|", "  012|"),
        ("%x", "c"),
        ("a", "a"),
        ("%s", "12"),
    ],
)
def test_numbers_are_formatted_as_lua_does(pattern, name):
    assert patterns.number(pattern, 12, "-content_pattern") == name


@pytest.mark.parametrize("pattern", ["%d_%d", "%", "%y", "100% %d"])
def test_a_pattern_that_lua_would_refuse_is_refused(pattern):
    with pytest.raises(OptionError, match="-content_pattern"):
        patterns.number(pattern, 12, "-content_pattern")


@pytest.mark.parametrize(
    ("folder", "image", "suffixes", "name"),
    [
        ("", "out.png", (), "out-1.png"),
        ("outf/", "sty.le.png", (100,), "outf/sty.le-1_100.png"),
        ("outf/pre", "some/where/x.jpg", (), "outf/prex-1.jpg"),
    ],
)
def test_outputs_are_named_as_the_original_named_them(folder, image, suffixes, name):
    assert patterns.output(folder, image, "1", *suffixes) == name


# ---- options


def parse(*words, script=options.SINGLE):
    said = []
    parsed = options.parse(script, words, said.append)
    assert parsed is not None
    return parsed, said


def test_an_args_file_comes_first_and_the_command_line_wins(tmp_path):
    path = tmp_path / "args.txt"
    path.write_text("-num_images 2\n# -seed 5\nnothing\n-output_image my out.png\n-save_init\n-seed 3\r\n")
    (values, given), said = parse("-num_images", "4", "-args", str(path))
    assert (values["num_images"], values["output_image"], values["save_init"]) == (4, "my out.png", True)
    assert values["seed"] == 3 and "seed" in given and "print_iter" not in given and not said


def test_a_missing_args_file_is_ignored_but_told(tmp_path):
    assert parse("-args", str(tmp_path / "nope"))[1] == [
        f"-args {tmp_path / 'nope'}: No such file or directory; going on without it"
    ]


def test_lists_of_two_and_what_is_too_much():
    plan = settings.single(*parse("-num_iterations", "5,4,3", "-init", "image")[0])
    assert plan.iterations == (5, 4) and plan.inits == ("image", "image")
    with pytest.raises(UsageError, match="invalid type for option -num_iterations"):
        parse("-num_iterations", "3,2", script=options.MULTI_PASS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-num_iterations", "many"], "'many' is no number"),
        (["-init", "random,foo"], "Invalid initialization method 'foo'"),
        (["-init", "prevWarped"], "the first frame has no predecessor"),
        (["-init", "random,first", "-continue_with", "2"], "-init first needs the first frame"),
        (["-optimizer", "sgd"], 'Unrecognized optimizer "sgd"'),
        (["-flow_relative_indices", "1,x"], "-flow_relative_indices"),
        (["-flow_relative_indices", "0"], "-flow_relative_indices"),
        (["-num_images", "2.5"], "-num_images takes a whole number"),
        (["-continue_with", "0"], "-continue_with takes a whole number of 1 or more"),
        (["-style_image", "a.png,,b.png"], "empty element"),
        (["-style_blend_weights", "1,3"], "must have the same number of elements"),
        (["-style_blend_weights", "0"], "which nothing can be divided by"),
        (["-output_image", "out.gif"], "unknown image type: gif"),
        (["-output_folder", "nodir/"], "nodir does not exist"),
        (["-content_pattern", "%d_%d.png"], "-content_pattern"),
        (["-flow_pattern", "[%y]"], "-flow_pattern"),
        (["-number_format", "%q"], "-number_format"),
        (["-style_scale", "0"], "-style_scale"),
    ],
)
def test_what_can_be_known_is_told_before_anything_is_loaded(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=says):
        settings.single(*parse(*words)[0])


@pytest.mark.parametrize(
    ("words", "frame", "expected"),
    [
        ([], 5, [4]),
        (["-flow_relative_indices", "1,2,4"], 4, [3, 2]),
        (["-use_flow_every", "2"], 7, [6, 5, 3, 1]),
        (["-use_flow_every", "inf"], 7, [6]),
        (["-use_flow_every", "nan"], 7, [6]),
        (["-flow_relative_indices", "4", "-use_flow_every", "2"], 5, [3, 1]),
    ],
)
def test_predecessors_come_nearest_first_and_once(words, frame, expected):
    assert single.predecessors(settings.single(*parse(*words)[0]), frame) == expected


def test_a_pattern_without_a_number_cannot_be_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = settings.single(*parse("-content_pattern", "one.png")[0])
    with pytest.raises(OptionError, match="names the same file for every frame"):
        single.detect(plan.common, lambda line: None)


# ---- the relative stop


def quadratic(x):
    return float(x @ x), 2 * x


def test_lbfgs_stops_by_the_relative_change_after_two_intervals():
    said = []
    x = torch.ones(4, dtype=torch.float64)
    values = optim.lbfgs(
        lambda x: (quadratic(x)[0] + 1.0, quadratic(x)[1]),
        x,
        max_iter=100,
        tol_fun=-1,
        tol_x=-1,
        tol_relative=0.9,
        tol_relative_interval=2,
        log=said.append,
    )
    assert len(values) == 5  # the first evaluation, and two intervals of two iterations
    assert said[-1] == "<optim.lbfgs> \trelative change in function value is less than tolFunRelative\t"


def test_lbfgs_goes_on_where_the_change_is_as_large_as_allowed():
    x = torch.full((4,), 1e3, dtype=torch.float64)
    values = optim.lbfgs(
        quadratic, x, max_iter=6, tol_fun=-1, tol_x=-1, tol_relative=0.0, tol_relative_interval=1
    )
    assert len(values) == 6
