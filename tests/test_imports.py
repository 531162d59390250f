"""On a device only the base dependencies are installed: a stray import there ends every command."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FOLDERS = {"src/vidseg": "vidseg", "runtime": "vidseg.runtime", "export": "vidseg.export"}
FOLDERS["calibration"] = "vidseg.calibration"
HEAVY = [
    "anyio", "av", "onnx", "onnx_ir", "onnxruntime", "onnxslim", "openvino", "prometheus_client", "pycuda", "starlette",
    "tensorrt", "tensorrt_rtx_bindings", "torch", "uvicorn",
]  # fmt: skip

# Imports each module afresh with every third-party package hidden but those given; prints what went wrong.
CHILD = """
import importlib, importlib.abc, json, sys
modules, allowed, heavy = json.loads(sys.argv[1])

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names and not top.startswith("__editable__"):
            raise ModuleNotFoundError(f"{name} is no base dependency", name=name)

sys.meta_path.insert(0, Hide())
wrong = []
for module in modules:
    for loaded in [name for name in sys.modules if name.partition(".")[0] in {"vidseg", *heavy}]:
        del sys.modules[loaded]
    try:
        importlib.import_module(module)
    except Exception as error:
        wrong.append(f"{module}: {error!r}")
    wrong += [f"{module} loads {name}" for name in heavy if name in sys.modules]
print(json.dumps(wrong))
"""


def _modules() -> list[str]:
    return sorted(
        ".".join((target, *path.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__")
        for folder, target in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    )


def _base_packages() -> set[str]:
    """Top-level names of what `pip install vidseg` installs: its requirements without extras, and theirs."""
    names, distributions, waiting = {"vidseg", "cv2"}, {"vidseg"}, ["vidseg"]  # cv2 may be the headless build
    while waiting:
        try:
            distribution = importlib.metadata.distribution(waiting.pop())
        except importlib.metadata.PackageNotFoundError:
            continue
        names |= {file.parts[0].split(".")[0] for file in distribution.files or []}
        for text in distribution.requires or []:
            requirement = Requirement(text)
            is_asked_for = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if is_asked_for and requirement.name not in distributions:
                distributions.add(requirement.name)
                waiting.append(requirement.name)
    return names


def test_every_module_imports_alone_with_the_base_dependencies_and_loads_nothing_heavy() -> None:
    base = _base_packages()
    assert {"numpy", "yaml", "msgspec"} <= base
    assert not {"torch", "onnx", "openvino", "sklearn", "hypothesis"} & base
    argument = json.dumps([_modules(), sorted(base), HEAVY])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, argument], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
