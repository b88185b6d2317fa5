"""What is asked for, what is tried, what is taken; and conversions from end to end that this decides."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import evsnn
from evsnn import IF, ModelError, RunError
from evsnn.conversion import conversion
from evsnn.conversion.balance import selection
from evsnn.conversion.balance import targets as target_module
from evsnn.conversion.balance.balance import Balanced
from evsnn.conversion.balance.options import Options, Recipe
from evsnn.conversion.balance.selection import Candidate, choose
from evsnn.conversion.balance.targets import Targets, divergence
from evsnn.conversion.balance.trial import Trial
from evsnn.conversion.conversion import convert, convert_model
from evsnn.conversion.lowering.ann import forward
from evsnn.files.weights import as_stored

RNG = np.random.default_rng(0)

# Divergence

SCORES = 8 * RNG.normal(size=(50, 7)).astype(np.float32)
OTHERS = SCORES + RNG.normal(size=SCORES.shape).astype(np.float32)


def test_divergence_is_the_definition():
    """sum p ln(p / q) of every sample, at exponentials that are far from overflow."""
    p, q = (
        np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(axis=1, keepdims=True)
        for x in (SCORES, OTHERS)
    )
    got = divergence(OTHERS, SCORES)
    np.testing.assert_allclose(got, (p * np.log(p / q)).sum(axis=1), rtol=1e-9, atol=1e-12)
    assert got.shape == (50,) and (got > 0).all()


def test_divergence_of_equals_is_zero():
    for scores in (
        SCORES,
        SCORES / 1000,
        np.zeros((3, 4), np.float32),
        np.ones((3, 1), np.float32),
        SCORES[:, :1],
    ):
        assert not divergence(scores, scores).any()


def test_divergence_does_not_see_what_all_classes_have_in_common():
    offset = 1000 * RNG.normal(size=(50, 1))
    np.testing.assert_allclose(
        divergence(OTHERS + offset, SCORES + 2 * offset), divergence(OTHERS, SCORES), rtol=1e-3, atol=1e-6
    )
    order = RNG.permutation(7)
    np.testing.assert_allclose(
        divergence(OTHERS[:, order], SCORES[:, order]), divergence(OTHERS, SCORES), rtol=1e-9, atol=1e-14
    )


def test_large_scores_do_not_overflow():
    assert np.isfinite(divergence(1e4 * OTHERS, 1e4 * SCORES)).all()


def test_flat_scores_are_stretched():
    """Flat scores are stretched to a root mean square of 4 about their mean; steep ones stay."""
    spread = np.sqrt(np.square(SCORES - SCORES.mean(axis=1, keepdims=True)).mean())
    assert spread > target_module.SPREAD
    wanted = divergence(OTHERS * (4 / spread), SCORES * (4 / spread))
    for flatness in (0.4, 0.01, 1e-5):
        np.testing.assert_allclose(divergence(OTHERS * flatness, SCORES * flatness), wanted, rtol=1e-4)
    assert divergence(2 * OTHERS, 2 * SCORES).mean() > 1.1 * divergence(OTHERS, SCORES).mean() > wanted.mean()


def test_a_single_score_is_the_logit_of_the_second_of_two_classes():
    reference, scores = RNG.normal(size=(2, 20, 1), scale=9).astype(np.float32)
    both = [np.concatenate([np.zeros((20, 1)), x], axis=1) for x in (scores, reference)]
    np.testing.assert_allclose(divergence(scores, reference), divergence(*both))
    targets = Targets("classify", {"readout": reference})
    assert targets.agreement({"readout": scores}) == ((scores > 0) == (reference > 0)).mean()


def test_values_are_compared_by_their_error():
    wanted = RNG.normal(size=(40, 3), scale=2) + np.array([5, -9, 100])
    error = RNG.normal(size=(40, 3), scale=0.1)
    targets = Targets("regress", {"a": wanted, "b": wanted[:, :1]})
    outputs = {"a": wanted + error, "b": wanted[:, :1]}
    found = targets.errors(outputs)
    assert found["a"].rms == pytest.approx(np.sqrt((error**2).mean()))
    assert found["a"].largest == pytest.approx(np.abs(error).max())
    assert found["a"].relative == pytest.approx(found["a"].rms / np.sqrt(wanted.var(axis=0).mean()))
    assert (found["b"].rms, found["b"].relative) == (0, 0)
    assert targets.divergence(outputs) == pytest.approx(found["a"].relative ** 2 / 2)
    assert targets.agreement(outputs) is None and targets.relative_error(outputs) == found["a"].relative
    constant = Targets("none", {"a": np.full((4, 2), 3.0)})  # no spread: the size of the values stands in
    assert constant.errors({"a": np.full((4, 2), 3.3)})["a"].relative == pytest.approx(0.1)


# The choice

RECIPES = tuple(Recipe(f"error:{power}", "channel", "initial") for power in (2, 3, 4, 5))
HELD_OUT = np.zeros((50, 3), np.float32)


class Told(Targets):
    """Targets that are told what is predicted."""

    def predicted(self, outputs):
        return outputs["predictions"]


def offered(monkeypatch, errors, sops, agreeing=(True,) * 9):
    """`choose` among recipes whose scores are off by `errors`: the choice, and what was asked of each."""
    asked, told = [], []

    def make(recipe):
        asked.append(recipe)
        return Balanced(8, recipe, {}, {"layer": recipe.rule}), RECIPES.index(recipe)

    def tried(network, n_steps, samples):
        outputs = SCORES + errors[network] * np.eye(7)[SCORES.argmax(axis=1)]
        predictions = SCORES.argmax(axis=1) if agreeing[network] else np.arange(50) % 7
        assert n_steps == 8 and samples is HELD_OUT
        return Trial({"scores": outputs, "predictions": predictions}, sops[network], 0.1)

    monkeypatch.setattr(selection, "trial", tried)
    choice, balanced = choose(
        RECIPES[: len(errors)],
        8,
        make,
        HELD_OUT,
        Told("classify", {"scores": SCORES}),
        lambda *progress: told.append(progress),
    )
    assert told == [(i + 1, len(errors)) for i in range(len(asked))] and asked == [
        c.recipe for c in choice.candidates
    ] == list(RECIPES[: len(asked)])
    assert (
        balanced.recipe == choice.recipe
        and choice.corrections == {"layer": choice.recipe.rule}
        and choice.n_steps == 8
    )
    return choice


def test_the_nearest_is_taken(monkeypatch):
    choice = offered(monkeypatch, [-9.0, -4.0, -6.0], [10, 30, 20])
    assert choice.recipe == RECIPES[1] and len(choice.candidates) == 3
    nearest = choice.candidates[1]
    outputs = SCORES - 4 * np.eye(7)[SCORES.argmax(axis=1)]
    assert nearest == Candidate(RECIPES[1], 1.0, float(divergence(outputs, SCORES).mean()), 30, 0.1)
    assert (
        choice.reason
        == f"the least of 3 recipes tried: divergence {nearest.divergence:.3g} from the ANN, 100.0% of its"
        " predictions, on held-out inputs"
    )


def test_the_cheapest_of_the_nearly_nearest_is_taken(monkeypatch):
    choice = offered(monkeypatch, [-4.1, -4.0, -9.0, -4.05], [20, 30, 1, 10])
    assert choice.recipe == RECIPES[3] and choice.reason.startswith(
        "within 15% of the least of 4 recipes tried, and cheaper: divergence "
    )
    near, least = choice.candidates[3].divergence, choice.candidates[1].divergence
    assert least < near < 1.15 * least


def test_one_that_is_not_nearly_as_near_is_not_taken(monkeypatch):
    choice = offered(monkeypatch, [-4.6, -4.0], [1, 30])
    assert (
        choice.candidates[0].divergence > 1.15 * choice.candidates[1].divergence
        and choice.recipe == RECIPES[1]
    )


def test_of_equals_the_plainest_is_taken(monkeypatch):
    assert offered(monkeypatch, [-4.0, -4.0], [7, 7]).recipe == RECIPES[0]


def test_a_more_elaborate_recipe_must_save_operations(monkeypatch):
    choice = offered(monkeypatch, [-4.05, -4.0, -4.02], [100, 99, 96])
    assert choice.recipe == RECIPES[0] and choice.reason.startswith(
        "within 15% of the least of 3 recipes tried, and plainer: divergence "
    )
    assert offered(monkeypatch, [-4.05, -4.0, -4.02], [100, 99, 94]).recipe == RECIPES[2]


def test_trying_ends_when_nothing_is_left_to_gain(monkeypatch):
    choice = offered(monkeypatch, [-4.0, 1e-3, 0.0], [1, 30, 1])
    assert (
        len(choice.candidates) == 2
        and choice.recipe == RECIPES[1]
        and choice.candidates[1].divergence <= selection.LOSSLESS
    )
    assert choice.reason.endswith("; nothing is left to gain by more elaborate ones")
    last = offered(monkeypatch, [-4.0, 1e-3], [1, 30])
    assert "nothing is left" not in last.reason and len(last.candidates) == 2


def test_trying_goes_on_while_predictions_differ(monkeypatch):
    choice = offered(monkeypatch, [1e-3, 1e-3, -1.0], [3, 2, 1], agreeing=(False, True, True))
    assert (
        len(choice.candidates) == 2
        and choice.candidates[0].agreement < 0.99
        and choice.candidates[1].agreement == 1
    )


def test_the_cheapest_of_the_lossless_is_taken(monkeypatch):
    """A divergence of next to nothing is no reason for more operations."""
    choice = offered(monkeypatch, [2e-2, 1e-5], [1, 30], agreeing=(False, True))
    assert (
        choice.candidates[1].divergence < choice.candidates[0].divergence / 2 < selection.LOSSLESS
        and choice.recipe == RECIPES[0]
    )


def test_a_single_recipe_is_taken(monkeypatch):
    choice = offered(monkeypatch, [-9.0], [5])
    assert choice.recipe == RECIPES[0] and choice.reason.startswith("divergence ")


@pytest.mark.parametrize("where", ["planning", "memory"])
def test_what_cannot_be_run_is_left_out(monkeypatch, where):
    """Warm-ups need all steps in one block; the plainest recipe must run."""

    def simulator(network, n_steps):
        if where == "planning" and network.number:
            raise RunError("too many events for one block")
        result = SimpleNamespace(named_outputs={"scores": SCORES - 1}, sops_per_sample=1, mean_rate=0.1)
        return SimpleNamespace(
            run=lambda images: result, memory_bytes={"workspaces": 1 << 60 if network.number else 1}
        )

    def made(recipe):
        return Balanced(8, recipe, {}, {}), SimpleNamespace(number=RECIPES.index(recipe), coding="steps")

    monkeypatch.setattr(selection, "LOSSLESS", 0.0)
    monkeypatch.setattr("evsnn.conversion.balance.trial.Simulator", simulator)
    monkeypatch.setattr("evsnn.output.memory.free_bytes", lambda: 1 << 40)
    choice, _ = choose(
        RECIPES,
        8,
        made,
        HELD_OUT,
        Targets("classify", {"scores": SCORES + 1e-3 * OTHERS}),
    )
    assert choice.recipe == RECIPES[0] and len(choice.candidates) == 1
    assert choice.reason.endswith(
        f"; {RECIPES[1]} and what follows it left out: "
        + ("too many events for one block" if where == "planning" else "the run does not fit into memory")
    )
    with pytest.raises(RunError):
        choose(
            RECIPES[1:],
            8,
            made,
            HELD_OUT,
            Targets("classify", {"scores": SCORES}),
        )


def test_nothing_held_out_takes_the_first_unseen(monkeypatch):
    monkeypatch.setattr(selection, "trial", None)
    choice, balanced = choose(
        RECIPES,
        8,
        lambda recipe: (Balanced(8, recipe, {}, {"a": 1}), None),
        HELD_OUT[:0],
        Targets("classify", {"scores": SCORES[:0]}),
    )
    assert (
        choice.recipe == balanced.recipe == RECIPES[0]
        and choice.candidates == ()
        and choice.corrections == {"a": 1}
    )
    assert choice.reason == "nothing was held out to try it on"


# Options


@pytest.mark.parametrize(
    "threshold, granularity, shift, correction",
    [
        ("max", "layer", "bias", False),
        ("percentile:99", "layer", "bias", False),
        ("mse", "channel", "initial", True),
        ("error:3", "channel", "initial", True),
    ],
)
def test_a_rule_has_its_defaults(threshold, granularity, shift, correction):
    plain = Recipe(threshold, granularity, shift, correction)
    options = Options((8,), threshold=threshold)
    assert options.recipes(8) == (plain,) == (options.unseen(True),) == (options.unseen(False),)
    asked = Options((8,), threshold, "channel", "none", "spikes", True, 0.5, 3)
    assert asked.recipes(8) == (Recipe(threshold, "channel", "none", True, 0.5, 3),)
    assert Options(
        (8,), threshold, "layer", correction=False, shift="bias", negative_threshold=0, warm_up_steps=0
    ).recipes(8) == (Recipe(threshold, "layer", "bias", False, 0.0, 0),)


def test_auto_tries_from_the_plainest_to_the_most_elaborate():
    tried = Options((16,)).recipes(16)
    assert tried[0] == Recipe("max", "layer", "initial") and tried[1] == Recipe(
        "mse", "channel", "initial", True
    )
    assert [(r.rule, r.negative_threshold, r.warm_up_steps) for r in tried[2:]] == [
        ("mse", 0.25, 0),
        ("error:3", 0.25, 0),
        ("mse", 0.25, 4),
        ("error:3", 0.25, 4),
    ]
    assert {r.shift for r in tried} == {"initial"}, "a file has one shift"
    assert [r.warm_up_steps for r in Options((1,)).recipes(1)] == [0] * 4 and Options((2,)).recipes(2)[
        -1
    ].warm_up_steps == 1
    assert Options().unseen(True) == tried[1] and Options().unseen(False) == tried[0]


def test_auto_tries_nothing_twice():
    assert [
        (r.rule, r.negative_threshold, r.warm_up_steps)
        for r in Options((16,), negative_threshold=0.0, warm_up_steps=0).recipes(16)
    ] == [
        ("max", 0, 0),
        ("mse", 0, 0),
        ("error:3", 0, 0),
    ]
    asked = Options(
        (16,), granularity="channel", shift="bias", negative_threshold=0.5, warm_up_steps=2, correction=True
    ).recipes(16)
    assert [r.rule for r in asked] == ["max", "mse", "error:3"] and {
        (r.granularity, r.shift, r.negative_threshold, r.warm_up_steps, r.correction) for r in asked
    } == {("channel", "bias", 0.5, 2, True)}


def test_steps_are_kept_in_order_and_once():
    assert Options(8).n_steps == (8,) and Options([32, 4, 32, np.int64(8)]).n_steps == (32, 4, 8)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"n_steps": ()}, "no number of steps is given: expected at least one T"),
        ({"n_steps": 0}, "n_steps is out of range: got 0"),
        ({"n_steps": (8, 65_537)}, "n_steps is out of range: got 65537"),
        ({"n_steps": "8"}, "n_steps is out of range: got 8"),
        ({"n_steps": 8.0}, "n_steps is out of range"),
        ({"n_steps": True}, "n_steps is out of range"),
        ({"threshold": "best"}, "unknown threshold rule: got 'best'"),
        ({"threshold": "percentile:0"}, "unknown threshold rule"),
        ({"threshold": None}, "unknown threshold rule: got None"),
        ({"granularity": "neuron"}, "unknown granularity: got 'neuron', expected layer or channel"),
        ({"shift": "half"}, "unknown shift: got 'half', expected bias or initial or none"),
        ({"readout": None}, "unknown readout: got None, expected membrane or spikes"),
        ({"max_pool": "max"}, "unknown max_pool: got 'max', expected spiking or average"),
        ({"negative_threshold": -1}, "negative_threshold is out of range"),
        ({"negative_threshold": np.nan}, "negative_threshold is out of range"),
        ({"negative_threshold": "x"}, "negative_threshold is out of range"),
        ({"warm_up_steps": -1}, "warm_up_steps is out of range: got -1, expected 0 to 32 steps"),
        ({"warm_up_steps": 33}, "warm_up_steps is out of range"),
        ({"warm_up_steps": 1.0}, "warm_up_steps is out of range"),
        ({"warm_up_steps": True}, "warm_up_steps is out of range"),
        ({"correction": "on"}, "unknown correction: got 'on', expected True, False or None"),
    ],
)
def test_options_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ModelError) as refused:
        Options(**fields)
    assert message in str(refused.value)


def test_numbers_of_numpy_are_numbers():
    assert Options(np.int64(8), warm_up_steps=np.int64(2)).recipe("mse") == Options(
        8, warm_up_steps=2
    ).recipe("mse")


def test_recipes_read_well():
    assert str(Recipe("max", "layer", "bias")) == "max per layer, shift bias"
    assert (
        str(Recipe("mse", "channel", "initial", True, 0.25, 8))
        == "mse per channel, shift initial, bias correction, negative threshold 0.25, warm-up 8"
    )


# From end to end

pytest.importorskip("onnx")

from onnx_builder import OnnxModel  # noqa: E402

IMAGES = np.random.default_rng(1).normal(size=(48, 2, 6, 6)).astype(np.float32)


def make_model(norms=False, limit=None, border=False):
    """Two convolutions and a linear layer; ReLUs with batch norms, a limit, neither or both."""
    m = OnnxModel((2, 6, 6), seed=2)

    def relu(x, channels):
        x = m.norm(x, channels, positive=True) if norms else x
        return m.op("Relu", x) if limit is None else m.op("Clip", x, np.float32(0), np.float32(limit))

    x = m.norm("x", 2) if border else "x"  # before a convolution with padding: a border that is not 0
    x = relu(m.conv(x, 2, 5, pads=[1, 1, 1, 1]), 5)
    x = m.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = m.norm(x, 5) if border else x
    x = relu(m.conv(x, 5, 6, pads=[1, 1, 1, 1]), 6)
    return m.model(m.head(x, 54, 4))


def neurons_of(network):
    return {layer.name: layer for layer in network.layers if isinstance(layer, IF)}


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="steps"):
        convert(make_model(), IMAGES, steps=8)
    with pytest.raises(ModelError, match="unknown storage: got 'int4', expected float32 or float16 or int8"):
        convert(make_model(), IMAGES, storage="int4")


@pytest.mark.parametrize("threshold", ["auto", "max"])
def test_several_numbers_of_steps_are_each_as_if_alone(threshold, tmp_path):
    network = convert(make_model(), IMAGES, n_steps=(8, 2, 16), threshold=threshold)
    assert network.n_steps == 8 and list(network.step_parameters) == [2, 8, 16]
    evsnn.save(tmp_path / "net.h5", network)
    loaded = evsnn.load(tmp_path / "net.h5")
    for n_steps in (2, 8, 16):
        alone = convert(make_model(), IMAGES, n_steps=n_steps, threshold=threshold)
        assert not alone.step_parameters and alone.n_steps == n_steps
        outputs = [
            evsnn.simulate(net, IMAGES[:4], n_steps=n_steps, backend="reference").outputs
            for net in (network, loaded, alone)
        ]
        assert np.array_equal(outputs[0], outputs[1]) and np.array_equal(outputs[0], outputs[2]), n_steps


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_weights_are_rounded_before_anything_is_fitted_to_them(storage, tmp_path):
    """What is converted is what a file gives back; rounded afterwards, scores would be off in their mean,
    which is corrected on these very inputs.
    """
    found = convert_model(make_model(), IMAGES, Options((8, 2), threshold="mse", storage=storage))
    evsnn.save(tmp_path / "net.h5", found.network, storage=storage)
    loaded = evsnn.load(tmp_path / "net.h5")
    weights = [
        [layer.weight for layer in network.layers if hasattr(layer, "weight")]
        for network in (found.network, loaded, found.ann.network)
    ]
    assert all(
        np.array_equal(ours, theirs) and not np.array_equal(ours, source)
        for ours, theirs, source in zip(*weights)
    )

    def error(network):
        outputs = evsnn.simulate(network, IMAGES[:36], n_steps=8, backend="reference").outputs
        return np.abs((outputs - forward(found.ann, IMAGES[:36])).mean(axis=0)).max()

    rounded_late = as_stored(convert(make_model(), IMAGES, n_steps=(8, 2), threshold="mse"), storage)
    assert error(loaded) < 1e-6 < 1e-5 < error(rounded_late)


def test_a_conversion_says_how_it_came_about():
    told = []
    found = convert_model(make_model(), IMAGES, Options((16, 2)), lambda *progress: told.append(progress))
    assert list(found.choices) == [16, 2] and found.mismatch < 1e-5 and found.network.shift == "initial"
    assert (
        np.array_equal(found.held_out, IMAGES[36:])
        and found.targets.first.shape == (12, 4)
        and found.held_out_labels is None
    )
    assert found.network.input_range == (IMAGES.min(), IMAGES.max())
    assert found.activations.keys() == neurons_of(found.ann.network).keys() | {
        found.ann.network.layers[-1].name
    }
    for n_steps, choice in found.choices.items():
        (candidate,) = [c for c in choice.candidates if c.recipe == choice.recipe]
        result = evsnn.simulate(found.network, found.held_out, n_steps=n_steps, backend="reference")
        assert candidate.divergence == pytest.approx(divergence(result.outputs, found.targets.first).mean())
        assert (candidate.sops_per_sample, candidate.mean_rate) == (result.sops_per_sample, result.mean_rate)
        assert candidate.agreement == (result.predictions == found.targets.first.argmax(axis=1)).mean()
    assert (
        told[:2] == [("reading the model", 0, 1), ("reading the model", 1, 1)]
        and ("measuring activations", 2, 2) in told
    )


@pytest.mark.parametrize(
    "case, words",
    [
        ("constant", "predicts class 2 on all 16"),
        ("chance", "no better than chance"),
        ("one score", None),
        ("one score, chance", "no better than chance"),
        ("good", None),
    ],
)
def test_held_out_samples_that_tell_little(case, words):
    """Agreement of 100 % is then no sign that a conversion is good."""
    from onnx_builder import OnnxModel

    m = OnnxModel((4,), seed=3)
    n_classes = 1 if case.startswith("one score") else 4
    scores = m.op(
        "Gemm",
        m.op("Relu", "x"),
        np.eye(4, n_classes, dtype=np.float32),
        np.array([0, 0, 9 * (case == "constant"), 0], np.float32)[:n_classes],
    )
    images = np.tile(np.eye(4, dtype=np.float32), (16, 1))
    labels = np.tile(np.arange(4), 16)
    labels = labels == 0 if n_classes == 1 else labels
    found = convert_model(
        m.model(scores),
        (images, (labels + ("chance" in case)) % max(2, n_classes)),
        Options((4,), threshold="max"),
    )
    told = [warning for warning in found.warnings if "held-out" in warning]
    assert any(words in warning for warning in told) if words else not told


def test_activations_next_to_nothing_are_none():
    """Subnormal numbers, whose reciprocals overflow."""
    from onnx_builder import OnnxModel

    m = OnnxModel((4,))
    hidden = m.op("Relu", m.op("Gemm", "x", np.full((4, 3), 1e-42, np.float32)))
    found = convert_model(
        m.model(m.op("Gemm", hidden, np.ones((3, 2), np.float32))),
        np.ones((8, 4), np.float32),
        Options((4,), threshold="mse"),
    )
    assert found.activations[next(iter(neurons_of(found.network)))].dead.all()


def test_held_out_inputs_take_no_part_in_balancing():
    """Whatever is in the last quarter, thresholds and biases stay."""
    networks = [
        convert(make_model(), np.concatenate([IMAGES[:36], scale * IMAGES[36:]]), n_steps=4, threshold="mse")
        for scale in (1.0, 0.1)
    ]
    for one, other in zip(*(net.layers for net in networks)):
        for name in ("v_threshold", "bias"):
            assert np.array_equal(getattr(one, name, None), getattr(other, name, None))


def test_three_samples_are_too_few_to_hold_any_out():
    found = convert_model(make_model(), IMAGES[:3], Options((4,)))
    assert (
        found.choices[4].candidates == ()
        and len(found.held_out) == 0
        and found.choices[4].recipe == Options().unseen(True)
    )
    assert any("only 3 calibration samples" in warning for warning in found.warnings)


def test_without_data_limits_are_the_thresholds():
    found = convert_model(make_model(limit=1.5), options=Options((16,)))
    assert found.choices[16].recipe == Recipe("max", "layer", "initial") and len(found.held_out) == 0
    assert [layer.v_threshold.tolist() for layer in neurons_of(found.network).values()] == [1.5, 1.5]
    assert found.network.input_range is None


def test_without_data_batch_norms_tell():
    """Thresholds are fitted, and inputs of the kind that the norms saw are classified as the ANN does."""
    found = convert_model(make_model(norms=True), options=Options((64,)))
    assert (
        found.choices[64].recipe == Recipe("mse", "channel", "initial", False)
        and not found.choices[64].corrections
    )
    assert all(
        layer.v_threshold.shape == (found.ann.network.shapes[name][0],)
        for name, layer in neurons_of(found.network).items()
    )
    for name, layer in neurons_of(found.network).items():
        mean, deviation = found.ann.moments[name]
        assert (layer.v_threshold > 0).all() and (
            layer.v_threshold <= np.maximum(mean + 6 * deviation, 0.001 * (mean + 6 * deviation).max()) + 1e-6
        ).all()


def test_without_data_limits_hold_for_batch_norms_too():
    found = convert_model(make_model(norms=True, limit=0.5), options=Options((8,), threshold="mse"))
    assert all((layer.v_threshold <= 0.5).all() for layer in neurons_of(found.network).values())


def test_without_data_nothing_known_is_refused():
    with pytest.raises(ModelError, match="nothing is known of this layer's activations"):
        convert(make_model())


@pytest.mark.parametrize("data", [True, False])
def test_borders_fire_by_the_clock(data):
    """A norm between pool and padded convolution leaves a border that is not 0; its neurons keep their
    threshold of 1 in every recipe.
    """
    model = make_model(border=True, limit=2.0)
    for threshold in ("auto", "mse"):
        found = convert_model(
            model,
            IMAGES if data else None,
            Options((4, 32), threshold=threshold, negative_threshold=0.25, warm_up_steps=2),
        )
        assert found.ann.fixed
        for network in (found.network, found.network.at(4), found.network.at(32)):
            for name, layer in neurons_of(network).items():
                assert (name in found.ann.fixed) == (
                    layer.v_threshold.tolist() in (1.0, [1.0])
                    and not layer.negative_threshold
                    and not layer.warm_up_steps
                ), name
        result = evsnn.simulate(
            found.network, IMAGES[:2], n_steps=32, record=("spike_counts",), backend="reference"
        )
        for layer in result.layers:
            assert layer.name not in found.ann.fixed or set(np.unique(layer.spike_counts)) <= {
                0,
                32,
            }, layer.name


def test_more_steps_come_nearer_to_the_model():
    """On inputs whose activations no threshold cuts."""
    errors = []
    for n_steps in (4, 32, 128):
        found = convert_model(make_model(), IMAGES, Options((n_steps,), threshold="max"))
        scores = forward(found.ann, IMAGES[:6])
        errors.append(
            np.abs(evsnn.simulate(found.network, IMAGES[:6], backend="reference").outputs - scores).max()
            / np.abs(scores).max()
        )
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.02


def test_a_conversion_that_does_not_compute_the_same_is_refused(monkeypatch, tmp_path, capsys):
    """Forced: the ANN is off by one part in 500 in one score. And no file is written."""
    import onnx

    from evsnn import convert as command

    true_forward = conversion.forward_all

    def wrong(ann, images, *rest, **options):
        outputs = true_forward(ann, images, *rest, **options)
        scores = outputs["readout"]
        scores[0, 0] += np.abs(scores).max() / 500
        return outputs

    monkeypatch.setattr(conversion, "forward_all", wrong)
    with pytest.raises(
        ModelError,
        match=(
            r"the converted ANN does not compute what the model does: got scores that differ by 0\.002 of the"
            r" largest, expected at most 0\.001\. This is a defect"
        ),
    ):
        convert(make_model(), IMAGES, n_steps=4, threshold="max")
    with pytest.raises(ModelError, match="does not compute what the model does"):
        convert(make_model(limit=1.0), n_steps=4)
    with pytest.raises(ModelError, match="does not compute what the model does"):
        convert(
            make_model(), IMAGES, n_steps=4, threshold="max", max_pool="average"
        )  # there is none to replace
    onnx.save(make_model(), tmp_path / "net.onnx")
    np.savez(tmp_path / "cal.npz", images=IMAGES)
    before = sorted(tmp_path.iterdir())
    assert (
        command.main(
            [
                str(tmp_path / word) if "." in word else word
                for word in ("net.onnx", "-o", "net.h5", "--calibration", "cal.npz", "--steps", "4")
            ]
        )
        != 0
    )
    assert (
        "does not compute what the model does" in capsys.readouterr().err
        and sorted(tmp_path.iterdir()) == before
    )
