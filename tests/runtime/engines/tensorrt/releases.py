"""Real releases of TensorRT on a machine without a GPU: the small Python bindings, without the libraries.

The bindings are compiled against the libraries and want them on import; libraries of the right names whose functions
do nothing are enough for that. Each release is imported in a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pytest

_FUNCTIONS = {
    "libnvinfer": (
        "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
        "getBuilderPluginRegistry", "getPluginRegistry",
    ),
    "libnvinfer_plugin": ("initLibNvInferPlugins",),
    "libnvonnxparser": (
        "createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion",
    ),
    "libnvparsers": (  # of 8 only
        "_ZN11nvuffparser15createUffParserEv", "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
        "_ZN14nvcaffeparser117createCaffeParserEv", "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
    ),
}  # fmt: skip
"""What the bindings want of each library (nm -D --undefined-only)."""

_CHILD = r"""
import ctypes, importlib, json, re, sys

folder, module, libraries = json.loads(sys.argv[1])
for library in libraries:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
if folder:
    sys.path.insert(0, folder)
trt = importlib.import_module(module)
classes = {name: value for name, value in vars(trt).items() if isinstance(value, type)}

def named(text):
    # The first class in a text: also by the name that it has in C++.
    words = re.findall(r"\w+", text)
    return next((word for word in words + [word[1:] for word in words if word[0] == "I"] if word in classes), None)

def signatures(text):
    # pybind11 writes them into the docstring: one, or a numbered list of overloads.
    return re.findall(r"^(?:\d+\. )?\w*\((.*)\) -> (.*)$", text or "", flags=re.MULTILINE)

def given(text):
    for _, result in signatures(text):
        kind = named(result)
        if kind:
            return f"[{kind}]" if re.search(r"[Ll]ist|[Ii]ter", result) else kind
    return None

def parted(text):
    # At the commas that are in no bracket.
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]

def taken(text):
    found = []
    for arguments, _ in signatures(text):
        parts = parted(arguments)
        if not any(part.startswith("*") for part in parts):
            found.append([[named(part.partition(":")[2].partition("=")[0]), "=" in part] for part in parts])
    return found

def member(owner, name):
    value = getattr(owner, name, None)
    if type(value) is owner:  # of an enumeration
        return [owner.__name__, []]
    if isinstance(value, property):
        return [given(value.fget.__doc__ if value.fget else "") or given(value.__doc__), []]
    return [given(value.__doc__), taken(value.__doc__)] if callable(value) else [None, []]

def members(value):
    return {name: member(value, name) for name in dir(value) if not name.startswith("__") or name in KEPT}

KEPT = {"__init__", "__members__"}
rest = {name: member(trt, name) for name in vars(trt) if name not in classes}
described = {name: members(value) for name, value in classes.items()}
lines = {name: [each.__name__ for each in value.__mro__] for name, value in classes.items()}
found = {"version": trt.__version__, "classes": described, "rest": rest, "lines": lines}
print(json.dumps(found), flush=True)
"""


class Parameter(NamedTuple):
    """What a function takes: a class of the library, None for other things; whether it may be left out."""

    kind: str | None
    optional: bool


Signature: TypeAlias = tuple[Parameter, ...]
"""`self` included."""


class Member(NamedTuple):
    """An attribute of a class or of the module.

    Attributes:
        gives: the class of what it is or gives when called, in brackets for some of them; None for others.
        takes: its overloads; () where that is not told.
    """

    gives: str | None
    takes: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """What a release's module has: classes with their attributes, and the rest.

    Attributes:
        lines: of each class it and its ancestors.
    """

    version: str
    classes: dict[str, dict[str, Member]]
    rest: dict[str, Member]
    lines: dict[str, list[str]]

    def has(self, owner: str, name: str) -> bool:
        """Whether a class, or the module where that is "", has an attribute."""
        return self.member(owner, name) is not None

    def member(self, owner: str, name: str) -> Member | None:
        """An attribute of a class, or of the module where that is ""; a class of the module is its constructor."""
        if owner or name not in self.classes:
            return (self.classes.get(owner, {}) if owner else self.rest).get(name)
        return Member(name, tuple(signature[1:] for signature in self.classes[name]["__init__"].takes))


def fetched(requirement: str, folder: Path) -> Release:
    """A release by the requirement of its bindings, such as `tensorrt-cu12-bindings==10.3.0`; skips where there is no
    registry, but not in continuous integration."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--target", str(folder), requirement], capture_output=True, text=True, timeout=100, check=False
    )
    if done.returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no {requirement}: {done.stderr.strip()[-300:]}")
    major = requirement.partition("==")[2].partition(".")[0]
    names = [name for name in _FUNCTIONS if name != "libnvparsers" or major == "8"]
    return _described(str(folder), "tensorrt_bindings", [_stand_in(name, major, folder) for name in names])


def installed_rtx() -> Release:
    """TensorRT-RTX, which brings its real libraries."""
    return _described("", "tensorrt_rtx_bindings", [])


def _stand_in(library: str, major: str, folder: Path) -> str:
    """A library with functions that give 0, compiled here."""
    path = folder / f"{library}.so.{major}"
    source = "\n".join(f"void *{name}(void) {{ return 0; }}" for name in _FUNCTIONS[library])
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{path.name}", "-o", str(path)]
    subprocess.run(command, input=source, text=True, timeout=60, check=True)
    return str(path)


def _described(folder: str, module: str, libraries: list[str]) -> Release:
    argument = json.dumps([folder, module, libraries])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, argument], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    classes = {name: _members(described) for name, described in document["classes"].items()}
    return Release(document["version"], classes, _members(document["rest"]), document["lines"])


def _members(described: dict[str, tuple[str | None, list[list[tuple[str | None, bool]]]]]) -> dict[str, Member]:
    return {
        name: Member(gives, tuple(tuple(Parameter(*each) for each in signature) for signature in takes))
        for name, (gives, takes) in described.items()
    }
