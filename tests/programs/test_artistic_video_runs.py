"""Every recorded run and trace of artistic_video.lua and its twin, as video_recordings.py says it must be."""

import pytest
import video_recordings
from recordings import needs_shared
from video_recordings import DEVIATIONS, EXACT, RECORDED, SAYS, SHIPPED, UNREPEATED, WHOLE, recorded

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
    for table in (DEVIATIONS, SAYS, EXACT, UNREPEATED, WHOLE):
        assert set(table) <= set(runs)
    failing = {name for name, run in runs.items() if run.status and name not in DEVIATIONS}
    assert failing <= set(SAYS)


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
    assert [each.stage for each in video_recordings.compare_losses(lines, run.lines)] == ["losses"]
