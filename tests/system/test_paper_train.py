"""Training of examples/paper: a run that was cut short goes on to the same bits, and files fit together."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import evsnn  # noqa: E402
from examples.paper import train  # noqa: E402
from examples.paper.data import Data, scaled  # noqa: E402
from examples.threshold_relu import ThresholdReLU  # noqa: E402


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Training sets how the whole process computes."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (160, 32, 32, 3), dtype=np.uint8)
    return Data(images[:144], np.arange(144) % 10, images[144:], np.arange(16) % 10)


def tiny(n_classes: int = 10, dropout: tuple[float, float] = (0.1, 0.4)) -> torch.nn.Module:
    pool = torch.nn.AvgPool2d(16)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        ThresholdReLU(),
        torch.nn.Dropout(dropout[0]),
        pool,
        torch.nn.Flatten(),
        torch.nn.Linear(4, n_classes),
    )


def trainer(data: Data, recipe: train.Recipe) -> train.Trainer:
    torch.manual_seed(recipe.seed)
    return train.Trainer(tiny(), data, recipe, torch.device("cpu"))


def weights(model: torch.nn.Module) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


def test_a_run_goes_on_to_the_same_bits(data, tmp_path):
    recipe = train.Recipe(epochs=4, limit=1.0, batch=16)
    straight = trainer(data, recipe)
    for _ in range(4):
        straight.run_epoch()
    cut = trainer(data, recipe)
    for _ in range(2):
        cut.run_epoch()
    cut.save(tmp_path / "x.state", 5.0)
    torch.manual_seed(99)
    resumed = train.Trainer(tiny(), data, recipe, torch.device("cpu"))
    assert resumed.resume(tmp_path / "x.state") == 5.0
    before = weights(resumed.model)
    while resumed.epoch < 4:
        resumed.run_epoch()
    assert np.array_equal(weights(resumed.model), weights(straight.model))
    assert not np.array_equal(weights(resumed.model), before)


def test_a_run_of_another_recipe_is_refused(data, tmp_path):
    trainer(data, train.Recipe(epochs=4)).save(tmp_path / "x.state", 0.0)
    with pytest.raises(SystemExit, match="remove the file"):
        trainer(data, train.Recipe(epochs=5)).resume(tmp_path / "x.state")


def test_fewer_pictures_than_a_batch_are_refused(data):
    with pytest.raises(SystemExit, match="144 training images"):
        trainer(data, train.Recipe(epochs=1, batch=145))


def test_limit_and_rate_follow_the_recipe():
    recipe = train.Recipe(epochs=30, limit=2.0, rate=0.5, rise=0.1)
    assert [recipe.limit_at(epoch) for epoch in (0, 1, 2, 29)] == [math.inf, math.inf, 2.0, 2.0]
    assert train.Recipe(epochs=30).limit_at(29) == math.inf
    rates = [recipe.rate_at(step, 100) for step in range(100)]
    assert (
        rates[9] == 0.5 == max(rates)
        and rates == sorted(rates[:10]) + sorted(rates[10:], reverse=True)
        and 0 < rates[99] < 1e-3
    )


def test_pictures_are_shifted_mirrored_and_erased(data):
    subject = trainer(data, train.Recipe(epochs=1, batch=64, erase=8))
    subject.picked.copy_(torch.arange(64))
    pictures = subject.batch().numpy()
    padded = np.pad(scaled(data.train_images), ((0, 0), (0, 0), (4, 4), (4, 4)), constant_values=np.nan)
    assert pictures.shape == (64, 3, 32, 32)
    for picture, source in zip(pictures, padded):
        erased = (picture == 0).all(axis=0)
        assert 0 < erased.sum() <= 64
        crops = [
            crop
            for dy in range(9)
            for dx in range(9)
            for crop in (
                source[:, dy : dy + 32, dx : dx + 32],
                source[:, dy : dy + 32, dx : dx + 32][..., ::-1],
            )
        ]
        assert any(
            np.allclose(np.where(erased | np.isnan(crop), 0, picture - np.nan_to_num(crop)), 0, atol=1e-4)
            for crop in crops
        )


def trained(data: Data, output, monkeypatch, *words: str) -> dict:
    """What the command writes: its record."""
    np.savez(
        output.parent / "data.npz",
        train_images=data.train_images,
        train_labels=data.train_labels,
        test_images=data.test_images,
        test_labels=data.test_labels,
    )
    monkeypatch.setitem(train.NETWORKS, "vgg16", tiny)
    monkeypatch.setattr(
        "sys.argv",
        ["train", "vgg16", str(output.parent / "data.npz"), "-o", str(output), "--epochs", "2", *words],
    )
    train.main()
    return json.loads(output.with_suffix(".json").read_text())


def test_what_is_written_fits_together(data, tmp_path, monkeypatch):
    output = tmp_path / "vgg16_cifar10_threshold"
    record = trained(data, output, monkeypatch, "--limit", "1", "--no-onnx")
    assert (
        record["system"] == "vgg16_cifar10"
        and record["activation"] == "threshold"
        and record["epochs"] == 2
        and record["n_test"] == 16
    )
    model = tiny()
    model.load_state_dict(torch.load(output.with_suffix(".pt")))
    assert (
        model[1].limit == 1.0
        and train.accuracy(model, data.test_images, data.test_labels, torch.device("cpu"))
        == record["accuracy"]
    )
    assert all(torch.equal(p, p.half().float()) for p in model.parameters())
    assert record["weights_sha256"] == train.digest_of(model) != train.digest_of(tiny())
    assert not output.with_suffix(".state").exists() and record["started_from"] is None


def test_the_same_command_gives_the_same_bits(data, tmp_path, monkeypatch):
    found = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        trained(data, tmp_path / folder / "vgg16_cifar10_threshold", monkeypatch, "--limit", "1", "--no-onnx")
        torch.manual_seed(99)
        model = tiny()
        model.load_state_dict(torch.load(tmp_path / folder / "vgg16_cifar10_threshold.pt"))
        found.append(weights(model))
    assert np.array_equal(*found) and torch.are_deterministic_algorithms_enabled()


def test_training_goes_on_from_other_weights(data, tmp_path, monkeypatch):
    first = trained(data, tmp_path / "vgg16_cifar10_regular", monkeypatch, "--no-onnx")
    wider = Data(data.train_images, np.arange(144) % 12, data.test_images, data.test_labels)
    second = trained(
        wider,
        tmp_path / "vgg16_cifar100_regular",
        monkeypatch,
        "--no-onnx",
        "--start",
        str(tmp_path / "vgg16_cifar10_regular.pt"),
    )
    assert first["started_from"] is None and second["started_from"] == "vgg16_cifar10_regular"
    own, kept = tiny(12), torch.load(tmp_path / "vgg16_cifar10_regular.pt")
    fresh = own.state_dict()["5.weight"].clone()
    train.start_from(own, tmp_path / "vgg16_cifar10_regular.pt")
    assert torch.equal(own.state_dict()["0.weight"], kept["0.weight"]) and torch.equal(
        own.state_dict()["5.weight"], fresh
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter
def test_training_goes_on_from_a_published_model(data, tmp_path):
    pytest.importorskip("onnx")
    source = train.rounded(tiny())
    train.export(source, tmp_path / "tiny.onnx")
    network = evsnn.convert(
        str(tmp_path / "tiny.onnx"), scaled(data.train_images), n_steps=(4, 32), storage="int8"
    )
    evsnn.save(tmp_path / "tiny.h5", network, storage="int8")
    model = tiny()
    train.start_from(model, tmp_path / "tiny.h5")
    for name, weight in source.state_dict().items():
        if name.endswith("weight"):
            scale = weight.reshape(len(weight), -1).abs().amax(1) / 127
            off = (model.state_dict()[name] - weight).reshape(len(weight), -1).abs().amax(1)
            assert bool((off <= 0.51 * scale).all()) and bool((off > 0).any())
    assert train.origin_of(tmp_path / "tiny.h5").startswith("tiny.h5 (SHA-256 ")


def test_mixed_pictures_show_the_one_before_by_the_share_that_its_label_counts(data):
    subject = trainer(data, train.Recipe(epochs=1, batch=64, mix=0.5))
    pictures = torch.arange(64.0).reshape(64, 1, 1, 1).expand(64, 3, 32, 32)
    mixed, share = subject.mixed(pictures)
    own = (mixed == pictures).float()
    assert torch.allclose(1 - own.mean((1, 2, 3)), share) and torch.equal(own[:, 0], own[:, 2])
    assert bool(((mixed == pictures.roll(1, 0)) | (own == 1)).all())
    assert 10 < int((share > 0).sum()) < 54 and float(share.max()) > 0.2


def test_the_loss_of_mixed_pictures_counts_both_labels(data):
    subject = trainer(data, train.Recipe(epochs=1, batch=16, erase=0, mix=1.0, smoothing=0.1))
    subject.picked.copy_(torch.arange(16))
    torch.manual_seed(5)
    loss = subject.loss_of_batch()
    torch.manual_seed(5)
    pictures, share = subject.mixed(subject.batch())
    labels = torch.nn.functional.one_hot(subject.labels[subject.picked], 10).float()
    target = 0.9 * ((1 - share[:, None]) * labels + share[:, None] * labels.roll(1, 0)) + 0.01
    torch.manual_seed(5)
    subject.mixed(subject.batch())  # the dropout draws next, as in the loss
    expected = -(target * subject.model(pictures).log_softmax(1)).sum(1).mean()
    assert torch.allclose(loss, expected, atol=1e-6)
