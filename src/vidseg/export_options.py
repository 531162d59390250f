"""The longer options of `vidseg export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

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
MaxDisagreementOption = Annotated[
    float, typer.Option(help="Per cent of the pixels that may differ where float is sure; without labels.")
]
PlanOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="report.json of an export before: quantize the same layers, without searching."),
]
RtxOption = Annotated[
    str, typer.Option(help="Compute capabilities to compile for with TensorRT-RTX, as 86,120: audits the plans.")
]
