"""A pipeline from names: a bundle's path, URIs of sources and sinks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

from vidseg.runtime.bundle import Bundle, open_bundle
from vidseg.runtime.engines import Engine
from vidseg.runtime.engines.choice import ChoiceMemory
from vidseg.runtime.engines.opening import GpuUse, require_gpu
from vidseg.runtime.engines.trial import WantedEngine, engine_for
from vidseg.runtime.errors import UsageError
from vidseg.runtime.frame import Segmentation
from vidseg.runtime.overlay import OverlayStyle
from vidseg.runtime.pipeline.controls import PictureDrawer, PipelineControls
from vidseg.runtime.pipeline.engine_opening import EngineOpener
from vidseg.runtime.pipeline.options import PipelineOptions
from vidseg.runtime.pipeline.pipeline import Pipeline
from vidseg.runtime.pipeline.retry import Retry
from vidseg.runtime.results.report import ReportOptions
from vidseg.runtime.sinks import ControllingSink, Sink
from vidseg.runtime.sinks.callback import CallbackSink
from vidseg.runtime.sinks.opening import sink_from_uri
from vidseg.runtime.sources import Source
from vidseg.runtime.sources.opening import source_from_uri
from vidseg.runtime.view import View

MAX_BATCH = 16
"""Of plans: more pictures at a time gain little, and each of them waits for all."""

SinkLike: TypeAlias = Sink | str | Path | Callable[[Segmentation], object]


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How `open_pipeline` sets things up.

    Attributes:
        engine: which library infers; `auto` takes the remembered choice, else TensorRT where there is a GPU for it,
            else starts with ONNX Runtime and finds the fastest engine and variant on the first frames.
        variant: which of the bundle's graphs; None for `float`, or with `auto` the fastest.
        memory: where choices are remembered; None: nowhere.
        plans: folder where plans for the GPU are kept, private to the user; None: nowhere, each start builds.
        cuda_graphs: give the GPU its work in one call.
        confidence: results have one.
        style: of pictures.
        hud: show rate, age and drops in pictures.
        realtime: files run at their own pace instead of as fast as they can.
        report: what sinks for programs tell.
        every_frame, deadline_ms, heartbeat_ms, retry, required, hang_s, views: see `PipelineOptions`.
    """

    engine: WantedEngine = "auto"
    variant: str | None = None
    memory: ChoiceMemory | None = None
    plans: Path | None = None
    cuda_graphs: bool = False
    confidence: bool = False
    style: OverlayStyle = field(default_factory=OverlayStyle)
    hud: bool = True
    realtime: bool = False
    every_frame: bool = False
    deadline_ms: float | None = None
    heartbeat_ms: float = 1000.0
    report: ReportOptions = field(default_factory=ReportOptions)
    retry: Retry = "once_seen"
    required: frozenset[str] = frozenset()
    hang_s: float | None = 60.0
    views: Mapping[str, View] = field(default_factory=dict)


def demo_bundle_path() -> Path:
    """The demo model's bundle. It knows the rendered street of `scene://street`, and nothing else."""
    return Path(str(files("vidseg.runtime"))) / "demo.vidseg"


def open_pipeline(
    bundle: Bundle | Path | str | None = None,
    sources: Source | str | Path | Sequence[Source | str | Path] = "scene://street",
    sinks: SinkLike | Sequence[SinkLike] = (),
    options: OpenOptions | None = None,
) -> Pipeline:
    """Make a pipeline that is ready to `run()` or to be iterated over.

    Args:
        bundle: a bundle or its path; the demo model where it is None.
        sources, sinks: one or several: objects, paths, or URIs as `vidseg run` takes them; a sink may be any callable
            that takes a `Segmentation`. A window makes files run at their own pace.
        options: see `OpenOptions`.

    Raises:
        BundleError: the bundle is missing or damaged.
        UsageError: a URI that is not understood, or a sink that would overwrite a source or another sink.
        DeviceError: a window without a display, or TensorRT without a GPU.
        EngineError: TensorRT is asked for and missing.
    """
    options = options or OpenOptions()
    if options.engine == "tensorrt":
        require_gpu()
    sources, sinks = _several(sources), _several(sinks)
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle or demo_bundle_path())
    _refuse_overwriting([*_paths(sources), opened.path], _paths(sinks))
    with ExitStack() as made:
        ready_sinks = [_sink(sink, number, opened, options.report, made) for number, sink in enumerate(sinks)]
        pipeline = _pipeline(opened, sources, ready_sinks, options)
        made.pop_all()
    return pipeline


def _pipeline(
    bundle: Bundle, sources: Sequence[Source | str | Path], sinks: Sequence[Sink], options: OpenOptions
) -> Pipeline:
    realtime = options.realtime or any(sink.main_thread for sink in sinks)
    gpu = GpuUse(
        plans=options.plans,
        max_batch=_batch_for(len(sources)),
        style=options.style if any(sink.wants_picture for sink in sinks) else None,
        cuda_graphs=options.cuda_graphs,
    )
    drawer = PictureDrawer(bundle.manifest.output.classes, options.style, hud=options.hud)
    pipeline = Pipeline(
        [
            source_from_uri(str(source), realtime=realtime) if isinstance(source, str | Path) else source
            for source in sources
        ],
        EngineOpener(lambda gpu: _engine(bundle, options, gpu), gpu),
        sinks,
        options=_pipeline_options(bundle, options),
        draw=drawer.draw,
    )
    for sink in sinks:
        if isinstance(sink, ControllingSink):
            sink.attach(PipelineControls(pipeline, drawer, sinks))
    return pipeline


def _engine(bundle: Bundle, options: OpenOptions, gpu: GpuUse) -> Engine:
    return engine_for(
        bundle,
        options.engine,
        options.memory,
        variant=options.variant,
        confidence=options.confidence,
        gpu=gpu,
    )


def _pipeline_options(bundle: Bundle, options: OpenOptions) -> PipelineOptions:
    same = ("every_frame", "deadline_ms", "heartbeat_ms", "retry", "required", "hang_s", "views")
    return PipelineOptions(fit=bundle.manifest.input.fit, **{name: getattr(options, name) for name in same})


def _batch_for(sources: int) -> int:
    """The batch that a plan is built for: 1, 2, 4, 8 or 16, so that one more camera seldom needs another plan."""
    return next((size for size in (1, 2, 4, 8) if size >= sources), MAX_BATCH)


def _several(items: Any) -> Sequence[Any]:
    return items if isinstance(items, Sequence) and not isinstance(items, str) else (items,)


def _paths(names: Sequence[object]) -> list[Path]:
    return [Path(name) for name in names if isinstance(name, str | Path) and not _is_uri(str(name))]


def _is_uri(name: str) -> bool:
    return "://" in name or name.startswith("gst:")


def _refuse_overwriting(read: Sequence[Path], written: Sequence[Path]) -> None:
    for number, path in enumerate(written):
        for other in (*read, *written[:number]):
            if os.path.realpath(path) == os.path.realpath(other):
                what = "is read" if other in read else "is written by another sink"
                raise UsageError(f"{path} {what}", "the same file or folder as a sink", "Name another one.")


def _sink(sink: SinkLike, number: int, bundle: Bundle, report: ReportOptions, made: ExitStack) -> Sink:
    """The sink; one that is made here is closed with `made`."""
    if isinstance(sink, str | Path):
        found = sink_from_uri(str(sink), bundle.manifest.output.classes, report)
        made.callback(found.close)
        return found
    if isinstance(sink, Sink):
        return sink
    return CallbackSink(sink, name=f"callback {number}")
