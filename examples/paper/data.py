"""CIFAR-10 and CIFAR-100 as arrays, and the scale in which the networks read them.

usage: python -m examples.paper.data DATA -o OUT.npz [--split test|train] [--limit N]

writes `images` (scaled) and `labels` for `python -m evsnn.run --input` and `python -m evsnn.convert`. DATA is
an .npz with train_images, test_images (n, 32, 32, 3) uint8 and train_labels, test_labels, or the folder that
torchvision keeps (`cifar-10-batches-py` or `cifar-100-python`, or the folder around one of them).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Data", "load", "scaled"]

MEAN = np.array([0.4914, 0.4822, 0.4465], np.float32)
DEVIATION = np.array([0.2470, 0.2435, 0.2616], np.float32)
FOLDERS = {"cifar-10-batches-py": "CIFAR10", "cifar-100-python": "CIFAR100"}


@dataclass(frozen=True)
class Data:
    """A data set of small pictures.

    Parameters
    ----------
    train_images, test_images : (n, 32, 32, 3) uint8
    train_labels, test_labels : (n,) int64
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @property
    def n_classes(self) -> int:
        return int(self.train_labels.max()) + 1


def load(path: Path) -> Data:
    """Read a data set; its order is the file's.

    Raises
    ------
    SystemExit
        The path is neither of the two kinds, or an array is missing or has another shape.
    """
    return _from_folder(path) if path.is_dir() else _from_npz(path)


def _from_npz(path: Path) -> Data:
    try:
        with np.load(path) as file:
            images = [file[f"{split}_images"] for split in ("train", "test")]
            labels = [file[f"{split}_labels"].astype(np.int64) for split in ("train", "test")]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(
            f"{path}: not an .npz with train_images, train_labels, test_images and test_labels ({error})"
        )
    for array, label in zip(images, labels):
        if array.dtype != np.uint8 or array.shape != (len(label), 32, 32, 3):
            sys.exit(
                f"{path}: got images {array.dtype} {array.shape} for {len(label)} labels, expected uint8 (n,"
                " 32, 32, 3)"
            )
    return Data(images[0], labels[0], images[1], labels[1])


def _from_folder(path: Path) -> Data:
    try:
        from torchvision import datasets
    except ImportError:
        sys.exit(f"{path}: reading torchvision's folders needs torchvision: pip install torchvision")
    for name, kind in FOLDERS.items():
        root = path.parent if path.name == name else path
        if (root / name).is_dir():
            train, test = (getattr(datasets, kind)(root, train=split) for split in (True, False))
            return Data(train.data, np.array(train.targets), test.data, np.array(test.targets))
    sys.exit(f"{path}: got a folder without {' or '.join(FOLDERS)}")


def scaled(images: np.ndarray) -> np.ndarray:
    """Pictures (n, 32, 32, 3) uint8 as (n, 3, 32, 32) float32, normalised.

    The mean is 0 and the deviation 1 per channel, by CIFAR-10's numbers for both data sets.
    """
    return np.ascontiguousarray(
        ((images / np.float32(255) - MEAN) / DEVIATION).transpose(0, 3, 1, 2), np.float32
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    data = load(arguments.data)
    images, labels = (
        getattr(data, f"{arguments.split}_{what}")[: arguments.limit] for what in ("images", "labels")
    )
    np.savez(arguments.output, images=scaled(images), labels=labels)


if __name__ == "__main__":
    main()
