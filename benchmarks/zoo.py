"""Trained models that nobody here made, with their preprocessing and frames, where they lie beside the checkout."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidseg.calibration.dataset import LabelledFolder, labelled_folder
from vidseg.export.exporter import ExportRequest, export_model
from vidseg.export.quantization import QuantizationRequest
from vidseg.runtime.bundle import Bundle, open_bundle

DATA = Path(__file__).parents[2] / "shared/data"
VOID = 11
CAMVID_FROM_CITYSCAPES = (3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10, 11)

_DRIVE = "videos/street_camvid_0016E5_15hz_480x360.mp4"
_STILLS = "camvid/train32"
_PEOPLE = "videos/people_pingpong_720p24.mp4"
_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SCENES = "scene://street?pace=max&fps=0.5&frames=300&seed=11"


@dataclass(frozen=True)
class ZooModel:
    """A model: its file, what it was trained with, and frames for its calibration.

    Attributes:
        name: the file's without its ending.
        options: of `ExportRequest`.
        calib: frames, in the data folder or a URI.
        mapping: label id by class id for `camvid/test`; None where the ids are the same, () where it has no labels.
        path: where it lies; None for the data folder.
        labelled_gate: the export's gate judges on labelled pictures of `camvid/val`, which the model has not seen; else
            on frames of `calib` without labels.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    calib: str = _DRIVE
    mapping: tuple[int, ...] | None = None
    path: Path | None = None
    labelled_gate: bool = False

    @property
    def file(self) -> Path:
        """The ONNX file."""
        return self.path or DATA / f"models/{self.name}.onnx"

    @property
    def calib_uri(self) -> str:
        """The frames for its calibration, as `ExportRequest` takes them."""
        return self.calib if "://" in self.calib else str(DATA / self.calib)

    @property
    def labelled(self) -> bool:
        """True where it can be judged on `camvid/test`."""
        return self.mapping != ()

    def export(self, out: Path, folder: Path) -> Bundle:
        """The model as a bundle with INT8; one that was made before is taken as it is."""
        if not out.exists():
            verification = self._verification(folder) if self.labelled_gate else {}
            quantization = QuantizationRequest(frames_uri=self.calib_uri, cache=folder, **verification)
            export_model(ExportRequest(model=self.file, out=out, quantization=quantization, **self.options))
        return open_bundle(out)

    def _verification(self, folder: Path) -> dict[str, Any]:
        """Every third labelled picture of `camvid/val`, and which label each class is."""
        mapping = folder / "camvid-val-map.txt"
        mapping.write_text(", ".join(map(str, self.mapping or ())))
        folders = {"images": "val", "labels": "valannot"}
        for kind, source in folders.items():
            target = folder / f"camvid-{kind}"
            target.mkdir(exist_ok=True)
            for path in sorted((DATA / "camvid" / source).iterdir())[::3]:
                if not (target / path.name).exists():
                    (target / path.name).symlink_to(path)
        paths = {kind: folder / f"camvid-{kind}" for kind in folders}
        return {**paths, "mapping": mapping, "ignore": VOID}


ZOO = (
    ZooModel("cgnet_camvid_360x480", {"scale": 1.0, "mean": (105.65775, 103.329834, 99.625404), "labels": "camvid"}),
    ZooModel("enet_camvid_360x480", {"labels": "camvid12"}),
    ZooModel(
        "streetnet_camvid_360x480",
        {"color": "BGR", "mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)},
    ),
    ZooModel("espnetv2_s1_city_256x512", _IMAGENET, _STILLS, CAMVID_FROM_CITYSCAPES, labelled_gate=True),
    ZooModel("espnetv2_s2_city_512x1024", _IMAGENET, _STILLS, CAMVID_FROM_CITYSCAPES, labelled_gate=True),
    ZooModel(
        "deeplabv3_mnv2_voc_257", {"scale": 1 / 127.5, "mean": (1.0, 1.0, 1.0), "labels": "voc"}, _PEOPLE, mapping=()
    ),
    ZooModel("mnv3_unet_portrait_256", {"labels": "portrait"}, _PEOPLE, mapping=()),
    ZooModel(
        "sinet_portrait_320_original",
        {
            "color": "BGR",
            "mean": tuple(value / 255 for value in (102.890434, 111.25247, 126.91212)),
            "std": (62.93292, 62.82138, 66.355705),
            "labels": "portrait",
        },
        _PEOPLE,
        mapping=(),
    ),
    ZooModel("selfie_segmentation_256_nhwc_original", {"labels": "portrait"}, _PEOPLE, mapping=()),
)


def zoo(names: list[str], trained: Path | None = None) -> list[ZooModel]:
    """The models that are here, those with one of the names in theirs; all without names.

    Args:
        names: parts of names.
        trained: folder with `demo.onnx` and `segformer.onnx`, made by `examples/train_demo` and `benchmarks.segformer`.
    """
    found = [model for model in ZOO if model.file.is_file()]
    if trained is not None:
        found += [
            ZooModel(stem, {"labels": "street"}, SCENES, (), trained / f"{stem}.onnx")
            for stem in ("demo", "segformer")
            if (trained / f"{stem}.onnx").is_file()
        ]
    return [model for model in found if not names or any(name in model.name for name in names)]


def report_of(bundle: Bundle) -> dict[str, Any]:
    """What the export measured."""
    document: dict[str, Any] = json.loads(bundle.members["report.json"])
    return document


def labelled_frames() -> LabelledFolder:
    """117 labelled frames that no model here was calibrated on."""
    return labelled_folder(DATA / "camvid/test", DATA / "camvid/testannot")
