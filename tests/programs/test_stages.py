"""--stages: one command for what took a chain of them, through files or in floating point."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from thin_options import thin_options

from legacy_style import Options
from legacy_style.errors import OptionError
from legacy_style.programs.neural_style import stages
from legacy_style.programs.neural_style.options import parse
from legacy_style.programs.neural_style.record import read
from legacy_style.programs.neural_style.story import plan, stylize
from legacy_style.torch7.image import scale_to

pytestmark = pytest.mark.usefixtures("two_images")

STAGES = "20:6,28:4:style_scale=0.75,36:3:optimizer=adam:tile=32"


def bytes_of(*names):
    found = []
    for name in names:
        with Image.open(name) as image:
            found.append(image.tobytes())
    return found


def pictures(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if path.name not in ("content.png", "style.png"))


def test_stages_through_files_are_the_chain_of_commands_pixel_for_pixel():
    stylize(thin_options(stages=STAGES, stages_through_files=True, save_iter=2.0, output_image="out.png"))
    stylize(thin_options(image_size=20.0, num_iterations=6.0, save_iter=2.0, output_image="a.png"))
    from_a = {"init": "image", "init_image": "a.png"}
    stylize(
        thin_options(image_size=28.0, num_iterations=4.0, style_scale=0.75, output_image="b.png", **from_a)
    )
    last = {"image_size": 36.0, "num_iterations": 3.0, "optimizer": "adam", "tile": 32}
    stylize(thin_options(init="image", init_image="b.png", output_image="c.png", **last))
    assert bytes_of("out_stage1.png", "out_stage2.png", "out.png") == bytes_of("a.png", "b.png", "c.png")
    assert bytes_of("out_stage1_2.png", "out_stage1_4.png") == bytes_of("a_2.png", "a_4.png")


def test_names_and_notices_say_the_stage(tmp_path):
    notices = []
    stylize(thin_options(stages="20:4,28:3", save_iter=2.0), notice=notices.append)
    assert pictures(tmp_path) == ["out.png", "out_stage1.png", "out_stage1_2.png", "out_stage2_2.png"]
    assert notices == ["Stage 1 of 2: 20 pixels", "Stage 2 of 2: 28 pixels"]


def test_a_stage_starts_from_the_enlarged_image_in_floating_point():
    small = stylize(thin_options(image_size=20.0, num_iterations=5.0), save=False)
    # The image of the first evaluation is the start.
    result = stylize(thin_options(stages="20:5,32:1"), save=False)
    wanted = scale_to(small.image, result.image.shape[2], result.image.shape[1])
    np.testing.assert_allclose(result.image, wanted, rtol=0, atol=1e-6)
    assert np.abs(result.image * 255 - np.rint(result.image * 255)).max() > 0.4  # no bytes
    assert len(result.losses) == 6 and result.losses[:5] == small.losses


def test_original_colors_are_those_of_the_result_and_not_of_what_goes_on():
    plain = stylize(thin_options(stages="20:3,28:1"), save=False)
    recolored = stylize(thin_options(stages="20:3,28:1", original_colors=1.0), save=False)
    assert plain.losses == recolored.losses
    assert not np.allclose(plain.image, recolored.image)


class Killed(Exception):
    pass


def run_until(iteration, error, **given):
    """A run that `error` ends after an iteration, counted over all stages."""

    def on_progress(progress):
        if progress.iteration == iteration:
            raise error

    saved = []
    with pytest.raises(type(error)):
        stylize(thin_options(**given), on_progress=on_progress, on_saved=saved.append)
    return saved


@pytest.mark.parametrize("through_files", [False, True])
@pytest.mark.parametrize(("iteration", "begun"), [(4, 1), (9, 2), (12, 2)])
def test_a_killed_run_goes_on_in_its_stage(iteration, begun, through_files):
    given = {"stages": STAGES, "stages_through_files": through_files, "save_iter": 2.0}
    whole = stylize(thin_options(output_image="whole.png", **given))
    run_until(iteration, Killed(), checkpoint="state", **given)
    notices = []
    resumed = stylize(thin_options(resume="state", checkpoint="state", **given), notice=notices.append)
    # The checkpoint of an iteration is written after what the program does for it, so the one before it counts.
    assert notices[0].startswith(f"Stage {begun} of 3")
    assert bytes_of("out.png") == bytes_of("whole.png")
    np.testing.assert_array_equal(resumed.image, whole.image)


def test_an_interrupted_run_says_its_stage_and_goes_on_in_it():
    whole = stylize(thin_options(stages="20:4,28:4", output_image="whole.png"))
    given = {"stages": "20:4,28:4", "checkpoint": "state"}
    assert run_until(7, KeyboardInterrupt(), **given) == ["out_stage1.png", "./out_stage2_3.png"]
    resumed = stylize(thin_options(resume="state", **given))
    np.testing.assert_array_equal(resumed.image, whole.image)
    with pytest.raises(OptionError, match=r"-stages was '20:4,28:4' and is '20:4,28:5'"):
        stylize(thin_options(resume="state", stages="20:4,28:5"))
    with pytest.raises(OptionError, match=r"-stages was '20:4,28:4' and is ''"):
        stylize(thin_options(resume="state", image_size=20.0, num_iterations=4.0))


def test_progress_counts_all_stages_and_a_stop_ends_the_run_with_its_picture(tmp_path):
    seen = []

    def on_progress(progress):
        seen.append((progress.iteration, progress.num_iterations))
        return progress.iteration == 6

    result = stylize(thin_options(stages="20:4,28:4,36:2", save_iter=0.0), on_progress=on_progress)
    assert seen == [(number, 10) for number in range(1, 7)]
    assert result.stopped and len(result.losses) == 6
    assert pictures(tmp_path) == ["out.png", "out_stage1.png"]
    with Image.open("out.png") as image:
        assert max(image.size) == 28


def test_the_record_has_the_command_and_the_losses_of_all_stages():
    stylize(thin_options(stages="20:4,28:3", metadata=True, init="image"))
    record = read("out.png")
    assert "--stages 20:4,28:3" in " ".join(record["command"])
    assert len(record["losses"]["total"]) == 7 and list(record["inputs"]) == ["content.png", "style.png"]


def test_a_plan_is_made_for_each_stage(tmp_path):
    text = plan(thin_options(stages="20:4,48:3"))
    assert "stage    1 of 2\nimage    20x" in text and "stage    2 of 2\nimage    48x" in text
    assert pictures(tmp_path) == []


# What is written.


def split(text, *words):
    command = parse(["--stages", text, *words])
    return [(each.image_size, each.num_iterations) for each in stages.split(command.options)]


def test_sizes_alone_take_sensible_numbers():
    assert split("256,512,1024,2048") == [(256, 300), (512, 150), (1024, 75), (2048, 50)]
    assert split("256,512,1024", "-num_iterations", "1000") == [(256, 1000), (512, 500), (1024, 250)]
    assert split("256:20,512,1024:7") == [(256, 20), (512, 20), (1024, 7)]


def test_a_stage_s_own_options_are_its_alone():
    first, second, third = stages.split(Options(stages=STAGES, learning_rate=3.0))
    assert [each.style_scale for each in (first, second, third)] == [1.0, 0.75, 1.0]
    assert [each.optimizer for each in (first, second, third)] == ["lbfgs", "lbfgs", "adam"]
    assert [each.tile for each in (first, second, third)] == [0, 0, 32]
    assert {each.learning_rate for each in (first, second, third)} == {3.0}
    assert [each.init for each in (first, second, third)] == ["random", "image", "image"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("big:3", "--stages big:3: 'big' is not a size; give for example 256:300"),
        ("0:3", "'0' is not a size"),
        ("256:", "'' is not a number of iterations"),
        ("256:2.5", "'2.5' is not a number of iterations of 1 or more"),
        ("256:10:seed=3", "'seed=3' is no option of a stage; these are: style_scale, tile"),
        ("256:10:tile", "'tile' is no option of a stage"),
        ("256:10:tile=x", "'x' is not tile"),
        ("256:10:precision=half", "--precision takes float32, tf32 or bfloat16, not 'half'"),
    ],
)
def test_what_is_no_stage_is_refused_before_anything_is_loaded(text, message):
    with pytest.raises(OptionError, match=message.replace("(", "\\(")):
        stylize(thin_options(stages=text, model_file="none"))


def test_options_that_stages_replace_are_refused():
    with pytest.raises(OptionError, match="--stages names the sizes: leave -image_size out"):
        stages.split(parse(["--stages", "256", "-image_size", "512"]).options)
    with pytest.raises(OptionError, match="--stages-through-files belongs to --stages"):
        stages.split(parse(["--stages-through-files"]).options)
    with pytest.raises(OptionError, match="stages take whole numbers"):
        stages.split(parse(["--stages", "256", "-num_iterations", "2.5"]).options)
