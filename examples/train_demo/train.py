"""Train the demo model on rendered scenes, measure it on unseen ones, and write it as ONNX.

    python examples/train_demo/train.py demo.onnx

On two CPU cores this takes about half an hour. The bundle is then made by vidseg's own exporter; see README.md here.
"""

from __future__ import annotations

import argparse
import copy
import time

import numpy as np
import torch
from network import DemoNet
from numpy.typing import NDArray
from scenes import INPUT_WH, TRAINING_SEEDS, UNSEEN_SEEDS, scene_frames
from torch import nn
from torch.nn import functional

from vidseg.runtime.frame import UNKNOWN
from vidseg.runtime.sources.street.classes import STREET_CLASSES

BATCH = 8
CROP_WH = (320, 240)


def main() -> None:
    """Parse the command line, train, measure, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the ONNX file to write")
    parser.add_argument("--seeds", type=int, default=900, help="streets to train on, 4 frames each")
    parser.add_argument("--minutes", type=float, default=28, help="how long to train")
    options = parser.parse_args()
    torch.manual_seed(0)
    network = DemoNet(len(STREET_CLASSES))
    train(network, *scene_frames(TRAINING_SEEDS, options.seeds, 4), options.minutes)
    images, labels = scene_frames(UNSEEN_SEEDS, 60, 4)
    scores = class_iou(network, images, labels)
    for spec, score in zip(STREET_CLASSES, scores, strict=True):
        print(f"{spec.name:10} {score:.4f}")
    print(f"mIoU on {len(images)} unseen frames: {np.mean(scores):.4f}")
    export(network, options.out)


def train(network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.uint8], minutes: float) -> None:
    """AdamW with a one-cycle rate over wall time, random crops and flips, cross entropy at full size."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-4)
    pixels = np.bincount(labels[labels != UNKNOWN].ravel(), minlength=len(STREET_CLASSES))
    weight = torch.tensor((pixels.sum() / (pixels + 1)) ** 0.25, dtype=torch.float32)
    rng = np.random.default_rng(0)
    started, step = time.monotonic(), 0
    network.train().to(memory_format=torch.channels_last)
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        rate = 4e-3 * min(share / 0.05, 1) * 0.5 * (1 + np.cos(np.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, 1e-6)
        batch, target = _crops(images, labels, rng)
        logits = functional.interpolate(network(batch), size=target.shape[1:], mode="bilinear", align_corners=False)
        loss = functional.cross_entropy(logits, target, weight=weight / weight.mean(), ignore_index=UNKNOWN)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"{share:5.1%}  step {step}  loss {loss.item():.4f}", flush=True)
        step += 1


def _crops(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    width, height = CROP_WH
    pictures, targets = [], []
    for number in rng.integers(0, len(images), BATCH):
        left = rng.integers(0, INPUT_WH[0] - width + 1)
        top = rng.integers(0, INPUT_WH[1] - height + 1)
        flip = -1 if rng.random() < 0.5 else 1
        pictures.append(images[number, top : top + height, left : left + width][:, ::flip])
        targets.append(labels[number, top : top + height, left : left + width][:, ::flip])
    return network_input(np.stack(pictures)), torch.from_numpy(np.stack(targets).astype(np.int64))


def network_input(images: NDArray[np.uint8]) -> torch.Tensor:
    """(n, h, w, 3) uint8 BGR to (n, 3, h, w) float RGB in 0..1."""
    rgb = torch.from_numpy(np.ascontiguousarray(images[..., ::-1]))
    return (rgb.permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def class_iou(network: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """IoU by class at full size over all frames, (classes,)."""
    network.eval()
    classes = len(STREET_CLASSES)
    matrix = np.zeros((classes, classes), np.int64)
    for image, label in zip(images, labels, strict=True):
        logits = functional.interpolate(network(network_input(image[None])), size=label.shape, mode="bilinear")
        found = logits[0].argmax(0).numpy()
        known = label != UNKNOWN
        matrix += np.bincount(label[known] * classes + found[known], minlength=classes**2).reshape(classes, classes)
    hits = np.diag(matrix)
    return np.asarray(hits / (matrix.sum(0) + matrix.sum(1) - hits))


def export(network: nn.Module, path: str) -> None:
    """Write the network with folded batch norms as ONNX, opset 17: float RGB / 255 in, logits at stride 8 out."""
    folded = copy.deepcopy(network).eval()
    example = torch.zeros(1, 3, INPUT_WH[1], INPUT_WH[0])
    torch.onnx.export(
        folded, (example,), path, opset_version=17, input_names=["input"], output_names=["logits"], dynamo=False
    )  # fmt: skip


if __name__ == "__main__":
    main()
