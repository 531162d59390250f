"""The command that builds plans for this machine's GPU."""

from __future__ import annotations

import json
import os
import re
import sys
from enum import Enum
from typing import Annotated, Optional

import typer

from vidseg.options import BundleArgument, JsonOption, choice_memory
from vidseg.progress import progress_bar
from vidseg.runtime.errors import UsageError


class PrecisionChoice(str, Enum):
    """What a plan computes in; `auto` is FP16 and INT8, against each other."""

    auto = "auto"
    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


def build(
    bundle: BundleArgument,
    precision: Annotated[
        PrecisionChoice, typer.Option(help="What to compute in; auto builds FP16 and INT8 and compares them.")
    ] = PrecisionChoice.auto,
    batch: Annotated[int, typer.Option(min=1, help="Most pictures at once, of several cameras.")] = 1,
    dla: Annotated[
        Optional[int],  # noqa: UP045 - typer reads it at run time, on Python 3.10 too
        typer.Option(min=0, help="Deep learning accelerator to use, the GPU for the rest.", show_default=False),
    ] = None,
    workspace: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Most memory for a kernel, in MiB.", show_default=False),
    ] = None,
    optimization_level: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="0 to 5: how long to look for fast kernels.", show_default=False),
    ] = None,
    tactic_sources: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Libraries of kernels, as CUBLAS,CUDNN.", show_default=False),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later releases of this TensorRT take the plan too.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Other GPUs, Ampere and later, take the plan too.")
    ] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Weights can be replaced later.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Do not take plans that were kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build plans for this machine's GPU, check them, compare their speed. `vidseg run` takes the fastest."""
    from vidseg.runtime.bundle import open_bundle
    from vidseg.runtime.cache import plans_folder
    from vidseg.runtime.engines.tensorrt.comparison import GpuPlanMaker, compare, machine_document, machine_text
    from vidseg.runtime.engines.tensorrt.settings import BuildSettings, Precision
    from vidseg.runtime.pipeline.signals import Interrupted, signals_raised

    wanted: list[Precision] = ["fp16", "int8"] if precision is PrecisionChoice.auto else [precision.value]
    settings = BuildSettings(
        precision=wanted[0], max_batch=batch, dla_core=dla, workspace_mib=workspace,
        optimization_level=optimization_level, tactic_sources=sources_of(tactic_sources),
        version_compatible=version_compatible, hardware_compatible=hardware_compatible, refit=refit,
    )  # fmt: skip
    opened = open_bundle(bundle)
    try:
        with signals_raised():
            maker = GpuPlanMaker(opened, plans_folder(os.environ), rebuild=rebuild)
            print(f"{bundle} on {machine_text(maker.machine)}", file=sys.stderr)
            found = compare(opened, wanted, settings, maker, progress=lambda step: progress_bar(step, 1))
    except Interrupted as interrupted:
        print(f"vidseg: ended by {interrupted}. Plans that were finished are kept.", file=sys.stderr)
        sys.exit(128 + interrupted.number)
    document = machine_document(maker.machine) | found.document()
    print(json.dumps(document, indent=2) if as_json else found.text())
    if choice_memory().remember(opened, found.chosen):
        print(f"`vidseg run` takes {found.chosen}, the fastest of these, from now on.", file=sys.stderr)


def sources_of(text: str | None) -> tuple[str, ...] | None:
    """The names of `--tactic-sources`; None where it was not given, none of them where it is empty.

    Raises:
        UsageError: it is no list of names.
    """
    if text is None:
        return None
    if not re.fullmatch(r"([A-Z][A-Z_]*(,[A-Z][A-Z_]*)*)?", text):
        raise UsageError("--tactic-sources is a list of names", text, "Write it as CUBLAS,CUDNN.")
    return tuple(text.split(",")) if text else ()
