"""SqueezeNet v1.1 as ONNX, and photos as it reads them: a pretrained network of max pools and concatenations
to convert.

usage: squeezenet.py WEIGHTS.h5 PHOTOS.h5 FOLDER

WEIGHTS.h5 holds a group a layer (conv1, fire2__squeeze1x1, ...) with `weight` OIHW and `bias`; PHOTOS.h5
`blob`, `offsets` (encoded images of 256x256) and `labels`. Written into FOLDER: squeezenet.onnx, photos.npz
(images, labels) and calibration.npz, the first 128 of them. Then::

    python -m evsnn.convert squeezenet.onnx -o squeezenet.h5 --calibration calibration.npz
                            --steps 32,64,128 --validate photos.npz

The photos that calibrate are among those that validate: one of each class is all there is. The ANN and its
spiking twin are compared on the same photos, which is what the figures are for.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import h5py
import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image

MEAN_BGR = np.array([104, 117, 123], np.float32)


def model(weights: h5py.File) -> onnx.ModelProto:
    nodes, constants = [], []

    def add(op: str, inputs: list[str], output: str, **attributes) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def convolution(name: str, source: str, **attributes) -> str:
        for part in ("weight", "bias"):
            constants.append(
                numpy_helper.from_array(weights[name][part][()].astype(np.float32), f"{name}.{part}")
            )
        return add(
            "Relu",
            [add("Conv", [source, f"{name}.weight", f"{name}.bias"], name, **attributes)],
            f"{name}.relu",
        )

    def fire(n: int, source: str) -> str:
        squeezed = convolution(f"fire{n}__squeeze1x1", source)
        wide = [
            convolution(f"fire{n}__expand1x1", squeezed),
            convolution(f"fire{n}__expand3x3", squeezed, pads=[1] * 4),
        ]
        return add("Concat", wide, f"fire{n}", axis=1)

    x = convolution("conv1", "images", strides=[2, 2], pads=[1] * 4)
    for stage in ((2, 3), (4, 5), (6, 7, 8, 9)):
        x = add("MaxPool", [x], f"pool{stage[0]}", kernel_shape=[3, 3], strides=[2, 2])
        for n in stage:
            x = fire(n, x)
    x = add("Flatten", [add("GlobalAveragePool", [convolution("conv10", x)], "average")], "scores")
    graph = helper.make_graph(
        nodes,
        "squeezenet",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["n", 3, 227, 227])],
        [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, ["n", 1000])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def photos(file: h5py.File) -> np.ndarray:
    """(n, 3, 227, 227) float32: centre crops, BGR, means taken off."""
    blob, offsets = file["blob"][()].tobytes(), file["offsets"][()]
    images = np.empty((len(offsets) - 1, 3, 227, 227), np.float32)
    for i, (first, last) in enumerate(zip(offsets, offsets[1:])):
        picture = np.asarray(Image.open(io.BytesIO(blob[first:last])).convert("RGB"), np.float32)
        images[i] = (picture[14:241, 14:241, ::-1] - MEAN_BGR).transpose(2, 0, 1)
    return images


def main(weights: str, pictures: str, folder: str) -> None:
    target = Path(folder)
    with h5py.File(weights, "r") as file:
        onnx.save(model(file), target / "squeezenet.onnx")
    with h5py.File(pictures, "r") as file:
        images, labels = photos(file), file["labels"][()].astype(np.int64)
    np.savez(target / "photos.npz", images=images, labels=labels)
    np.savez(target / "calibration.npz", images=images[:128], labels=labels[:128])


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 4 else sys.exit(__doc__)
