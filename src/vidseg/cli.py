"""The command line. Reads argv and environment; everything else is library calls."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from vidseg.build_command import build
from vidseg.export_commands import export, lint, record_calib
from vidseg.options import (
    BundleArgument,
    ColorsChoice,
    EngineChoice,
    EngineOption,
    JsonOption,
    SinkOption,
    SourceOption,
    VariantOption,
    ViewChoice,
    choice_memory,
    given_names,
    thread_counts_of,
)
from vidseg.progress import progress_bar
from vidseg.runtime.errors import StopTimeoutError, UsageError, VidsegError

if TYPE_CHECKING:
    from vidseg.runtime.pipeline import Pipeline, Statistics
    from vidseg.runtime.pipeline.opening import OpenOptions

log = logging.getLogger(__name__)

app = typer.Typer(
    name="vidseg",
    help="Live video segmentation on edge devices: export a verified bundle, run it on video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


_OptionError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""Click's, or that of the copy of Click that newer releases of Typer have inside."""


def main() -> None:
    """Run a command; end with one line and the error's exit code where something is wrong."""
    for name in ("stdout", "stderr"):  # closed by whoever started us
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for the whole process
    logging.basicConfig(level=logging.WARNING, format="vidseg: %(message)s", stream=sys.stderr)
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        result = app(standalone_mode=False)
        sys.stdout.flush()
    except VidsegError as error:
        return _said(str(error), error.exit_code)
    except _OptionError as error:
        return _said(f"{error.format_message()} Try `vidseg --help`.", 2)
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _said(f"{where}{error.strerror or error}", 3)
    return result if isinstance(result, int) else 0


def _said(message: str, exit_code: int) -> int:
    with suppress(OSError):
        print(f"vidseg: {message}", file=sys.stderr)
    return exit_code


@app.command()
def run(
    context: typer.Context,
    bundle: Annotated[
        Optional[Path],  # noqa: UP045 - typer reads it at run time, on Python 3.10 too
        typer.Argument(help="A bundle; the demo model where none is given.", show_default=False),
    ] = None,
    config: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="A site's configuration: what is given here or in the environment goes before it."),
    ] = None,
    source: SourceOption = None,
    sink: SinkOption = None,
    engine: EngineOption = EngineChoice.auto,
    variant: VariantOption = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="How strong the colours are.")] = 0.5,
    legend: Annotated[bool, typer.Option(help="Name the classes in the picture.")] = True,
    outline: Annotated[bool, typer.Option("--outline", help="Draw the borders of regions.")] = False,
    view: Annotated[ViewChoice, typer.Option(help="Colours over the frame, alone, or beside it.")] = ViewChoice.over,
    hide: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="A class not to draw; may be given more than once."),
    ] = None,
    colors: Annotated[
        ColorsChoice, typer.Option(help="The bundle's, or such that colour-blind people tell apart.")
    ] = ColorsChoice.bundle,
    hud: Annotated[bool, typer.Option(help="Show rate, age and drops in the picture.")] = True,
    realtime: Annotated[bool, typer.Option("--realtime", help="Run files at their own pace.")] = False,
    every_frame: Annotated[
        bool, typer.Option("--every-frame", help="Queue live frames instead of taking the newest.")
    ] = False,
    deadline: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Age in ms beyond which a result says that nothing is known.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Segment video. Without arguments: the demo model on the rendered street."""
    from vidseg.runtime.cache import plans_folder
    from vidseg.runtime.overlay import OverlayStyle
    from vidseg.runtime.pipeline.opening import OpenOptions

    style = OverlayStyle(alpha, legend, outline, view.value, tuple(hide or ()), colors.value)
    options = OpenOptions(
        engine=engine.value, variant=variant, memory=choice_memory(), plans=plans_folder(os.environ), style=style,
        hud=hud, realtime=realtime, every_frame=every_frame, deadline_ms=deadline,
    )  # fmt: skip
    if config is None:
        _check_output(sink or [], as_json=as_json)
        pipeline = _pipeline(bundle, source or [], sink or [], options)
    else:
        ends = (source or [], sink or [])
        pipeline = _pipeline_of_site(config, bundle, ends, options, given_names(context), as_json=as_json)
    try:
        received = _run_and_report(pipeline, as_json=as_json)
    finally:
        for name, account in pipeline.statistics().ledger.sinks.items():
            if account.written and "://" not in name:
                print(f"Wrote {name}", file=sys.stderr)
    if received is not None:
        sys.exit(128 + received)


def _pipeline(bundle: Path | None, sources: list[str], sinks: list[str], options: OpenOptions) -> Pipeline:
    from vidseg.runtime.pipeline.opening import open_pipeline
    from vidseg.runtime.sinks.window import display_available

    if sinks or display_available():
        return open_pipeline(bundle, sources or ["scene://street"], sinks or ["window://"], options)
    path = _free_name()
    pipeline = open_pipeline(bundle, sources or ["scene://street?frames=300&pace=max"], [path], options)
    print(f"There is no display here: the picture goes to {path}.", file=sys.stderr)
    return pipeline


def _pipeline_of_site(
    config: Path,
    bundle: Path | None,
    ends: tuple[list[str], list[str]],
    options: OpenOptions,
    given: frozenset[str],
    *,
    as_json: bool,
) -> Pipeline:
    """What is given goes before what the configuration says."""
    from vidseg.runtime.pipeline.opening import open_pipeline
    from vidseg.runtime.site import read_site, sinks_of, sources_of, with_site

    site = read_site(config)
    sources = ends[0] or sources_of(site, os.environ, realtime=options.realtime)
    sinks = ends[1] or sinks_of(site, os.environ) or ["null://"]
    _check_output(sinks, as_json=as_json)
    return open_pipeline(bundle or site.bundle, sources, sinks, with_site(options, site, given))


def _check_output(sinks: list[str], *, as_json: bool) -> None:
    if as_json and "jsonl://-" in sinks:
        raise UsageError("--json and jsonl://- both write to the standard output", "", "Write one of them to a file.")


def _free_name() -> str:
    number = 1
    while Path(f"vidseg-{number:03}.mp4").exists():
        number += 1
    return f"vidseg-{number:03}.mp4"


def _run_and_report(pipeline: Pipeline, *, as_json: bool) -> int | None:
    """Run with a live line or JSON lines; returns the number of the signal that ended it."""
    from vidseg.runtime.pipeline import signals_end
    from vidseg.runtime.pipeline.status import status_document, status_line
    from vidseg.runtime.systemd import Notifier

    def print_json(statistics: Statistics, *, final: bool = False) -> None:
        print(json.dumps(status_document(statistics, final=final)), flush=True)

    live = _live_line() if not as_json and sys.stderr.isatty() else None
    notifier = Notifier(os.environ)

    def report(statistics: Statistics) -> None:
        if as_json:
            print_json(statistics)
        elif live:
            live.update(_one_line(status_line(statistics)), refresh=True)
        notifier.report(statistics)

    with signals_end(pipeline) as received, live or nullcontext():
        try:
            pipeline.run(report, 0.25 if live else min(1.0, notifier.interval_s))
        except StopTimeoutError as error:
            if received.number is None:
                raise
            log.warning("%s", error)  # the signal is what ended it
        finally:
            notifier.stopping()
            if as_json:
                print_json(pipeline.statistics(), final=True)
            elif live:
                live.update(_one_line(status_line(pipeline.statistics())), refresh=True)
            elif pipeline.statistics().ledger.captured:
                print(status_line(pipeline.statistics()), file=sys.stderr)
    return None if received.number is None else int(received.number)


def _live_line() -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), auto_refresh=False)


def _one_line(text: str) -> Any:
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


@app.command()
def inspect(bundle: BundleArgument, as_json: JsonOption = False) -> None:
    """Print what is in a bundle. Every checksum is verified first."""
    from vidseg.runtime.bundle import open_bundle
    from vidseg.runtime.inspection import bundle_document, bundle_text

    opened = open_bundle(bundle)
    print(json.dumps(bundle_document(opened), indent=2) if as_json else bundle_text(opened))


@app.command()
def evaluate(
    bundle: BundleArgument,
    images: Annotated[Path, typer.Option(help="Folder of pictures.")],
    labels: Annotated[Path, typer.Option(help="Folder of PNGs of class ids, named as the pictures.")],
    class_map: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--map", help="File that maps the model's classes to label ids."),
    ] = None,
    ignore: Annotated[int, typer.Option(min=0, max=255, help="Label id to leave out.")] = 255,
    engine: EngineOption = EngineChoice.auto,
    variant: VariantOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle on labelled pictures: one confusion matrix, IoU, precision, recall, F1."""
    from vidseg.calibration.dataset import labelled_folder
    from vidseg.calibration.evaluation import (
        EvaluationOptions,
        evaluate,
        read_mapping,
        report_document,
        report_text,
    )
    from vidseg.runtime.bundle import open_bundle
    from vidseg.runtime.cache import plans_folder
    from vidseg.runtime.engines.opening import GpuUse
    from vidseg.runtime.engines.trial import engine_for
    from vidseg.runtime.pipeline.engine_opening import SaidNowAndThen
    from vidseg.runtime.segmenter import Segmenter

    opened = open_bundle(bundle)
    names = [spec.name for spec in opened.manifest.output.classes]
    mapping = None if class_map is None else read_mapping(class_map, names)
    dataset = labelled_folder(images, labels)
    gpu = GpuUse(plans_folder(os.environ), progress=SaidNowAndThen())
    ready = engine_for(opened, engine.value, choice_memory(), variant=variant, trials=False, gpu=gpu)
    segmenter = Segmenter(ready, opened.manifest.input.fit)
    with segmenter, progress_bar("pictures", len(dataset)) as advance:
        report = evaluate(segmenter, dataset, names, EvaluationOptions(ignore, mapping), advance)
    print(json.dumps(report_document(report)) if as_json else report_text(report))


@app.command("bench")
def bench_command(
    bundle: BundleArgument,
    seconds: Annotated[float, typer.Option(min=0, max=3600, help="How long to measure, all together.")] = 6.0,
    threads: Annotated[
        str, typer.Option(help="Thread counts to compare, as 1,2,4; one a core where none is given.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Compare engines and variants on this machine; without --threads, remember the fastest for `vidseg run`."""
    from vidseg.runtime.bundle import open_bundle
    from vidseg.runtime.cache import plans_folder
    from vidseg.runtime.engines.bench import BenchOptions, bench, bench_document, bench_text
    from vidseg.runtime.engines.candidates import candidates_of
    from vidseg.runtime.engines.choice import fastest
    from vidseg.runtime.engines.opening import GpuUse
    from vidseg.runtime.pipeline.engine_opening import SaidNowAndThen

    opened = open_bundle(bundle)
    counts = thread_counts_of(threads)
    with progress_bar("measured", 1) as advance:
        gpu = GpuUse(plans_folder(os.environ), progress=SaidNowAndThen())
        rows = bench(
            opened, candidates_of(opened, counts), BenchOptions(seconds), advance,
            lambda candidate: candidate.open(opened, gpu=gpu),
        )  # fmt: skip
    chosen = fastest(rows, choice_memory().recall(opened))
    print(json.dumps(bench_document(rows, chosen), indent=2) if as_json else bench_text(rows, chosen))
    if not threads and choice_memory().remember(opened, chosen):
        print(f"`vidseg run` takes {chosen} from now on.", file=sys.stderr)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine has and what is missing; try the demo model on the CPU, and TensorRT's runtime."""
    from vidseg.runtime.doctor import doctor_document, doctor_text, examine

    findings = examine(os.environ)
    print(json.dumps(doctor_document(findings), indent=2) if as_json else doctor_text(findings))
    if any(finding.verdict == "broken" for finding in findings):
        sys.exit(1)


for command, function in (("build", build), ("export", export), ("lint", lint), ("record-calib", record_calib)):
    app.command(command)(function)
