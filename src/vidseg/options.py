"""The command line's options: their choices, how their texts are read, and what is remembered for them."""

from __future__ import annotations

import os
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from vidseg.runtime.errors import UsageError

if TYPE_CHECKING:
    from vidseg.runtime.engines.choice import ChoiceMemory


class EngineChoice(str, Enum):
    """The engines that can be asked for; `auto` is the fastest here, as remembered or found out."""

    auto = "auto"
    onnxruntime = "onnxruntime"
    openvino = "openvino"
    tensorrt = "tensorrt"


class ColorChoice(str, Enum):
    """Orders of colour channels."""

    rgb = "RGB"
    bgr = "BGR"


class FitChoice(str, Enum):
    """Ways of laying a frame on a model's input."""

    stretch = "stretch"
    letterbox = "letterbox"
    crop = "crop"


class ViewChoice(str, Enum):
    """Where the classes' colours go."""

    over = "over"
    mask = "mask"
    side_by_side = "side-by-side"


class ColorsChoice(str, Enum):
    """Whose colours the classes have."""

    bundle = "bundle"
    distinct = "distinct"


BundleArgument = Annotated[
    Path, typer.Argument(readable=False, help="A bundle: a .vidseg file or folder.", show_default=False)
]
EngineOption = Annotated[EngineChoice, typer.Option(envvar="VIDSEG_ENGINE", help="The library that infers.")]
VariantOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        envvar="VIDSEG_VARIANT", help="A variant of the bundle, as `vidseg inspect` names them.", show_default=False
    ),
]
SourceOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        help="Video, image folder, /dev/video0, csi://0, rtsp://…, 'gst:PIPELINE' or scene://street; may be given more "
        "than once."
    ),
]
SinkOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="window://, out.mp4, masks/, out.jsonl or web://127.0.0.1:8080; may be given more than once."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def choice_memory() -> ChoiceMemory:
    """The choices of engines in the user's cache folder."""
    from vidseg.runtime.cache import user_cache_folder
    from vidseg.runtime.engines.choice import ChoiceMemory

    return ChoiceMemory(user_cache_folder(os.environ))


def given_names(context: typer.Context) -> frozenset[str]:
    """Names of the parameters that were given on the command line or in the environment."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source and not source.name.startswith("DEFAULT"))


def thread_counts_of(text: str) -> list[int | None]:
    """The counts of `--threads`; None, one a core, where there are none.

    Raises:
        UsageError: it is no list of counts.
    """
    if not text:
        return [None]
    if not re.fullmatch(r"[1-9]\d{0,2}(,[1-9]\d{0,2})*", text):
        raise UsageError("--threads is a list of counts", text, "Write it as 1,2,4.")
    return [int(part) for part in text.split(",")]


def capabilities_of(text: str) -> tuple[int, ...]:
    """The compute capabilities of `--rtx`, as 86 for 8.6; none where it is empty.

    Raises:
        UsageError: it is no list of numbers.
    """
    if text and not re.fullmatch(r"\d{2,3}(,\d{2,3})*", text):
        raise UsageError("--rtx is a list of compute capabilities", text, "Write 8.6 and 12.0 as 86,120.")
    return tuple(int(part) for part in text.split(",")) if text else ()


def size_of(text: str | None) -> tuple[int, int] | None:
    """Width and height of `--size`.

    Raises:
        UsageError: it is not of the form 480x360.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match or not all(1 <= int(part) <= 16384 for part in match.groups()):
        raise UsageError("--size is width x height in pixels", text, "Write it as 480x360.")
    return int(match[1]), int(match[2])


def numbers_of(option: str, text: str) -> tuple[float, float, float]:
    """One number or three, each a decimal or a fraction; one stands for all three.

    Raises:
        UsageError: something else.
    """
    try:
        values = [_number(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{option} is a number, or three with commas between", text) from error
    if len(values) not in (1, 3) or (option == "--scale" and len(values) != 1):
        raise UsageError(f"{option} is one number" + ("" if option == "--scale" else ", or three"), text)
    return (values[0], values[0], values[0]) if len(values) == 1 else (values[0], values[1], values[2])


def _number(text: str) -> float:
    """`0.5`, or a fraction such as `1/127.5`."""
    number, _, divisor = text.partition("/")
    return float(number) / float(divisor) if divisor else float(number)
