"""A network is exported from its own code: the bundle has to say what PyTorch says, and weights never run code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidseg.export.exporter import ExportRequest, export_model
from vidseg.runtime.bundle import open_bundle
from vidseg.runtime.engines.opening import open_engine
from vidseg.runtime.errors import ConfigurationError, ModelError

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

DOCUMENT = Path(__file__).parents[2] / "docs/export.md"
FRAMES = "scene://street?pace=max&fps=0.5&frames=2&size=64x48"
NETS = """
from collections import namedtuple
import sys

import torch
from torch import nn

from width import WIDTH


class Net(nn.Module):
    def __init__(self, answer=lambda scores, features: scores, classes=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.head = nn.Conv2d(WIDTH, classes, 1)
        self.answer = answer

    def forward(self, image):
        features = self.body(image)
        return self.answer(self.head(features), features)


class Branching(Net):
    def forward(self, image):
        return super().forward(image) if image.mean() > 0.2 else -super().forward(image)


Pair = namedtuple("Pair", "scores features")
build = Net
fails = lambda: {}["no such\\nwidth"]
ends = lambda: sys.exit("usage: nets.py")
needs = lambda classes: Net(classes=classes)
number = lambda: 3
script = lambda: torch.jit.script(nn.ReLU())
ignores = lambda: Net(lambda scores, features: torch.ones(1, 4, 48, 64))
image = lambda: Net(lambda scores, features: {"image": scores})
five = lambda: Net(classes=5)
half = lambda: Net().half()
branching = Branching
noisy = lambda: Net(lambda scores, features: scores + torch.rand_like(scores))
infinite = lambda: Net(lambda scores, features: scores / 0)
with_out = lambda: Net(lambda scores, features: {"aux": features, "out": scores})
keys = lambda: Net(lambda scores, features: {"image": features, "scores": scores, "loss": None})
pair = lambda: Net(lambda scores, features: (scores, [features, 3, {"again": scores}]))
named_pair = lambda: Net(Pair)
fails_later = lambda: Net(lambda scores, features: scores.no_such_thing)
nothing = lambda: Net(lambda scores, features: [None])
bessel = lambda: Net(lambda scores, features: torch.special.bessel_j0(scores))
ready = Net()
constant = 3
"""


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.fixture
def request_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExportRequest:
    """A request that works, in a current folder with networks, weights and names; temporary files go elsewhere."""
    for name in ("work/deep", "out", "temporary"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Path("nets.py").write_text(NETS)
    Path("width.py").write_text("WIDTH = 8\n")
    Path("deep/inner.py").write_text("from nets import build\n")
    Path("broken.py").write_text("import no_such_package\n")
    Path("names.txt").write_text("one\ntwo\nthree\nfour\n")
    torch.save(trained().state_dict(), "best.pt")
    return ExportRequest(
        model="nets:build",
        weights=Path("best.pt"),
        size_wh=(64, 48),
        out=tmp_path / "out/model.vidseg",
        labels="names.txt",
        frames=FRAMES,
    )


def trained() -> Any:
    """The same network every time, with statistics in its norm."""
    namespace: dict[str, Any] = {}
    exec(NETS.replace("from width import WIDTH", "WIDTH = 8"), namespace)
    rng = torch.manual_seed(3)
    net = namespace["Net"]()
    with torch.no_grad():
        for _ in range(20):
            net(torch.rand(2, 3, 48, 64, generator=rng) * 3 - 1)
    return net.eval()


def expected_classes(image: np.ndarray[Any, Any], request: ExportRequest) -> Any:
    """PyTorch's own answer, (h, w, 3) uint8 BGR to (h, w)."""
    values = (torch.from_numpy(image[..., ::-1].copy()) * request.scale - torch.tensor(request.mean)) / torch.tensor(
        request.std
    )
    with torch.no_grad():
        return trained()(values.permute(2, 0, 1)[None].float())[0].argmax(0).numpy()


def check_bundle(request: ExportRequest) -> None:
    export_model(request)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    wanted = expected_classes(image, request)
    assert len(np.unique(wanted)) > 2
    with open_engine(open_bundle(request.out)) as engine:
        assert (engine.enqueue(image[None]).result()["class_map"][0] == wanted).mean() > 0.999


def test_the_bundle_gives_the_classes_that_pytorch_gives(request_for: ExportRequest) -> None:
    check_bundle(replace(request_for, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))


@pytest.mark.parametrize(
    ("model", "output"),
    [
        ("deep.inner:build", None),
        ("nets:with_out", None),
        ("nets:keys", "scores"),
        ("nets:image", None),
        ("nets:pair", "output0"),
        ("nets:pair", "output1.2.again"),
        ("nets:named_pair", "scores"),
    ],
)
def test_places_and_outputs_of_every_kind(request_for: ExportRequest, model: str, output: str | None) -> None:
    check_bundle(replace(request_for, model=model, output=output))


def test_several_outputs_are_listed(request_for: ExportRequest) -> None:
    refused(
        replace(request_for, model="nets:pair"), r"several outputs: got output0 \[1, 4, 48, 64\], output1.0 .*--output"
    )
    refused(replace(request_for, model="nets:with_out", output="aux"), r"no output is named 'aux': got out \[1, 4")


@pytest.mark.parametrize("kind", ["state_dict", "model", "parallel", "parallel in a checkpoint"])
def test_weights_as_training_scripts_save_them(request_for: ExportRequest, kind: str) -> None:
    state = dict(trained().state_dict())
    parallel = {f"module.{key}": value for key, value in state.items()}
    torch.save(
        {
            "state_dict": {"state_dict": state, "epoch": 3},
            "model": {"model": state, "optimizer": {"state": {}}},
            "parallel": parallel,
            "parallel in a checkpoint": {"state_dict": parallel},
        }[kind],
        "best.pt",
    )
    check_bundle(request_for)


def test_a_model_of_half_precision_takes_full_weights(request_for: ExportRequest) -> None:
    check_bundle(replace(request_for, model="nets:half"))


def test_a_function_may_load_its_own_weights(request_for: ExportRequest) -> None:
    with Path("nets.py").open("a") as file:
        file.write("def loaded():\n    net = Net()\n    net.load_state_dict(torch.load('best.pt'))\n    return net\n")
    check_bundle(replace(request_for, model="nets:loaded", weights=None))


def test_the_bundle_says_where_it_came_from_and_is_the_same_every_time(request_for: ExportRequest) -> None:
    export_model(request_for)
    first = request_for.out.read_bytes()
    provenance = open_bundle(request_for.out).manifest.provenance
    assert provenance.model_name == "nets:build"
    assert re.fullmatch("[0-9a-f]{64}", provenance.model_sha256)
    assert provenance.tools["torch"].split("+")[0] == torch.__version__.split("+")[0]
    export_model(replace(request_for, overwrite=True))
    assert request_for.out.read_bytes() == first


@pytest.mark.parametrize("model", ["nets:build", "nets:fails", "deep.inner:build", "broken:build"])
def test_path_and_modules_are_as_before(request_for: ExportRequest, model: str) -> None:
    path, flag = list(sys.path), sys.dont_write_bytecode
    files = sorted(Path.cwd().rglob("*"))
    try:
        export_model(replace(request_for, model=model))
    except ModelError:
        assert model in {"nets:fails", "broken:build"}
    assert (sys.path, sys.dont_write_bytecode) == (path, flag)
    assert not {"nets", "width", "deep", "deep.inner", "broken"} & set(sys.modules)
    assert {"torch", "onnx", "onnxruntime"} <= set(sys.modules)
    assert sorted(Path.cwd().rglob("*")) == files
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


BAD_FUNCTIONS = {
    "nothere:build": "no module nothere, here or installed.*without .py",
    "nets.py:build": "no module nets.py, here or installed.*without .py",
    "deep.nothere:build": "no module deep.nothere",
    "broken:build": r"importing broken failed: got ModuleNotFoundError: No .* 'no_such_package' \(broken.py, line 1\)",
    "wrong:build": r"importing wrong failed: got SyntaxError: .*wrong.py, line 2",
    "nets:bild": r"nets has no bild: got Net, Branching",
    "nets:constant": "constant is not callable without arguments: got a int",
    "nets:ready": "ready is not callable without arguments: got a Net.*function that returns",
    "nets:number": r"number\(\) returns no torch.nn.Module: got a int",
    "nets:script": r"script\(\) returns no torch.nn.Module: got a RecursiveScriptModule.*not TorchScript",
    "nets:ignores": "needs one input, an image: got none",
    "nets:needs": r"calling needs\(\) failed: got TypeError: .*'classes'",
    "nets:fails": r"calling fails\(\) failed: got KeyError: 'no such\\nwidth' \(nets.py, line \d+\)",
    "nets:ends": r"calling ends\(\) failed: got SystemExit: usage",
    "nets:fails_later": r"image of 64x48 failed: got AttributeError: .*no_such_thing.* \(nets.py, line \d+\)",
    "nets:nothing": "returns no tensor: got list",
    "nets:bessel": "cannot export the model to ONNX, opset 17: got UnsupportedOperatorError: .*special_bessel_j0",
    "nets:branching": r"computes something else than PyTorch: got output differs by .*branches",
    "nets:noisy": "computes something else than PyTorch",
    "nets:infinite": "no numbers: got NaN or infinity in output",
    "nets:five": r"do not fit nets:five: got RuntimeError: size mismatch for head.weight",
}


@pytest.mark.parametrize("model", BAD_FUNCTIONS)
def test_a_function_that_cannot_be_exported_is_one_line(request_for: ExportRequest, model: str) -> None:
    Path("wrong.py").write_text("x = 1\nif :\n")
    refused(replace(request_for, model=model), BAD_FUNCTIONS[model])


def test_files_that_are_no_weights(request_for: ExportRequest) -> None:
    weights = Path("best.pt")
    content = weights.read_bytes()
    for wrong in (b"", b"hello", content[:100], content[: len(content) // 2]):
        weights.write_bytes(wrong)
        refused(request_for, f"not a checkpoint of PyTorch, or a damaged one: got {len(wrong)} bytes")
    for value in ([1, 2], {3: torch.zeros(1)}, torch.zeros(3)):
        torch.save(value, weights)
        refused(request_for, "holds no state_dict: got a (list|dict|Tensor)")
    weights.unlink()
    refused(request_for, "best.pt: there is no such file")
    refused(replace(request_for, weights=Path("deep")), "deep: there is no such file")


def test_weights_that_do_not_fit_name_the_first_of_each_kind(request_for: ExportRequest) -> None:
    state = dict(trained().state_dict())
    renamed = {key.replace("head", "classifier"): value for key, value in state.items()}
    torch.save(renamed, "best.pt")
    refused(request_for, r"missing head.weight \(2 in all\), unexpected classifier.weight \(2 in all\)")
    torch.save({}, "best.pt")
    refused(request_for, r"missing body.0.weight \(8 in all\)\.")
    torch.save(state | {"head.weight": 3}, "best.pt")
    refused(request_for, "do not fit nets:build: got RuntimeError: .*head.weight")


@pytest.mark.parametrize("kind", ["alone", "in a checkpoint", "old format", "TorchScript", "whole model"])
def test_code_in_a_weights_file_is_not_run(request_for: ExportRequest, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "executed"
    value: Any = Evil(target) if kind == "alone" else {**trained().state_dict(), "x": Evil(target)}
    if kind == "TorchScript":
        torch.jit.trace(torch.nn.ReLU(), torch.zeros(1)).save("best.pt")
    else:
        value = torch.nn.ReLU() if kind == "whole model" else value
        torch.save(value, "best.pt", _use_new_zipfile_serialization=kind != "old format")
    refused(request_for, "best.pt: the file holds code, and was not loaded: got .*Save a state_dict")
    assert not target.exists()
    if kind == "alone":  # the file does what it says: without weights_only it would have
        torch.load("best.pt", weights_only=False)
        assert target.exists()


def test_a_pytorch_that_is_missing_or_unsafe_is_named(
    request_for: ExportRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    refused(request_for, r'cannot load weights safely: got 2.5.1\+cpu\. Update it: pip install "torch>=2.6"')
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(request_for, "needs PyTorch: got no torch. Install it: pip install torch")


def refused(request: ExportRequest, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        export_model(request)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    assert list(request.out.parent.iterdir()) == []
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_the_commands_of_the_document_work(tmp_path: Path) -> None:
    section = DOCUMENT.read_text().split("## From PyTorch")[1]
    (network,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    (command,) = re.findall(r"```sh\nvidseg (.*?)\n```", section, flags=re.DOTALL)
    (tmp_path / "nets.py").write_text(network)
    (tmp_path / "classes.txt").write_text("one\ntwo\nthree\nfour\n")
    namespace: dict[str, Any] = {}
    exec(network, namespace)
    torch.save(namespace["build"]().state_dict(), tmp_path / "best.pt")
    done = vidseg(*shlex.split(command), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "nets",
        "nets",
        "comparing with the original on 16 frames",
    ]
    assert done.stdout.endswith("Wrote model.vidseg\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "classes.txt", "model.vidseg", "nets.py"]


def test_an_operator_that_cannot_be_exported_is_one_line_of_the_command(request_for: ExportRequest) -> None:
    """The exporter's C++ part prints whole graphs."""
    done = vidseg(
        "export", "nets:bessel", "--weights", "best.pt", "--size", "64x48", "--labels", "names.txt", "--out",
        "x.vidseg", folder=Path.cwd(),
    )  # fmt: skip
    assert request_for.weights is not None
    assert done.returncode == 3
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == "nets:bessel: from PyTorch to ONNX"
    assert second.startswith("vidseg: nets:bessel: PyTorch cannot export")
    assert not Path("x.vidseg").exists()


def vidseg(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vidseg", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
