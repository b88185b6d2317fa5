"""``python tests/benchmarks/detectors.py MODEL.onnx PICTURES``: the faces that a spiking detector finds.

MODEL is one of the UltraFace detectors of Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB with an input of
320 x 240 (models/onnx/version-RFB-320_without_postprocessing.onnx), PICTURES a folder of pictures. Boxes are
decoded from the model's outputs, as onnxruntime and as the spiking network give them: anchors of four sizes,
a score of at least 0.7, non-maximum suppression at an overlap of 0.3. A face is kept if a box of the spiking
network overlaps it by more than a half. Pictures for calibration are crops and mirror images of the others.
Needs onnx, onnxruntime and Pillow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import evsnn
from evsnn.conversion.balance.options import Options
from evsnn.conversion.conversion import convert_model

SIZE = (240, 320)  # height, width
SIDES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))  # of the anchors of each head, in pixels
VARIANCES = (0.1, 0.2)
SCORE, OVERLAP, KEPT = 0.7, 0.3, 0.5


def pictures(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pictures as they are, and crops and mirror images of them, (n, 3, height, width) each."""
    from PIL import Image

    whole, others = [], []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")):
        image = Image.open(path).convert("RGB")
        width, height = image.size
        for cut in (0.0, 0.1, 0.2):
            box = (width * cut / 2, height * cut / 2, width * (1 - cut / 2), height * (1 - cut / 2))
            part = np.asarray(image.crop(tuple(map(int, box))).resize(SIZE[::-1], Image.BILINEAR), np.float32)
            (others if cut else whole).append((part - 127) / 128)
            others.append((part[:, ::-1] - 127) / 128)
    return tuple(np.ascontiguousarray(np.stack(x).transpose(0, 3, 1, 2)) for x in (whole, others))


def anchors() -> np.ndarray:
    """Centre and size of every anchor as shares of the picture, (4420, 4)."""
    rows = []
    for sides, stride in zip(SIDES, (8, 16, 32, 64)):
        height, width = (-(-size // stride) for size in SIZE)
        for y in range(height):
            for x in range(width):
                for side in sides:
                    at = (x + 0.5) * stride / SIZE[1], (y + 0.5) * stride / SIZE[0]
                    rows.append((*at, side / SIZE[1], side / SIZE[0]))
    return np.clip(np.array(rows), 0, 1)


def joined(outputs: Mapping[str, np.ndarray], name: str, width: int) -> np.ndarray:
    """An output that comes as maps, anchor by anchor: (n, 4420, width)."""
    parts = [outputs[f"{name}.{i}"] for i in range(len(SIDES))]
    return np.concatenate([p.transpose(0, 2, 3, 1).reshape(len(p), -1, width) for p in parts], axis=1)


def faces(scores: np.ndarray, offsets: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Boxes (left, top, right, bottom) of one picture that are left after suppression, (n, 4)."""
    centre = places[:, :2] + offsets[:, :2] * VARIANCES[0] * places[:, 2:]
    size = places[:, 2:] * np.exp(offsets[:, 2:] * VARIANCES[1])
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    found: list[np.ndarray] = []
    for i in np.argsort(-scores):
        if scores[i] < SCORE:
            break
        if all(overlap(boxes[i], other) < OVERLAP for other in found):
            found.append(boxes[i])
    return np.array(found).reshape(-1, 4)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The area of the intersection over that of the union."""
    inner = np.maximum(0, np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).prod()
    return float(inner / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inner))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print one row for each T."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("pictures", metavar="PICTURES", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--threshold", default="max")
    parser.add_argument("--coding", choices=("steps", "graded"), default="steps")
    arguments = parser.parse_args(argv)
    import onnxruntime

    images, others = pictures(arguments.pictures)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(arguments.model, quiet, providers=["CPUExecutionProvider"])
    given = [session.run(["scores", "boxes"], {"input": image[None]}) for image in images]
    places = anchors()
    wanted = [faces(scores[0, :, 1], boxes[0], places) for scores, boxes in given]
    print(f"{len(images)} pictures, {sum(map(len, wanted))} faces by onnxruntime")
    options = Options(tuple(arguments.steps), threshold=arguments.threshold, coding=arguments.coding)
    network = convert_model(arguments.model, others, options).network
    for T in arguments.steps:
        result = evsnn.simulate(network, images, n_steps=T)
        logits, offsets = joined(result.named_outputs, "scores", 2), joined(result.named_outputs, "boxes", 4)
        scores = 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))
        ours = [faces(*both, places) for both in zip(scores, offsets)]
        best = [
            max((overlap(face, box) for box in boxes), default=0.0)
            for faces_of, boxes in zip(wanted, ours)
            for face in faces_of
        ]
        kept = [value for value in best if value > KEPT]
        more = sum(map(len, ours)) - len(kept)
        print(
            f"T = {T}: {len(kept)} of {len(best)} faces kept, mean overlap {np.mean(kept or [0]):.3f},"
            f" {more} more found, {result.sops_per_sample / 1e6:.0f} M SOPs"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
