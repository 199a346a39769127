"""Every recorded run and trace of artistic_video.lua and its twin, as video_recordings.py says it must be."""

from dataclasses import replace

import pytest
import video_recordings
from recordings import needs_shared
from video_recordings import DEVIATIONS, MEASURED, RECORDED, SAYS, SHIPPED, UNREPEATED, recorded

CASES = [
    pytest.param(root, name, id=f"{label}-{name}")
    for label, root in (("shipped", SHIPPED), ("recorded", RECORDED))
    if root.is_dir()
    for name in recorded(root)
]


@pytest.mark.parametrize(("root", "name"), CASES)
def test_a_video_is_as_recorded_or_deviates_on_purpose(root, name, tmp_path):
    assert not video_recordings.replay(recorded(root)[name], tmp_path)


@pytest.mark.parametrize("name", video_recordings.traces())
def test_every_stage_of_a_video_is_as_recorded(name, tmp_path):
    trace = video_recordings.Trace(name)
    assert not trace.replay(tmp_path)
    assert trace.compared >= 2 * len(trace.frames)


@needs_shared
def test_all_62_recordings_are_accounted_for():
    runs = recorded(RECORDED)
    assert len(runs) + len(video_recordings.traces()) >= 62
    for table in (DEVIATIONS, SAYS, MEASURED, UNREPEATED):
        assert set(table) <= set(runs)
    failing = {name for name, run in runs.items() if run.status and name not in DEVIATIONS}
    assert failing <= set(SAYS)


def test_the_end_of_a_frame_has_its_final_name_also_where_save_iter_divides_it(run, tmp_path):
    """maybe_save in artistic_video_core.lua: the last evaluation's name is the frame's own."""
    more = ["-num_images", "1", "-num_iterations", "4", "-save_iter", "2", "-optimizer", "adam"]
    done = video_recordings.perform(replace(run, words=[*run.words, *more]), tmp_path)
    assert (done.status, done.files) == (0, ["out-1.png", "out-1_2.png"])


def test_a_first_pass_that_begins_at_the_warped_predecessor_reads_its_flow_twice(tmp_path):
    """readPrevImageWarped in artistic_video_multiPass.lua prints, and is called for the start as well."""
    run = recorded(SHIPPED)["p_adam"]
    more = ["-num_images", "2", "-num_passes", "1", "-num_iterations", "1", "-init", "prevWarped"]
    done = video_recordings.perform(replace(run, words=[*run.words, *more]), tmp_path)
    assert done.status == 0
    assert done.lines.count('Reading backward flow file "flow/backward_2_1.flo".\t') == 2


@pytest.fixture
def run():
    return recorded(SHIPPED)["v_start2"]


def outcome(run, **changes):
    return video_recordings.Outcome(
        **{"status": 0, "lines": list(run.lines), "stderr": "", "files": run.files, **changes}
    )


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        ("exit status", {"status": 1}),
        ("stderr", {"stderr": "something"}),
        ("files", {"files": ["out-1.png"]}),
        ("stdout", {"lines": ["Successfully loaded nothing"]}),
    ],
)
def test_what_differs_is_seen_at_its_stage(run, stage, changes, tmp_path):
    assert [each.stage for each in video_recordings.compare(run, outcome(run), tmp_path)] == []
    found = [each.stage for each in video_recordings.compare(run, outcome(run, **changes), tmp_path)]
    assert found[:1] == [stage]


def test_a_loss_that_differs_is_seen(run):
    lines = list(run.lines)
    index = next(i for i, line in enumerate(lines) if "Total loss" in line)
    lines[index] = "  Total loss: 1.000000\t"
    assert [each.stage for each in video_recordings.compare_losses(lines, run.lines, [1e-3])] == ["losses"]
    assert [*video_recordings.compare_losses(lines, run.lines, [])] == []
