"""Running manifests: the original's recordings, deliberately broken ports, and what can stand in the way."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_cases import (
    recorded_row,
    run_recorded,
    silent,
    write_network,
    write_picture,
)
from PIL import Image
from recordings import needs_shared

import legacy_style.programs.neural_style.story as stylize
from legacy_style.compare import making, rows, runner
from legacy_style.compare.manifest import File, Manifest, Row, Tolerances
from legacy_style.compare.rows import Files, RunSettings, Tick
from legacy_style.compare.verdicts import Outcome
from legacy_style.engine import losses
from legacy_style.errors import DivergenceError, OptionError
from legacy_style.files import sha256
from legacy_style.programs.neural_style import options, pixels, record
from legacy_style.torch7 import image, nn

# The recordings' README: losses to 1e-6 on thin networks, so 1e-5 has room; the rest of a
# well-conditioned run to a thousandth, and its picture to a level.
WELL_CONDITIONED = Tolerances(first_losses=1e-5, losses=1e-3, max_difference=1)
# Under max pooling, L-BFGS is chaotic: the original differs from itself with another number of threads.
CHAOTIC = Tolerances(objective=None, distance=None, first_losses=1e-5)


@needs_shared
def test_recordings_come_out_identical_or_equivalent(tmp_path: Path) -> None:
    cases = ["wc_adam", "adam_init_image", "wc_lbfgs", "wc_styles2"]
    chaotic = ["base", "odd", "orig_colors"]
    found = run_recorded(
        [recorded_row(case, WELL_CONDITIONED) for case in cases]
        + [recorded_row(case, CHAOTIC) for case in chaotic],
        tmp_path,
    )
    kinds = {name: outcome.verdict.kind for name, outcome in found.items()}
    assert set(kinds.values()) <= {"identical", "equivalent"}, kinds
    assert "identical" in kinds.values()
    assert found["orig_colors"].expected_colors is not None and found["orig_colors"].expected_colors.passed


def _255_for_256(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pixels, "_CAFFE_RANGE", 255.0)


def _floor_for_ceil(patch: pytest.MonkeyPatch) -> None:
    right = nn.SpatialMaxPooling.__init__

    def floor(self: nn.SpatialMaxPooling, *words: Any, **named: Any) -> None:
        right(self, *words, **{**named, "ceil": False})

    patch.setattr(nn.SpatialMaxPooling, "__init__", floor)


def _pil_resize(patch: pytest.MonkeyPatch) -> None:
    Pixels = Callable[[int, slice], np.ndarray[Any, Any]]

    def by_pillow(pixels: Pixels, channels: int, tall: int, width: int, height: int) -> np.ndarray[Any, Any]:
        planes = [np.rint(pixels(channel, slice(0, tall)) * 255) for channel in range(channels)]
        as_bytes = Image.fromarray(np.stack(planes * (3 // channels), axis=-1).astype(np.uint8))
        resized = as_bytes.resize((width, height), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1)) / 255

    patch.setattr(image, "_scaled", by_pillow)


def _unnormalised_gram(patch: pytest.MonkeyPatch) -> None:
    right = losses.gram_matrix
    patch.setattr(losses, "gram_matrix", lambda x: right(x) * x.numel())


@needs_shared
@pytest.mark.parametrize("case", ["adam_init_image", "odd", "base"])
@pytest.mark.parametrize("broken", [_255_for_256, _floor_for_ceil, _pil_resize, _unnormalised_gram])
def test_a_broken_port_is_called_different(
    case: str, broken: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerances = WELL_CONDITIONED if case == "adam_init_image" else CHAOTIC
    row = recorded_row(case, tolerances)
    broken(monkeypatch)
    (outcome,) = run_recorded([row], tmp_path).values()
    assert outcome.verdict.kind == "different"
    assert "printed first losses" in " ".join(outcome.verdict.because)


@needs_shared
@pytest.mark.parametrize("broken", [_255_for_256, _floor_for_ceil, _pil_resize, _unnormalised_gram])
def test_a_broken_port_is_called_different_by_the_picture_alone(
    broken: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = dataclasses.replace(recorded_row("adam_init_image", Tolerances(max_difference=1)), printed=())
    broken(monkeypatch)
    (outcome,) = run_recorded([row], tmp_path).values()
    assert outcome.verdict.kind == "different"


@dataclasses.dataclass
class Small:
    """A manifest of one row on a small network, and what it takes to run it."""

    folder: Path
    manifest: Manifest
    settings: RunSettings

    def files(self, **changes: Any) -> Files:
        return Files(self.manifest, [self.folder], self.folder / "cache", **changes)

    def run(self, tell: Callable[[Tick], None] = silent, **changes: Any) -> Outcome:
        settings = dataclasses.replace(self.settings, **changes)
        (outcome,) = runner.run_manifest(self.manifest, self.files(), settings, tell)
        return outcome

    def change_row(self, **changes: Any) -> None:
        row = dataclasses.replace(self.manifest.rows[0], **changes)
        self.manifest = dataclasses.replace(self.manifest, rows=(row,))

    def more_options(self, *words: str) -> None:
        self.change_row(options=(*self.manifest.rows[0].options, *words))


INPUTS = ("-content_image", "content.png", "-style_image", "style.png", "-image_size", "32")
LAYERS = ("-content_layers", "relu2_1", "-style_layers", "relu1_1,relu2_1", "-gpu", "-1", "-print_iter", "0")


@pytest.fixture
def small(tmp_path: Path) -> Small:
    folder = tmp_path / "with ünusual näme"
    folder.mkdir()
    write_network(folder / "small.caffemodel")
    write_picture(folder / "content.png", 52, 40, 1)
    write_picture(folder / "style.png", 40, 40, 2)
    write_picture(folder / "expected.png", 32, 24, 3)
    row = Row(
        "one",
        (*INPUTS, *LAYERS, "-num_iterations", "4", "-optimizer", "adam", "-seed", "3"),
        expected="expected.png",
        model="small",
    )
    digest = sha256(folder / "small.caffemodel")
    made = Manifest(
        folder / "manifest.json",
        "small",
        (row,),
        {"expected.png": File(sha256(folder / "expected.png"))},
        {"small": (digest,)},
    )
    settings = RunSettings(models=(folder / "small.caffemodel",), work=folder / "work")
    return Small(folder, made, settings)


def bless(small: Small, seed: int | None = None) -> None:
    """Expect what comes out now."""
    outcome = small.run()
    run = next(each for each in outcome.runs if each.seed == seed)
    expected = small.folder / "expected.png"
    expected.write_bytes(Path(run.picture).read_bytes())
    files = {"expected.png": File(sha256(expected))}
    small.manifest = dataclasses.replace(small.manifest, files=files)


def test_the_same_again_is_identical(small: Small) -> None:
    bless(small)
    outcome = small.run(work=small.folder / "again")
    assert outcome.verdict.kind == "identical"
    assert not outcome.runs[0].resumed


def test_another_picture_is_different_and_it_is_said_by_how_much(small: Small) -> None:
    outcome = small.run()
    assert outcome.verdict.kind == "different"
    assert any("loss: ours is" in each and "at most" in each for each in outcome.verdict.because)


def test_from_noise_several_seeds_are_equivalent(small: Small) -> None:
    words = small.manifest.rows[0].options[:-2]  # without the seed
    small.change_row(options=(*words, "-pooling", "avg", "-learning_rate", "3", "-num_iterations", "100"))
    bless(small, seed=1)
    small.change_row(seeds=(2, 3, 4))
    outcome = small.run()
    assert [run.seed for run in outcome.runs] == [2, 3, 4]
    assert len({Path(run.picture).read_bytes() for run in outcome.runs}) == 3
    assert outcome.verdict.kind == "equivalent", outcome.verdict.because
    totals = sorted(run.objective.total for run in outcome.runs if run.objective)
    assert outcome.shown is not None and outcome.shown.objective is not None
    assert outcome.shown.objective.total == totals[1]


def test_a_stopped_comparison_goes_on_where_it_was(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    small.change_row(options=small.manifest.rows[0].options[:-2], seeds=(1, 2))
    seen: list[Tick] = []

    def stop_in_second(tick: Tick) -> None:
        seen.append(tick)
        if tick.seed == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small.run(stop_in_second)
    assert {tick.seed for tick in seen} == {1, 2}
    seen.clear()
    outcome = small.run(seen.append)
    assert {tick.seed for tick in seen if tick.iteration is not None} == {2}
    assert [run.resumed for run in outcome.runs] == [True, False]


def test_a_work_folder_may_be_moved(small: Small) -> None:
    small.run()
    small.settings.work.rename(small.folder / "elsewhere")
    assert small.run(work=small.folder / "elsewhere").runs[0].resumed


def test_a_run_that_was_interrupted_goes_on_from_its_checkpoint(small: Small) -> None:
    def stop(tick: Tick) -> None:
        seen.append(tick.iteration)
        if tick.iteration == 3:
            raise KeyboardInterrupt

    whole = small.run(work=small.folder / "whole").runs[0]
    seen: list[int | None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "_CHECKPOINT_EVERY", 2.0)
        with pytest.raises(KeyboardInterrupt):
            small.run(stop)
        assert seen == [1, 2, 3]
        seen.clear()
        run = small.run(lambda tick: seen.append(tick.iteration)).runs[0]
    assert seen[0] in (2, 3)
    assert Path(run.picture).read_bytes() != b"" and run.losses == whole.losses
    np.testing.assert_array_equal(image.load(run.picture), image.load(whole.picture))
    assert not list(Path(run.picture).parent.glob("unfinished/*"))


@pytest.mark.parametrize("change", ["options", "content", "code", "model", "record"])
def test_a_run_that_was_made_otherwise_is_made_again(
    small: Small, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small.run()
    assert small.run().runs[0].resumed
    if change == "options":
        small.more_options("-content_weight", "7")
    elif change == "content":
        write_picture(small.folder / "content.png", 52, 40, 9)
    elif change == "code":
        monkeypatch.setattr(record, "versions", lambda: {"legacy-style": "0", "code": "other"})
    elif change == "model":
        write_network(small.folder / "small.caffemodel", seed=5)
    else:
        record.sidecar_path(first.runs[0].picture).write_text("{")
    assert not small.run().runs[0].resumed


def test_each_result_carries_its_record(small: Small) -> None:
    run = small.run().runs[0]
    kept = json.loads(Path(run.picture + ".json").read_text())
    assert kept.pop("picture") == sha256(run.picture)
    assert kept["options"]["num_iterations"] == 4
    assert kept["model"] == {
        "file": "small.caffemodel",
        "sha256": sha256(small.folder / "small.caffemodel"),
    }
    assert kept["command"][:3] == ["python", "-m", "legacy_style"]
    assert len(kept["losses"]["total"]) == 4
    assert set(kept["versions"]) == {"legacy-style", "code", "python", "torch", "numpy", "scipy", "pillow"}
    with Image.open(run.picture) as picture:
        assert json.loads(picture.text["legacy-style"]) == kept  # type: ignore[attr-defined]  # of PngImageFile

    plain = small.run(work=small.folder / "plain", chunks=False).runs[0]
    with Image.open(plain.picture) as picture:
        assert picture.text == {}  # type: ignore[attr-defined]  # of PngImageFile
    assert Path(plain.picture + ".json").exists()
    assert plain.pixels == run.pixels


def test_the_record_s_command_makes_the_picture_again(small: Small) -> None:
    run = small.run().runs[0]
    kept = record.read(run.picture)
    assert kept is not None
    parsed = options.parse(kept["command"][3:])
    assert parsed is not None
    again = dataclasses.replace(parsed.options, output_image=str(small.folder / "again.png"))
    stylize.stylize(again)
    made = image.load(again.output_image)
    np.testing.assert_array_equal(made, image.load(run.picture))


def test_rows_run_in_several_processes(small: Small) -> None:
    bless(small)
    twin = dataclasses.replace(small.manifest.rows[0], name="two")
    small.manifest = dataclasses.replace(small.manifest, rows=(small.manifest.rows[0], twin))
    seen: list[Tick] = []
    settings = dataclasses.replace(small.settings, jobs=2, work=small.folder / "parallel")
    found = runner.run_manifest(small.manifest, small.files(), settings, seen.append)
    assert [outcome.row.name for outcome in found] == ["one", "two"]
    assert [outcome.verdict.kind for outcome in found] == ["identical", "identical"]
    assert {tick.row for tick in seen} == {"one", "two"}


def test_another_network_is_not_comparable_but_measured(small: Small) -> None:
    write_network(small.folder / "other.caffemodel", seed=8)
    outcome = small.run(models=(small.folder / "other.caffemodel",))
    assert outcome.verdict.kind == "not comparable"
    assert outcome.verdict.because == (
        "another network: the expected result was made with small, ours with other.caffemodel",
    )
    assert outcome.runs[0].objective is not None and outcome.expected_objective is not None
    measures = {measure.name: measure.passed for measure in outcome.verdict.measures}
    assert measures["objective"] is None


def test_of_several_networks_the_right_one_is_taken(small: Small) -> None:
    write_network(small.folder / "other.caffemodel", seed=8)
    bless(small)
    both = (small.folder / "other.caffemodel", small.folder / "small.caffemodel")
    assert small.run(models=both).verdict.kind == "identical"


def test_a_smaller_run_is_not_comparable_and_the_expected_picture_is_scaled(small: Small) -> None:
    outcome = small.run(image_size=16.0, num_iterations=2.0)
    assert outcome.verdict.kind == "not comparable"
    assert outcome.verdict.because == (
        "another size: 16 pixels instead of 32",
        "fewer iterations: 2 instead of 4",
    )
    assert outcome.scaled == "scaled from 32x24 to 16x12"
    assert outcome.runs[0].pixels is not None and outcome.runs[0].pixels.width == 16
    assert small.run(image_size=64.0, num_iterations=9.0).caveats == ()
    assert small.run(image_size=16.0, full=("o*",)).caveats == ()


def test_original_colors_are_tested_exactly_even_of_a_smaller_run(small: Small) -> None:
    small.more_options("-original_colors", "1")
    outcome = small.run(image_size=16.0)
    assert outcome.verdict.kind == "different"  # the expected picture is another one altogether
    assert "colours of the expected picture" in outcome.verdict.because[0]
    bless(small)
    outcome = small.run(image_size=16.0)
    assert outcome.verdict.kind == "not comparable"
    assert outcome.runs[0].colors is not None and outcome.runs[0].colors.passed
    assert any("our picture: U and V are the content's, exactly" in each for each in outcome.verdict.because)


def test_a_missing_expected_picture_is_not_comparable(small: Small) -> None:
    (small.folder / "expected.png").unlink()
    outcome = small.run()
    assert outcome.verdict.kind == "not comparable"
    assert "expected.png: not found" in outcome.verdict.because[0]
    assert outcome.runs == ()


def test_a_changed_expected_picture_is_not_comparable(small: Small) -> None:
    write_picture(small.folder / "expected.png", 32, 24, 4)
    outcome = small.run()
    assert outcome.verdict.kind == "not comparable"
    assert "another file than the manifest means" in outcome.verdict.because[0]


def test_a_row_whose_input_was_never_published_is_not_run(small: Small) -> None:
    small.change_row(missing="its style was not published")
    (small.folder / "style.png").unlink()
    outcome = small.run()
    assert outcome.verdict.kind == "not comparable"
    assert outcome.verdict.because == ("cannot be run: its style was not published",)


def test_a_command_line_that_fails_is_different(small: Small) -> None:
    small.more_options("-init", "nonsense")
    outcome = small.run()
    assert outcome.verdict.kind == "different"
    assert "it failed: Invalid init type" in outcome.verdict.because[0]


def test_layers_that_another_network_lacks_are_not_comparable(small: Small) -> None:
    write_network(small.folder / "other.caffemodel", seed=8)
    small.more_options("-style_layers", "relu7")
    outcome = small.run(models=(small.folder / "other.caffemodel",))
    assert outcome.verdict.kind == "not comparable"
    assert "relu7" in outcome.verdict.because[-1]


def test_a_loss_that_is_not_finite_is_different(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_words: Any, **_named: Any) -> stylize.Result:
        raise DivergenceError("the loss is not finite any more at iteration 2")

    monkeypatch.setattr(making, "stylize", diverge)
    verdict = small.run().verdict
    assert verdict.kind == "different"
    assert "not finite any more at iteration 2" in verdict.because[0]


def test_files_are_fetched_by_url_and_checked(small: Small) -> None:
    content = (small.folder / "content.png").read_bytes()
    (small.folder / "content.png").unlink()
    digest = sha256(small.folder / "expected.png")
    right = File(hashlib.sha256(content).hexdigest(), "https://example.org/content.png")
    small.manifest = dataclasses.replace(
        small.manifest, files={"content.png": right, "expected.png": File(digest)}
    )
    fetched: list[str] = []

    def fetch(url: str, path: Path, sha256: str) -> None:
        fetched.append(url)
        assert sha256 == right.sha256
        path.write_bytes(content)

    files = small.files(fetch=fetch)
    (outcome,) = runner.run_manifest(small.manifest, files, small.settings, silent)
    assert fetched == ["https://example.org/content.png"]
    assert outcome.runs
    assert Path(files.find("content.png")).parent == small.folder / "cache"

    (outcome,) = runner.run_manifest(small.manifest, small.files(), small.settings, silent)
    assert outcome.runs, "what was fetched is found without fetching"


def test_options_that_ask_for_help_are_refused(small: Small) -> None:
    small.change_row(options=("-help",))
    with pytest.raises(OptionError, match="ask for help"):
        small.run()


def test_a_comma_in_a_path_is_refused(small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    for name in ("content.png", "style.png", "expected.png"):
        (folder / name).write_bytes((small.folder / name).read_bytes())
    files = Files(small.manifest, [folder], small.folder / "cache")
    with pytest.raises(OptionError, match="comma"):
        runner.run_manifest(small.manifest, files, small.settings, silent)


def test_a_model_is_known_by_its_first_digits_or_its_sha1(small: Small) -> None:
    path = small.folder / "small.caffemodel"
    whole, sha1 = sha256(path), hashlib.sha1(path.read_bytes()).hexdigest()
    for digest, name in ((whole[:8], "known"), (f"sha1:{sha1}", "known"), ("0" * 8, "")):
        made = dataclasses.replace(small.manifest, models={"known": (digest,)})
        assert rows.identify(path, made).name == name
