"""Models as PyTorch (by both exporters) and scikit-learn write them, compared with onnxruntime."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime
from test_lowering import kinds, lowered

from evsnn.conversion.lowering.ann import forward
from evsnn.conversion.lowering.lowering import lower_graph
from evsnn.conversion.onnx.importer import import_onnx

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's exporters announce their successors


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def exported(torch, model, shape, dynamo):
    """The ONNX model that torch writes, its batch norms as if trained."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
            torch.nn.init.normal_(module.running_mean, 0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.3, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    file, sample = io.BytesIO(), torch.zeros(2, *shape)
    if dynamo:
        pytest.importorskip("onnxscript")
        batch = torch.export.Dim("batch")
        return torch.onnx.export(
            model.eval(), (sample,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        ).model_proto
    torch.onnx.export(
        model.eval(), (sample,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "N"}}
    )
    return onnx.load_from_string(file.getvalue())


def networks(nn):
    """Small networks of the usual designs: name, model, input shape."""
    import torch
    from torch.nn.functional import relu

    def conv(n_in, n_out, kernel=3, stride=1, groups=1, act=nn.ReLU, pad=None):
        layers = [
            nn.Conv2d(
                n_in, n_out, kernel, stride, kernel // 2 if pad is None else pad, groups=groups, bias=False
            ),
            nn.BatchNorm2d(n_out),
        ]
        return nn.Sequential(*layers, *([act()] if act else []))

    class Residual(nn.Module):
        def __init__(self, n_in, n_out, stride):
            super().__init__()
            self.a, self.b = conv(n_in, n_out, stride=stride), conv(n_out, n_out, act=None)
            self.short = conv(n_in, n_out, 1, stride, act=None) if stride > 1 else nn.Identity()

        def forward(self, x):
            return relu(self.b(self.a(x)) + self.short(x))

    class PreActivation(nn.Module):
        def __init__(self, n_in, n_out, stride):
            super().__init__()
            self.norm1, self.norm2 = nn.BatchNorm2d(n_in), nn.BatchNorm2d(n_out)
            self.conv1, self.conv2 = (
                nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
                nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            )
            self.short = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if stride > 1 else None

        def forward(self, x):
            y = relu(self.norm1(x))
            short = x if self.short is None else self.short(y)
            return short + self.conv2(relu(self.norm2(self.conv1(y))))

    class Inverted(nn.Module):
        def __init__(self, n_in, n_out, stride, expand=6):
            super().__init__()
            n = n_in * expand
            self.body = nn.Sequential(
                conv(n_in, n, 1, act=nn.ReLU6),
                conv(n, n, 3, stride, n, act=nn.ReLU6),
                conv(n, n_out, 1, act=None),
            )
            self.add = stride == 1 and n_in == n_out

        def forward(self, x):
            return x + self.body(x) if self.add else self.body(x)

    class Fire(nn.Module):
        def __init__(self, n_in, squeeze, expand):
            super().__init__()
            self.squeeze, self.one, self.three = (
                nn.Conv2d(n_in, squeeze, 1),
                nn.Conv2d(squeeze, expand, 1),
                nn.Conv2d(squeeze, expand, 3, padding=1),
            )

        def forward(self, x):
            x = relu(self.squeeze(x))
            return torch.cat([relu(self.one(x)), relu(self.three(x))], 1)

    class Dense(nn.Module):
        def __init__(self, n_in, growth):
            super().__init__()
            self.norm1, self.conv1 = nn.BatchNorm2d(n_in), nn.Conv2d(n_in, 2 * growth, 1, bias=False)
            self.norm2, self.conv2 = (
                nn.BatchNorm2d(2 * growth),
                nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
            )

        def forward(self, x):
            return torch.cat([x, self.conv2(relu(self.norm2(self.conv1(relu(self.norm1(x))))))], 1)

    def gap(n):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 10))

    yield (
        "lenet",
        nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256, 40),
            nn.ReLU(),
            nn.Linear(40, 10),
            nn.LogSoftmax(1),
        ),
        (1, 28, 28),
    )
    yield (
        "vgg",
        nn.Sequential(
            conv(3, 8),
            conv(8, 8),
            nn.AvgPool2d(2),
            conv(8, 16),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(256, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, 10),
        ),
        (3, 16, 16),
    )
    yield (
        "alexnet",
        nn.Sequential(
            nn.Conv2d(3, 8, 5, 2, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.AdaptiveAvgPool2d((3, 3)),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(108, 20),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(20, 10),
        ),
        (3, 33, 33),
    )
    yield (
        "resnet",
        nn.Sequential(conv(3, 8), Residual(8, 8, 1), Residual(8, 16, 2), Residual(16, 16, 1), gap(16)),
        (3, 12, 12),
    )
    yield (
        "resnet with max pool",
        nn.Sequential(
            conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1), Residual(8, 8, 1), Residual(8, 16, 2), gap(16)
        ),
        (3, 32, 32),
    )
    yield (
        "pre-activation resnet",
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            PreActivation(8, 8, 1),
            PreActivation(8, 12, 2),
            PreActivation(12, 12, 1),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            gap(12),
        ),
        (3, 10, 10),
    )
    yield (
        "mobilenet v1",
        nn.Sequential(
            conv(3, 8, stride=2),
            conv(8, 8, groups=8),
            conv(8, 16, 1),
            conv(16, 16, 3, 2, 16),
            conv(16, 24, 1),
            gap(24),
        ),
        (3, 16, 16),
    )
    yield (
        "mobilenet v2",
        nn.Sequential(
            conv(3, 8, stride=2, act=nn.ReLU6),
            Inverted(8, 6, 1, 1),
            Inverted(6, 8, 2),
            Inverted(8, 8, 1),
            Inverted(8, 8, 1),
            Inverted(8, 12, 1),
            conv(12, 32, 1, act=nn.ReLU6),
            gap(32),
        ),
        (3, 16, 16),
    )
    yield (
        "squeezenet",
        nn.Sequential(
            nn.Conv2d(3, 8, 3, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(8, 4, 8),
            Fire(16, 4, 8),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(16, 6, 10),
            nn.Dropout(),
            nn.Conv2d(20, 10, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
        (3, 33, 33),
    )
    yield (
        "densenet",
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            Dense(8, 4),
            Dense(12, 4),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 8, 1),
            nn.AvgPool2d(2),
            Dense(8, 4),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            gap(12),
        ),
        (3, 10, 10),
    )
    yield (
        "leaky",
        nn.Sequential(
            conv(3, 8, act=nn.LeakyReLU),
            nn.AvgPool2d(2),
            conv(8, 8, act=nn.PReLU),
            conv(8, 12, act=nn.LeakyReLU),
            gap(12),
        ),
        (3, 12, 12),
    )
    yield (
        "average before relu",
        nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.AvgPool2d(2),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.MaxPool2d(2),
            nn.ReLU(),
            gap(8),
        ),
        (3, 16, 16),
    )
    yield (
        "all convolutional",
        nn.Sequential(
            conv(3, 8),
            conv(8, 12, 3, 2),
            conv(12, 12),
            nn.Conv2d(12, 10, 1),
            nn.AvgPool2d(8),
            nn.Flatten(),
            nn.Softmax(1),
        ),
        (3, 16, 16),
    )
    yield (
        "mlp",
        nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 30),
            nn.BatchNorm1d(30),
            nn.ReLU(),
            nn.Linear(30, 20),
            nn.Hardtanh(0, 1),
            nn.Linear(20, 10),
        ),
        (1, 8, 8),
    )


NAMES = (
    "lenet",
    "vgg",
    "alexnet",
    "resnet",
    "resnet with max pool",
    "pre-activation resnet",
    "mobilenet v1",
    "mobilenet v2",
    "squeezenet",
    "densenet",
    "leaky",
    "average before relu",
    "all convolutional",
    "mlp",
)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", NAMES)
def test_torch_models(torch, name, dynamo):
    torch.manual_seed(0)
    ((model, shape),) = [(model, shape) for n, model, shape in networks(torch.nn) if n == name]
    ann = lowered(exported(torch, model, shape, dynamo), n=2)
    assert sum(kinds(ann).count(kind) for kind in ("conv2d", "linear")) >= 3


def test_sklearn_models():
    neural = pytest.importorskip("sklearn.neural_network")
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    labels = np.digitize(x[:, 0] * 2 + x[:, 1] ** 2, [0, 1])
    model = neural.MLPClassifier((12, 8), max_iter=50, random_state=0).fit(x, labels)
    ann = lower_graph(import_onnx(to_onnx(model, x[:1], options={"zipmap": False}, target_opset=17)))
    assert kinds(ann).count("if") == 2
    np.testing.assert_array_equal(forward(ann, x).argmax(1), model.predict(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shufflenet", "inception_v2", "densenet121"])
def test_light_models(name):
    """Those that the onnx package carries, whose weights are constants: grouped layers, shuffles, borders."""
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("this onnx package carries no light models")
    ann = lower_graph(import_onnx(path))
    proto = onnx.load(path)
    proto.graph.output.append(onnx.ValueInfoProto(name=ann.outputs[0]))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, 224, 224), np.float32)
    (theirs,) = session.run([ann.outputs[0]], {session.get_inputs()[0].name: image})
    ours = forward(ann, ann.arranged(image)).ravel()
    assert np.abs(ours - theirs.ravel()).max() <= 1e-5 * np.abs(theirs).max()
