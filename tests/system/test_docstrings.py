"""The docstrings of public names: parameters equal the signature's, errors exist, and examples run."""

from __future__ import annotations

import builtins
import doctest
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import evsnn
from evsnn.conversion.conversion import convert

NAMES = [name for name in evsnn.__all__ if name != "__version__"]
SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References", "Examples")
WITHOUT_EXAMPLE = {
    "InputError",
    "MissingExtraError",
    "ModelError",
    "NetworkError",
    "RunError",
    "WeightsError",
}
"""They are made as `EvsnnError` is."""


def public(name: str):
    """A public name; `evsnn.convert` is a module that is called as this function."""
    return convert if name == "convert" else getattr(evsnn, name)


def members():
    """Every public name, and every public method and property of the public classes, by its full name."""
    for name in NAMES:
        value = public(name)
        yield name, value
        if inspect.isclass(value):
            for member in vars(value):
                found = inspect.getattr_static(value, member)
                is_method = inspect.isfunction(found) or isinstance(found, (classmethod, staticmethod))
                if not member.startswith("_") and (is_method or hasattr(found, "__get__")):
                    yield f"{name}.{member}", found if not is_method else getattr(value, member)


MEMBERS = {name: value for name, value in members() if not inspect.ismemberdescriptor(value)}


def documentation(name: str) -> str:
    """The docstring of a member; methods that override another one may inherit it."""
    owner, _, member = name.partition(".")
    if not member:
        return inspect.getdoc(public(owner)) or ""
    for base in public(owner).__mro__:
        if member in vars(base):
            found = vars(base)[member]
            if found.__doc__:
                return inspect.cleandoc(found.__doc__)
    return ""


def sections(text: str) -> dict[str, str]:
    """The sections of a numpydoc docstring by title; what comes before them is ""."""
    parts = re.split(rf"^({'|'.join(SECTIONS)})\n-+$", text, flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2]))}


def entries(section: str) -> list[str]:
    """The names that a section describes, in order: its lines without an indent."""
    lines = [line for line in section.splitlines() if line and not line.startswith(" ")]
    return [name.strip() for line in lines for name in line.partition(" : ")[0].split(",")]


def parameters(value) -> list[str]:
    prefix = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    listed = inspect.signature(value).parameters.values()
    return [prefix.get(p.kind, "") + p.name for p in listed if p.name != "self"]


@pytest.mark.parametrize("name", MEMBERS)
def test_there_is_a_docstring_with_a_summary_of_one_line(name):
    first, _, rest = documentation(name).partition("\n")
    assert len(first) > 10
    assert first.endswith((".", "::")), first
    assert not rest or rest.startswith("\n"), f"{name}: the summary has more than one line"


@pytest.mark.parametrize("name", [name for name, value in MEMBERS.items() if callable(value)])
def test_parameters_are_those_of_the_signature(name):
    value = MEMBERS[name]
    documented = entries(sections(documentation(name)).get("Parameters", ""))
    if inspect.isclass(value) and issubclass(value, Exception) and value is not evsnn.EvsnnError:
        assert not documented and value.__init__ is evsnn.EvsnnError.__init__
    else:
        assert documented == parameters(value)


@pytest.mark.parametrize("name", MEMBERS)
def test_errors_exist(name):
    section = sections(documentation(name)).get("Raises")
    assert section is None or entries(section)
    for error in entries(section or ""):
        found = getattr(evsnn, error, None) or getattr(builtins, error, None)
        assert inspect.isclass(found) and issubclass(found, Exception), error


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_EXAMPLE])
def test_there_is_an_example(name):
    assert ">>> " in sections(documentation(name)).get("Examples", "")


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What examples may use: a network, an ONNX model in the current folder, and a few images."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    net = evsnn.Network(
        [
            evsnn.Input((1, 8, 8)),
            evsnn.Conv2d(rng.normal(size=(4, 1, 3, 3)) / 3, padding=1),
            evsnn.IF(v_threshold=1.0, name="a"),
            evsnn.AvgPool2d(2),
            evsnn.Flatten(),
            evsnn.Linear(rng.normal(size=(10, 64)) / 8),
            evsnn.Readout(),
        ],
        n_steps=16,
        input_range=(0, 1),
    )
    images = rng.random((40, 1, 8, 8), dtype=np.float32)
    labels = rng.integers(0, 10, len(images))
    return {"evsnn": evsnn, "np": np, "net": net, "image": images[0], "images": images, "labels": labels}


EXAMPLES = {"evsnn": evsnn.__doc__, **{name: documentation(name) for name in MEMBERS}}


@pytest.mark.parametrize("name", [name for name, text in EXAMPLES.items() if ">>> " in text])
def test_examples_run(name, names):
    text = EXAMPLES[name]
    if "model.onnx" in text:
        onnx = pytest.importorskip("onnx")
        from onnx_builder import OnnxModel

        m = OnnxModel((1, 8, 8))
        x = m.op("Clip", m.conv("x", 1, 4, strides=[2, 2]), np.float32(0), np.float32(6))
        onnx.save(m.model(m.head(x, 4 * 3 * 3)), Path("model.onnx"))
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    said = []
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not failed, "".join(said)
