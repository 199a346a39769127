"""legacy_style.cli: recorded answers byte for byte, four doors, signals, errors, and the live line.

The engine is a few lines where only the front end is meant; the last test interrupts the real one.
"""

import errno
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from contextlib import contextmanager
from pathlib import Path

import forked
import pytest
from PIL import Image
from recordings import RECORDED, both_roots, needs_shared

from legacy_style import __version__
from legacy_style.cli import athalye_options, is_athalye, th
from legacy_style.cli.neural_style import main
from legacy_style.errors import DivergenceError
from legacy_style.programs.neural_style import story
from legacy_style.programs.neural_style.options import EXTENSIONS, ORIGINAL
from legacy_style.torch7.cmdline import describe

CHECKOUT = Path(__file__).parents[2]

COMMON = ["-gpu", "-1", "-seed", "123", "-image_size", "64", "-num_iterations", "20"]
COMMON += ["-print_iter", "1", "-save_iter", "10"]
REFUSED = {
    "cli_unknown_opt": [*COMMON, "-foo", "3"],
    "cli_double_dash": ["--image_size" if word == "-image_size" else word for word in COMMON],
    "cli_missing_value": [*COMMON, "-image_size"],
    "cli_bad_number": [*COMMON, "-image_size", "abc"],
    "cli_flag_with_value": [*COMMON, "-normalize_gradients", "true"],
    "cli_eq_form": [*COMMON, "-image_size=32"],
    "cli_orig_colors_text": [*COMMON, "-original_colors", "yes"],
    "cli_number_comma": [*COMMON, "-content_weight", "1,5"],
}
HELP = {"cli_help": "-help", "cli_help_h": "-h", "cli_help_dd": "--help"}

# Runs the program with an engine made of the code in the first argument.
PROGRAM = """
import sys, types
engine = types.ModuleType("legacy_style.programs.neural_style.story")
engine.list_layers = engine.plan = None
exec(sys.argv[1], engine.__dict__)
sys.modules["legacy_style.programs.neural_style.story"] = engine
from legacy_style.cli.neural_style import main
sys.exit(main(sys.argv[2:]))
"""

INTERRUPTIBLE = """
import time
def stylize(options, *, log, notice, on_progress, on_saved, kept):
    try:
        log("running")
        time.sleep(60)
    except KeyboardInterrupt:
        log("saving")
        time.sleep(0.3)
        log("saved")
        on_saved("./out_3.png")
        raise
"""


def environment(**more):
    """For processes that find this checkout and buffer what they print, as Python does by default."""
    return {**os.environ, "PYTHONUNBUFFERED": "", "PYTHONPATH": str(CHECKOUT), **more}


def run(*command, **keywords):
    keywords.setdefault("env", environment())
    keywords.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=60, **keywords)


def python(*command, **keywords):
    return run(sys.executable, *command, **keywords)


@contextmanager
def started(engine):
    """The program with this engine, which runs while the test talks to it, and is gone after it."""
    with forked.start("-c", PROGRAM, engine, stdin=forked.PIPE) as program:
        try:
            yield program
        finally:
            program.kill()


@pytest.fixture
def engine(monkeypatch):
    """Puts functions in the place of the engine's."""

    def put(**functions):
        for name in ("stylize", "list_layers", "plan"):
            monkeypatch.setattr(story, name, functions.get(name, pytest.fail))

    return put


def raising(error):
    def stylize(options, *, log, notice, on_progress, on_saved, kept):
        raise error

    return stylize


@both_roots
@pytest.mark.parametrize("case", REFUSED)
def test_wrong_command_lines_are_answered_as_recorded(root, case, capsys):
    assert main(REFUSED[case], "th") == 1
    answer = capsys.readouterr()
    assert answer.out == (root / "runs" / case / "stdout.txt").read_text()
    first, *hint = answer.err.split("\n", 1)
    assert first == (root / "runs" / case / "stderr.txt").read_text()
    assert not hint or (hint[0].startswith("neural_style: ") and hint[0].endswith("\n"))


@needs_shared
def test_the_command_lines_here_are_the_recorded_ones():
    recorded = {each["name"]: each for each in json.loads((RECORDED / "INDEX.json").read_text())["runs"]}
    for case, words in {**REFUSED, **{case: [word] for case, word in HELP.items()}}.items():
        assert recorded[case]["argv"][2:] == words
        assert recorded[case]["exit_code"] == (case in REFUSED)


@both_roots
@pytest.mark.parametrize("case", HELP)
def test_help_is_the_original_text_and_then_ours_under_a_heading(root, case, capsys):
    assert main([HELP[case]], "TORCH/bin/th") == 0
    answer = capsys.readouterr()
    original = (root / "runs" / case / "stdout.txt").read_text()
    assert answer.out.startswith(original)
    blank, heading, *ours = answer.out.removeprefix(original).splitlines()
    assert (blank, heading[:7], heading[-1]) == ("", "Options", ":")
    assert ours == describe(EXTENSIONS)
    assert answer.err == ""


def test_an_option_of_another_version_gets_a_line_after_the_original_message(capsys):
    assert main(["-multidevice_strategy", "3"], "th") == 1
    answer = capsys.readouterr()
    first, second, end = answer.err.split("\n")
    assert first == "invalid argument: -multidevice_strategy"
    assert second.startswith("neural_style: ")
    assert "-multigpu_strategy" in second
    assert end == ""
    assert answer.out.startswith("\t\n\t\nUsage: [options]\n")


def test_a_value_that_ours_cannot_have_is_one_line_without_usage(capsys):
    assert main(["--precision", "half"]) == 1
    assert capsys.readouterr() == (
        "",
        "neural_style: --precision takes float32, tf32 or bfloat16, not 'half'.\n",
    )


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["neural_style", __version__]


def test_print_options_prints_one_json_object(capsys):
    assert main(["--print-options", "-seed", "0x10", "-style_image", "nope.jpg"]) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert (len(parsed), parsed["seed"], parsed["style_image"]) == (29, 16, "nope.jpg")


@pytest.mark.parametrize("words", [["-help"], ["-foo"], ["--print-options"], ["--version"]])
def test_what_needs_no_engine_imports_none_and_opens_nothing(words, tmp_path):
    program = f"""
import sys
from legacy_style.cli.neural_style import main
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
status = main({words!r}, "th")
heavy = sorted(sys.modules.keys() & {{"torch", "numpy", "PIL", "scipy", "click", "requests"}})
print(status, heavy, opened, file=sys.stderr)
"""
    answer = python("-c", program, cwd=tmp_path, text=True)
    assert answer.stderr.endswith(f"{int(words == ['-foo'])} [] []\n")
    assert answer.returncode == 0


@pytest.mark.parametrize(
    ("command", "called"),
    [
        (["-m", "legacy_style"], "python -m legacy_style"),
        ([str(CHECKOUT / "neural_style.py")], str(CHECKOUT / "neural_style.py")),
        (["-c", "import sys\nfrom legacy_style.cli.neural_style import main\nsys.exit(main())"], "-c"),
        (
            [
                "-c",
                "import sys\nfrom legacy_style.cli.th import main\nsys.exit(main())",
                "a/neural_style.lua",
            ],
            "-c",
        ),
    ],
    ids=["module", "script", "neural_style", "th"],
)
def test_four_doors_lead_to_one_program(command, called, tmp_path):
    words = ["-style_image", "é\udcff.jpg", "--print-options", "-gpu", "-1"]
    answer = python(*command, *words, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["style_image"] == "é\udcff.jpg"
    answer = python(*command, "-help", cwd=tmp_path, text=True)
    assert answer.returncode == 0
    assert answer.stdout.startswith(f"Usage: {called} [options]\n")


@pytest.mark.parametrize(
    ("line", "theirs"),
    [
        ("", False),
        ("--help", False),
        ("-gpu -1 -seed 5", False),
        ("--tile 5", False),
        ("--checkpoint c.pt --resume c.pt", False),
        ("--matconvnet-orientation wh", False),
        ("--image_size 5", False),
        ("-gpu -1 --content a.jpg", False),
        ("--init image -gpu -1", False),
        ("-style_image --content", False),
        ("--content a.jpg --styles b.jpg --output c.jpg", True),
        ("--content=a.jpg --styles b.jpg --out c.jpg", True),
        ("--content a.jpg --output -1.png", True),
        ("--matconvnet-orientation wh --network vgg.mat --content a.jpg", True),
        ("--iter 5", True),
        ("--tv-weight 1", True),
    ],
)
def test_the_options_tell_the_two_dialects_of_the_script_apart(line, theirs):
    assert is_athalye(line.split()) == theirs


def test_every_option_that_has_one_dash_belongs_to_our_dialect():
    assert not any(is_athalye(["--content", option.key]) for option in ORIGINAL)


@pytest.mark.parametrize("flavour", ["current", "2017"])
def test_the_script_knows_every_option_of_the_other_dialect(flavour):
    names = re.findall("^  (--[a-z0-9-]+)", athalye_options.parser(flavour).format_help(), re.MULTILINE)
    assert "--content" in names
    shared = ["--color-transfer"]
    shared += [
        "--exif-rotate",
        "--matconvnet-orientation",
        "--tile",
        "--print-plan",
        "--checkpoint",
        "--resume",
        "--watch",
        "--plot",
    ]
    assert [name for name in names if not is_athalye([name])] == shared


def test_the_script_runs_the_other_dialect():
    answer = python(str(CHECKOUT / "neural_style.py"), "--content", "a.jpg", text=True)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "the following arguments are required: --styles, --output" in answer.stderr


def test_lines_go_to_stdout_and_remarks_to_stderr(engine, capsys):
    def stylize(options, *, log, notice, on_progress, on_saved, kept):
        log("Iteration 1 / 2\t")
        notice("no GPU")
        on_progress(None)
        assert options.seed == 3

    engine(stylize=stylize)
    assert main(["-seed", "3"]) == 0
    assert capsys.readouterr() == ("Iteration 1 / 2\t\n", "neural_style: no GPU\n")


def test_layers_and_plan_are_printed(engine, capsys):
    engine(list_layers=lambda options: ["conv1_1", "relu1_1"], plan=lambda options: f"tile {options.tile}")
    assert main(["--list-layers"]) == 0
    assert main(["--print-plan", "--tile", "7"]) == 0
    assert capsys.readouterr() == ("conv1_1\nrelu1_1\ntile 7\n", "")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DivergenceError("the loss is nan"), "the loss is nan"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png"),
            "a.png: No such file or direct",
        ),
        (OSError(errno.ENOSPC, "No space left on device", b"a.png"), "a.png: No space left on device; free "),
        (OSError("cannot read"), "cannot read"),
        (MemoryError(), "not enough memory; choose a smaller -image_size"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
            "not enough memory",
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory; "),
    ],
)
def test_errors_that_a_user_can_cause_are_one_line(engine, capsys, error, message):
    engine(stylize=raising(error))
    assert main([]) == 1
    answer = capsys.readouterr()
    assert answer.out == ""
    assert answer.err.startswith(f"neural_style: {message}")
    assert answer.err.count("\n") == 1


def test_errors_of_ours_are_not_hidden(engine):
    engine(stylize=raising(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        main([])


def test_signal_handlers_are_put_back(engine):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    engine(stylize=lambda *args, **keywords: None)
    assert main([]) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_every_line_can_be_read_at_once():
    # The program goes on only once its line was read.
    engine = "import sys\ndef stylize(options, *, log, **_):\n log('Iteration 1')\n log(sys.stdin.readline().strip())"
    with started(engine) as program:
        assert program.stdout.readline() == "Iteration 1\n"
        assert program.communicate("go on\n", timeout=60) == ("go on\n", "")


@pytest.mark.parametrize("second", [None, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("first", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_save_once_and_say_where(first, status, word, second):
    with started(INTERRUPTIBLE) as program:
        assert program.stdout.readline() == "running\n"
        program.send_signal(first)
        assert program.stdout.readline() == "saving\n"
        if second is not None:
            program.send_signal(second)
        out, err = program.communicate(timeout=60)
        assert out == "saved\n"
        assert err == f"neural_style: {word}; the last image that was saved is ./out_3.png\n"
        assert program.returncode == status


def test_a_signal_before_there_is_an_image():
    engine = "import time\ndef stylize(options, *, log, **_):\n log('loading')\n time.sleep(60)"
    with started(engine) as program:
        assert program.stdout.readline() == "loading\n"
        program.send_signal(signal.SIGTERM)
        assert program.communicate(timeout=60) == ("", "neural_style: terminated; no image was saved\n")
        assert program.returncode == 143


def test_an_interrupt_that_code_in_c_turned_into_another_error_is_still_one():
    engine = """
import os, signal
def stylize(options, **_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("KeyboardInterrupt", path="torch.so") from None
"""
    answer = forked.run("-c", PROGRAM, engine)
    assert (answer.returncode, answer.stderr) == (130, "neural_style: interrupted; no image was saved\n")


def test_an_interrupt_that_passed_through_an_exec_does_not_change_the_status():
    engine = """
def stylize(options, **_):
    exec("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
"""
    answer = python("-c", PROGRAM, engine, text=True)
    assert (answer.returncode, answer.stderr) == (143, "neural_style: terminated; no image was saved\n")


def test_an_interrupt_that_was_swallowed_comes_again_with_the_next_evaluation():
    engine = """
import os, signal
def stylize(options, *, on_progress, **_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        pass
    on_progress(None)
"""
    answer = forked.run("-c", PROGRAM, engine)
    assert (answer.returncode, answer.stderr) == (143, "neural_style: terminated; no image was saved\n")


def test_an_image_that_cannot_be_saved_after_a_signal_is_not_passed_over():
    engine = """
import os, signal
def stylize(options, **_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise OSError(28, "No space left on device", "out_3.png") from None
"""
    answer = forked.run("-c", PROGRAM, engine)
    assert answer.returncode == 130
    assert answer.stderr == (
        "neural_style: interrupted; out_3.png: No space left on device; free some space, or name another folder with"
        " -output_image\n"
    )


def test_a_reader_that_goes_away_ends_the_program_silently():
    with started("def stylize(o, *, log, **_):\n while True: log('x' * 1000)") as program:
        program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(timeout=60) == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_output_that_cannot_be_written_is_one_line():
    with Path("/dev/full").open("w") as full:
        answer = python("-m", "legacy_style", "-help", stdout=full, text=True)
    assert answer.returncode == 1
    assert answer.stderr.startswith("neural_style: No space left on device")
    assert answer.stderr.count("\n") == 1


def test_closed_streams_are_no_error():
    answer = run("sh", "-c", f'exec "{sys.executable}" -m legacy_style -help >&- 2>&-')
    assert answer.returncode == 0


def test_names_that_are_no_text_are_printed_as_their_bytes():
    answer = python(
        "-c", PROGRAM, "def stylize(o, *, log, **_): log(o.style_image)", "-style_image", b"a\xff\xc3"
    )
    assert (answer.returncode, answer.stdout) == (0, b"a\xff\xc3\n")


@pytest.fixture
def other_th(tmp_path):
    """A folder for PATH with another `th`, which prints its arguments and exits with status 7."""
    folder = tmp_path / "torch" / "bin"
    folder.mkdir(parents=True)
    script = folder / "th"
    script.write_text('#!/bin/sh\necho "other:$*"\nexit 7\n')
    script.chmod(0o755)
    return folder


@pytest.fixture
def our_th(tmp_path):
    """A folder for PATH with our `th`, as an installer writes it."""
    folder = tmp_path / "ours"
    folder.mkdir()
    script = folder / "th"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nfrom legacy_style.cli.th import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return folder


@pytest.mark.parametrize("words", [["train.lua", "-gpu", "0"], [], ["-h"], ["dir/other_neural_style.lua"]])
def test_th_hands_over_to_the_next_th(our_th, other_th, words):
    path = os.pathsep.join([str(our_th), "/nowhere", str(other_th)])
    answer = run("th", *words, env=environment(PATH=path), text=True)
    assert (answer.returncode, answer.stdout) == (7, f"other:{' '.join(words)}\n")
    assert answer.stderr == ""


@pytest.mark.parametrize(
    ("words", "what"), [(["other.lua"], "other.lua is not served"), ([], "no script was named")]
)
def test_th_without_another_th_says_what_it_serves(our_th, words, what):
    answer = run("th", *words, env=environment(PATH=str(our_th)), text=True)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith(
        f"th: {what}, and there is no other th on PATH; this th runs neural_style.lua"
    )
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize("script", sorted(th.COMMON))
def test_th_serves_a_name_that_many_projects_use_where_there_is_no_other_th(script, our_th):
    answer = run("th", script, "-help", env=environment(PATH=str(our_th)), text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("Usage: ")


@pytest.mark.parametrize("script", th.ADVICE)
def test_th_says_what_to_do_instead_of_a_fork_s_script(script, our_th):
    answer = run("th", f"forks/{script}", "-gpu", "0", env=environment(PATH=str(our_th)), text=True)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert f"th: forks/{script} is not served" in answer.stderr
    assert f"Instead, {th.ADVICE[script]}: th neural_style.lua -gpu 0\n" in answer.stderr


def test_th_translates_the_command_lines_of_forks(our_th):
    def translated(*words):
        answer = run("th", *words, env=environment(PATH=str(our_th)), text=True)
        return answer.stderr.rstrip("\n").partition(": th neural_style.lua ")[2]

    words = ["-image_size", "256,512", "-num_iterations", "300,100", "-style_image", "my style.jpg"]
    assert (
        translated("neural_style_multires.lua", *words)
        == "-style_image 'my style.jpg' --stages 256:300,512:100"
    )
    assert translated("neural_style_multires.lua", "-image_size", "9,99") == "--stages 9:1000,99:1000"
    words = ["-content_seg", "c.png", "-style_seg", "a.png,b.png", "-color_codes", "red,blue", "-seed", "1"]
    assert (
        translated("neural_style_seg.lua", *words)
        == "--content-regions c.png --style-regions a.png,b.png -seed 1"
    )


def test_an_option_of_a_fork_is_refused_with_the_whole_line_translated(our_th):
    words = [
        "-content_image",
        "my photo.jpg",
        "-content_seg",
        "c.png",
        "-style_seg",
        "s.png",
        "-color_codes",
        "red",
    ]
    answer = run("th", "neural_style.lua", *words, env=environment(PATH=str(our_th)), text=True)
    assert answer.returncode == 1
    assert answer.stderr == (
        "invalid argument: -content_seg\n"
        "neural_style: -content_seg is not an option of neural_style.lua: use --content-regions. In full:"
        " th neural_style.lua -content_image 'my photo.jpg' --content-regions c.png --style-regions s.png\n"
    )
    # What has no translation has none.
    answer = run(
        "th",
        "neural_style.lua",
        "-mask",
        "m.png",
        "-face_layer",
        "x",
        env=environment(PATH=str(our_th)),
        text=True,
    )
    assert answer.stderr.endswith("-mask is not an option of neural_style.lua: use --mask.\n")


@pytest.mark.parametrize("module", th.SCRIPTS.values())
def test_every_script_that_th_serves_has_its_program(module):
    assert callable(importlib.import_module(f"legacy_style.cli.{module}").main)


def test_th_serves_the_script_whatever_its_folder(our_th, other_th):
    path = os.pathsep.join([str(our_th), str(other_th)])
    answer = run("th", "/root/neural-style/neural_style.lua", "-foo", env=environment(PATH=path), text=True)
    assert (answer.returncode, answer.stderr) == (1, "invalid argument: -foo")
    answer = run("th", "neural_style.lua", "-h", env=environment(PATH=path), text=True)
    assert answer.stdout.startswith(f"Usage: {our_th / 'th'} [options]\n")


def test_two_of_our_own_on_the_path_do_not_call_each_other(our_th, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    (second / "th").write_text((our_th / "th").read_text())
    (second / "th").chmod(0o755)
    path = os.pathsep.join(map(str, [our_th, second]))
    answer = run("th", "other.lua", env=environment(PATH=path), text=True)
    assert answer.returncode == 1
    assert "other.lua is not served" in answer.stderr


def test_the_next_th_is_never_ourselves_under_another_name(our_th, other_th, tmp_path):
    linked = tmp_path / "linked"
    linked.symlink_to(our_th, target_is_directory=True)
    path = os.pathsep.join(map(str, [our_th, linked]))
    assert th.next_on_path(str(our_th / "th"), path) is None
    path = os.pathsep.join(map(str, [our_th, linked, other_th]))
    assert th.next_on_path(str(our_th / "th"), path) == str(other_th / "th")
    assert th.next_on_path("/nowhere/th", path) == str(our_th / "th")


@needs_shared
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_real_run_that_is_interrupted_leaves_its_last_image(tmp_path, number, status):
    for name in ("models", "examples"):
        (tmp_path / name).symlink_to(RECORDED / name)
    words = [
        "-gpu",
        "-1",
        "-image_size",
        "64",
        "-num_iterations",
        "1e6",
        "-print_iter",
        "1",
        "-save_iter",
        "0",
    ]
    words += ["-optimizer", "adam"]
    with forked.start("-m", "legacy_style", *words, cwd=tmp_path, anew=True) as program:
        try:
            assert any(line.startswith("Iteration 3 /") for line in program.stdout)
            program.send_signal(number)
            time.sleep(0.01)
            program.send_signal(number)
            out, err = program.communicate(timeout=60)
        finally:
            program.kill()
    assert program.returncode == status, err
    (made,) = [path for path in tmp_path.iterdir() if path.name not in ("models", "examples")]
    assert err.splitlines()[-1].endswith(f"; the last image that was saved is ./{made.name}")
    printed = [3] + [int(line.split()[1]) for line in out.splitlines() if line.startswith("Iteration ")]
    assert int(made.stem.removeprefix("out_")) in (printed[-1], printed[-1] - 1)
    with Image.open(made) as image:
        image.load()
        assert max(image.size) == 64


@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_the_user_wants_otherwise(given, used):
    """OpenMP reads the policy while torch is loaded, so that it must be chosen before."""
    engine = "import os\ndef stylize(options, *, log, **_): log(os.environ['OMP_WAIT_POLICY'])"
    policy = {} if given is None else {"OMP_WAIT_POLICY": given}
    clean = {key: value for key, value in environment(**policy).items() if given or key != "OMP_WAIT_POLICY"}
    answer = python("-c", PROGRAM, engine, text=True, env=clean)
    assert (answer.returncode, answer.stdout) == (0, f"{used}\n"), answer.stderr


def test_a_process_that_has_loaded_torch_keeps_its_policy(monkeypatch, engine):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    engine(stylize=lambda *args, **keywords: None)
    assert main(["--version"]) == 0
    assert "OMP_WAIT_POLICY" not in os.environ
