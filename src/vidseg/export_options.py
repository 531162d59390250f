"""The longer options of `vidseg export`, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from vidseg.runtime.errors import UsageError

ModelOption = Annotated[
    str,
    typer.Argument(help="An ONNX file, or package.module:function of a PyTorch model.", show_default=False),
]
WeightsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="State dict of a PyTorch model; none where its function loads the weights."),
]
SizeOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Width and height of the input, as 480x360; needed where the model leaves it open."),
]
LabelsOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Class names: a known set, or a file with one per line and optional #rrggbb."),
]
OutputOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Name of the output, where there are several."),
]
FramesOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Video or folder to check the export on; the rendered street where none is given."),
]
CalibOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Video or folder of the real scene: quantize to INT8, and prove it.", show_default=False),
]
CalibFramesOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, max=10000, help="Frames to calibrate on.", show_default="100"),
]
VerifyImagesOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder of labelled pictures to judge INT8 on; held-out frames where none is given."),
]
VerifyLabelsOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder of PNGs of class ids, named as these pictures."),
]
VerifyMapOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="File that maps the model's classes to label ids."),
]
VerifyIgnoreOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=0, max=255, help="Label id to leave out.", show_default="255"),
]
MaxMiouDropOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Points of mean IoU that INT8 may lose; with labels.", show_default="0.5"),
]
MaxClassDropOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(help="Points of IoU that any class may lose; with labels.", show_default="2.0"),
]
MaxDisagreementOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option(
        help="Per cent of the pixels that may differ where float is sure; without labels.", show_default="0.5"
    ),
]
PlanOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="report.json of an export before: quantize the same layers, without searching."),
]
DlaOption = Annotated[
    bool,
    typer.Option("--dla", help="Write INT8 for NVIDIA's DLA too: a float graph, and ranges beside it."),
]
RtxOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(help="Compute capabilities to compile for with TensorRT-RTX, as 86,120: audits the plans."),
]

_OF_LABELS = ("--verify-map", "--verify-ignore", "--max-miou-drop", "--max-class-drop")
_BUDGETS = ("--max-miou-drop", "--max-class-drop", "--max-disagreement")


def check_int8_options(options: Mapping[str, float | str | Path | None]) -> None:
    """Refuse what the other options leave without effect.

    Args:
        options: all that are about INT8, `--calib` among them, by their names; None where one is not given.

    Raises:
        UsageError: there is one, or a budget that is no share.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if "--calib" not in given:
            raise UsageError(f"{name} is for INT8", "no --calib", "Give --calib VIDEO_OR_FOLDER of the real scene.")
        if name in _OF_LABELS and "--verify-images" not in given:
            do = "Give --verify-images and --verify-labels."
            raise UsageError(f"{name} is for labelled pictures", "no --verify-images", do)
    if "--max-disagreement" in given and "--verify-images" in given:
        what = "--max-disagreement is for frames without labels"
        raise UsageError(what, "--verify-images", "Take --max-miou-drop and --max-class-drop.")
    for name in _BUDGETS:
        value = given.get(name, 0)
        if isinstance(value, (int, float)) and not 0 <= value <= 100:
            raise UsageError(f"{name} is a number between 0 and 100", f"{value:g}")


def without_none(**options: Any) -> dict[str, Any]:
    """The options that are given; the others are left to the defaults of what takes them."""
    return {name: value for name, value in options.items() if value is not None}
