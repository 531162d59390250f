"""The commands as a person and as a script meet them: one line on errors, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Command
from tests.export.models import ModelSpec, write_model
from tests.reader_material import write_clip
from tests.tiny_models import write_tiny_bundle
from vidseg.calibration.dataset import LabelledImage, labelled_folder
from vidseg.calibration.evaluation import evaluate
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines.opening import open_engine
from vidseg.runtime.frame import UNKNOWN
from vidseg.runtime.pipeline.opening import demo_bundle_path
from vidseg.runtime.segmenter import Segmenter
from vidseg.runtime.sources.scene import SceneOptions, SceneSource
from vidseg.runtime.sources.street.code import code_height
from vidseg.runtime.sources.street.render import Street

VIDSEG = [sys.executable, "-m", "vidseg"]


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in {"DISPLAY", "WAYLAND_DISPLAY"}}


def vidseg(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VIDSEG, *arguments], cwd=folder, env=_environment(), capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    write_tiny_bundle(folder / "tiny.vidseg", (64, 48))
    write_clip(folder / "clip.mp4", 10, (64, 48))
    write_model(folder / "model.onnx", ModelSpec())
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
    return folder


def test_the_demo_runs_without_arguments_and_without_a_display(tmp_path: Path) -> None:
    done = vidseg("run", "--source", "scene://street?frames=10&pace=max", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "There is no display here: the picture goes to vidseg-001.mp4" in done.stderr
    assert (tmp_path / "vidseg-001.mp4").stat().st_size > 1000


def test_json_is_json_and_adds_up(tmp_path: Path, material: Path) -> None:
    done = vidseg(
        "run", str(material / "tiny.vidseg"), "--source", str(material / "clip.mp4"), "--sink", "null://", "--sink",
        "masks/", "--json", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["final"] is True
    assert (last["captured"], last["resolved"], last["dropped"], last["in_flight"]) == (10, 10, {}, 0)
    assert last["sinks"]["null://"]["written"] == 10
    assert len(list((tmp_path / "masks").iterdir())) == 10


def test_the_demo_model_knows_its_street() -> None:
    """The packaged model on streets that no training saw, judged by the project's own evaluation."""
    bundle = open_bundle(demo_bundle_path())
    assert demo_bundle_path().stat().st_size <= 2_000_000

    def unseen() -> Iterator[LabelledImage]:
        for seed in range(9_000, 9_010):
            street = Street(seed, (640, 480))
            for second in (4, 31):
                image, labels = street.render(second * 30, float(second))
                labels[-code_height(480) :] = UNKNOWN
                yield LabelledImage(f"street {seed}", image, labels)

    names = [spec.name for spec in bundle.manifest.output.classes]
    with Segmenter(open_engine(bundle, "openvino")) as segmenter:
        report = evaluate(segmenter, unseen(), names)
    assert report.scores.mean_iou >= 0.85
    assert report.pictures == 20


def test_a_frames_true_age_is_read_from_the_recording(tmp_path: Path) -> None:
    """Frame numbers in the recorded pixels are those that were captured, in order, none twice."""
    import av

    from vidseg.runtime.sources.street.code import read_code

    done = vidseg(
        "run", "--source", "scene://street?frames=12&pace=max", "--sink", "out.mp4", "--no-hud", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with av.open(str(tmp_path / "out.mp4")) as container:
        codes = [read_code(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
    assert [code and code.index for code in codes] == list(range(12))
    assert all(code and code.captured_us > 0 for code in codes)


def test_inspect_and_evaluate_print_text_and_json(tmp_path: Path, material: Path) -> None:
    bundle = str(material / "tiny.vidseg")
    assert "0 blue, 1 green, 2 red" in vidseg("inspect", bundle, folder=tmp_path).stdout
    assert json.loads(vidseg("inspect", bundle, "--json", folder=tmp_path).stdout)["task"] == "semantic"
    samples = tmp_path / "bundle"
    write_tiny_bundle(samples, (64, 48))
    for kind, name in (("images", "0.png"), ("labels", "0-classes.png")):
        (tmp_path / kind).mkdir()
        (samples / "samples" / name).rename(tmp_path / kind / "0.png")
    assert len(labelled_folder(tmp_path / "images", tmp_path / "labels")) == 1
    arguments = ("evaluate", bundle, "--images", "images", "--labels", "labels")
    assert "mean IoU        1.0000" in vidseg(*arguments, folder=tmp_path).stdout
    assert json.loads(vidseg(*arguments, "--json", folder=tmp_path).stdout)["mean_iou"] == 1.0


def test_bench_finds_the_fastest_and_run_takes_it(tmp_path: Path, material: Path) -> None:
    bundle = str(material / "tiny.vidseg")
    assert vidseg("bench", bundle, "--seconds", "0", "--threads", "1,x", folder=tmp_path).returncode == 2
    done = vidseg("bench", bundle, "--seconds", "0", "--json", folder=tmp_path)
    report = json.loads(done.stdout)
    assert [row["candidate"]["engine"] for row in report["rows"]] == ["onnxruntime", "openvino"]
    assert all(row["agreement"] == 1.0 for row in report["rows"])
    assert f"takes {report['chosen']['engine']} float from now on" in done.stderr
    assert report["chosen"] in json.loads((_cache() / "engine-choices.json").read_text()).values()
    table = vidseg("bench", bundle, "--seconds", "0", folder=tmp_path).stdout.splitlines()
    assert len(table) == 3
    assert sum(line.startswith("*") for line in table) == 1


def test_doctor_tries_the_demo_model(tmp_path: Path) -> None:
    done = vidseg("doctor", "--json", folder=tmp_path)
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0
    for engine in ("onnxruntime", "openvino"):
        assert findings[engine]["verdict"] == "ok"
        assert "100.00" in findings[engine]["text"] or "99.99" in findings[engine]["text"]
    assert findings["window"].keys() == {"subject", "verdict", "text", "fix"}
    assert findings["cache"]["text"] == str(_cache())
    (_cache()).chmod(0o777)
    broken = vidseg("doctor", folder=tmp_path)
    _cache().chmod(0o700)
    assert broken.returncode == 1
    assert "chmod 700" in broken.stdout


def test_fractions_are_numbers(tmp_path: Path, material: Path) -> None:
    arguments = ("--out", "x.vidseg", "--labels", str(material / "classes.txt"), "--scale", "1/127.5", "--mean", "1")
    assert vidseg("export", str(material / "model.onnx"), *arguments, folder=tmp_path).returncode == 0


def _cache() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"]) / "vidseg"


@pytest.mark.parametrize(
    "refused",
    [
        (("run", "nothing.vidseg"), 3, "no such bundle"),
        (("run", "BUNDLE", "--source", "nothing.mp4", "--sink", "out.mp4"), 5, "nothing.mp4"),
        (("run", "BUNDLE", "--source", "text.mp4", "--sink", "out.mp4"), 5, "text.mp4"),
        (("run", "BUNDLE", "--source", "empty/", "--sink", "out.mp4"), 5, "empty"),
        (("run", "BUNDLE", "--source", "scene://park", "--sink", "out.mp4"), 2, "no such scene"),
        (("run", "BUNDLE", "--sink", "ftp://x"), 2, "ftp"),
        (("run", "BUNDLE", "--sink", "missing/out.mp4"), 1, "no folder"),
        (("run", "BUNDLE", "--source", "CLIP", "--source", "CLIP", "--sink", "null://"), 2, "two sources are the same"),
        (("run", "BUNDLE", "--source", "text.mp4", "--sink", "./text.mp4"), 2, "text.mp4 is read"),
        (("run", "BUNDLE", "--source", "empty", "--sink", "empty/"), 2, "empty is read"),
        (("run", "BUNDLE", "--sink", "a.mp4", "--sink", "./a.mp4"), 2, "a.mp4 is written by another sink"),
        (("inspect", "text.mp4"), 3, "not a bundle"),
        (("evaluate", "BUNDLE", "--images", "nothing", "--labels", "nothing"), 3, "no such folder"),
        (("export", "text.mp4", "--out", "x.vidseg", "--labels", "camvid"), 3, "not an ONNX model"),
        (("export", "text.mp4", "--out", "x.vidseg", "--size", "big"), 2, "width x height"),
        (("export", "text.mp4", "--out", "x.vidseg", "--mean", "1,2"), 2, "--mean"),
        (("export", "text.mp4", "--out", "x.vidseg", "--std", "0"), 2, "not 0"),
        (("export", "text.mp4", "--out", "x.vidseg", "--weights", "x.pt"), 2, "--weights goes with a PyTorch model"),
        (("export", "nets:build", "--out", "x.vidseg"), 2, "a PyTorch model needs --size"),
    ],
)
def test_bad_input_is_one_line_and_the_right_code(
    tmp_path: Path, material: Path, in_process: Command, refused: tuple[tuple[str, ...], int, str]
) -> None:
    arguments, code, message = refused
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    places = {"BUNDLE": str(material / "tiny.vidseg"), "CLIP": str(material / "clip.mp4")}
    found, said = in_process(*(places.get(argument, argument) for argument in arguments))
    errors = [line for line in said.splitlines() if line.startswith("vidseg: ")]
    assert found == code, said
    assert len(errors) == 1, said
    assert message in errors[0]
    assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before


def test_where_no_window_can_be_opened_that_is_one_line(tmp_path: Path, material: Path) -> None:
    done = vidseg("run", str(material / "tiny.vidseg"), "--sink", "window://", folder=tmp_path)
    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert line.startswith("vidseg: no window can be opened: got no display")


def test_an_unknown_option_is_a_usage_error(tmp_path: Path) -> None:
    done = vidseg("run", "--no-such-option", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["vidseg: No such option: --no-such-option Try `vidseg --help`."]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "a" * 300 + ".vidseg", "--sink", "null://"),
        ("run", "BUNDLE", "--source", "a" * 300 + ".mp4", "--sink", "null://"),
        ("run", "BUNDLE", "--source", "loop", "--sink", "null://"),
        ("run", "BUNDLE", "--sink", "a" * 300 + ".mp4"),
        ("run", "BUNDLE", "--sink", "loop/"),
        ("export", "a" * 300 + ".onnx", "--out", "x.vidseg"),
        ("evaluate", "BUNDLE", "--images", "a" * 300, "--labels", "x"),
    ],
)
def test_paths_that_the_system_refuses_are_one_line(
    tmp_path: Path, material: Path, in_process: Command, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    bundle = str(material / "tiny.vidseg")
    code, said = in_process(*(bundle if argument == "BUNDLE" else argument for argument in arguments))
    assert code in {1, 2, 3, 5}, said
    assert sum(line.startswith("vidseg: ") for line in said.splitlines()) == 1, said
    assert "Traceback" not in said


def test_a_pipe_is_no_video_and_never_waited_for(tmp_path: Path, material: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    bundle = str(material / "tiny.vidseg")
    done = vidseg("run", bundle, "--source", "pipe.mp4", "--sink", "null://", folder=tmp_path)
    assert done.returncode == 5
    assert "a pipe or device" in done.stderr
    done = vidseg("run", bundle, "--source", str(material / "clip.mp4"), "--sink", "pipe.mp4", folder=tmp_path)
    assert done.returncode == 1
    assert "pipe or device of that name" in done.stderr


def test_nothing_that_is_read_is_overwritten(tmp_path: Path, material: Path) -> None:
    clip = str(material / "clip.mp4")
    shutil.copy(material / "tiny.vidseg", tmp_path / "tiny.mp4")
    done = vidseg("run", "tiny.mp4", "--source", clip, "--sink", "tiny.mp4", folder=tmp_path)
    assert done.returncode == 2
    shutil.copy(material / "model.onnx", tmp_path / "m.vidseg")
    done = vidseg("export", "m.vidseg", "--out", "./m.vidseg", "--overwrite", folder=tmp_path)
    assert done.returncode == 2
    assert "is the model itself" in done.stderr
    assert (tmp_path / "m.vidseg").read_bytes() == (material / "model.onnx").read_bytes()


def test_a_recording_goes_where_a_link_leads(tmp_path: Path, material: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.mp4").symlink_to("disk/real.mp4")
    arguments = (str(material / "tiny.vidseg"), "--source", str(material / "clip.mp4"), "--sink", "out.mp4")
    assert vidseg("run", *arguments, folder=tmp_path).returncode == 0
    assert (tmp_path / "out.mp4").is_symlink()
    assert (tmp_path / "disk/real.mp4").stat().st_size > 1000


def test_missed_frames_of_a_live_source_are_counted(tmp_path: Path, material: Path) -> None:
    source = "scene://street?frames=40&fps=200&size=640x480"
    done = vidseg(
        "run", str(material / "tiny.vidseg"), "--source", source, "--sink", "null://", "--json", folder=tmp_path
    )
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["captured"] == 40
    assert last["captured"] == last["resolved"] + sum(last["dropped"].values())
    assert last["dropped"]["missed"] > 0  # it takes longer to render than there is time


def test_output_that_nobody_takes_is_no_traceback(tmp_path: Path, material: Path) -> None:
    inspect = f"{shlex.join(VIDSEG)} inspect {material / 'tiny.vidseg'}"
    for redirection, code in ((">/dev/full", 3), (">&- 2>&-", 0), ("| true", 0)):
        command = f"{inspect} {redirection}"
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=_environment(), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == code, (command, done.stderr)
        assert "Traceback" not in done.stderr


def test_the_libraries_telemetry_is_off(tmp_path: Path) -> None:
    environment = {name: value for name, value in _environment().items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [*VIDSEG, "doctor"], cwd=tmp_path, env=environment | {"HOME": str(tmp_path / "home")}, check=False, timeout=60,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert not list((tmp_path / "home").rglob("*")) if (tmp_path / "home").exists() else True


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_time_with_the_file_whole(tmp_path: Path, number: signal.Signals, code: int) -> None:
    import av

    heeds = ["env", f"--default-signal={number.name.removeprefix('SIG')}"]  # whatever started the tests may ignore it
    running = subprocess.Popen(
        [*heeds, *VIDSEG, "run", "--source", "scene://street?size=160x120", "--sink", "out.mp4", "--json"],
        cwd=tmp_path, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    written = 0
    while written == 0:  # ends with the test's own timeout
        written = json.loads(running.stdout.readline())["sinks"]["out.mp4"]["written"]
    running.send_signal(number)
    output, _ = running.communicate(timeout=10)
    assert running.returncode == code
    last = json.loads(output.splitlines()[-1])
    assert last["in_flight"] == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == last["sinks"]["out.mp4"]["written"]


def test_labels_of_a_scene_are_those_of_its_frames() -> None:
    source = SceneSource(SceneOptions(size_wh=(64, 48), seed=3))
    image, labels = Street(3, (64, 48)).render(5, 5 / 30)
    labels[-code_height(48) :] = UNKNOWN
    assert np.array_equal(source.labels(5), labels)
    assert image.shape == (48, 64, 3)


@pytest.mark.parametrize("given", [("--sink", "jsonl://-"), ("--config", "site.yaml")])
def test_two_that_print_are_refused(tmp_path: Path, given: tuple[str, str]) -> None:
    """Lines of two kinds, mixed, would be understood by no program."""
    (tmp_path / "site.yaml").write_text("sources: {street: {uri: 'scene://street?frames=2'}}\nsinks: ['jsonl://-']\n")
    done = vidseg("run", *given, "--json", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "both write to the standard output" in done.stderr
