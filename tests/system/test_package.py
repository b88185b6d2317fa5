"""The house: who imports whom, what importing costs, what is exported, and whether the documents are true."""

from __future__ import annotations

import ast
import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import evsnn

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(evsnn.__file__).parent


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_nothing_in_the_package_asserts_or_swallows():
    for path in [*modules(), PACKAGE / "__init__.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno} asserts"
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), (
                f"{path.name}:{node.lineno} has a bare except"
            )
            assert not (
                isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("eval", "exec", "compile")
            ), f"{path.name}:{node.lineno} evaluates text"


def python(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, **options
    )


def imported_by(code: str) -> set[str]:
    done = python("-c", f"import sys\n{code}\nimport json; print(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


HEAVY = {"numba", "scipy", "llvmlite", "matplotlib", "rich", "onnx"}


def test_importing_is_light():
    assert not imported_by("import evsnn") & (HEAVY | {"numpy", "h5py"})
    assert not imported_by("import evsnn; evsnn.Network, evsnn.load, evsnn.quantize, evsnn.simulate") & HEAVY


def test_importing_the_conversion_is_light():
    assert not imported_by("import evsnn.conversion.onnx.importer, evsnn.conversion.onnx.evaluate") & HEAVY


@pytest.mark.parametrize("command", ["run", "inspect", "convert"])
def test_help_is_light(command):
    code = f"import evsnn.{command} as c\ntry:\n    c.main(['--help'])\nexcept SystemExit:\n    pass"
    assert not imported_by(code) & {"numba", "scipy", "llvmlite", "h5py"}


def test_init_does_not_import_run():
    assert (
        "run"
        not in python(
            "-c", "import sys, evsnn; print(*(m for m in sys.modules if m.startswith('evsnn.')))"
        ).stdout
    )


def test_exported_names_exist_and_are_all():
    assert sorted(evsnn.__all__) == list(evsnn.__all__)
    for name in evsnn.__all__:
        assert getattr(evsnn, name) is not None
    assert set(evsnn.__all__) <= set(dir(evsnn))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        evsnn.nothing  # noqa: B018


@pytest.mark.parametrize("name", [n for n in evsnn.__all__ if not n.startswith("__")])
def test_public_names_are_documented(name):
    assert len(getattr(evsnn, name).__doc__ or "") > 20


def test_version_is_in_the_changelog():
    assert f"## {evsnn.__version__}" in (ROOT / "CHANGELOG.md").read_text()


DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "SECURITY.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_files_named_in_documents_exist():
    for path in DOCUMENTS:
        for name in re.findall(
            r"`((?:evsnn|tests|examples|docs|firmware_export)/[\w./-]+)`", path.read_text()
        ):
            assert "/." in name or (ROOT / name).exists(), (
                f"{path.name}: {name}"
            )  # /.: made when needed, not committed


def blocks(path: Path, language: str):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def test_networks_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks(ROOT / "docs" / "networks.md", "python"):
        exec(compile(code, "docs/networks.md", "exec"), names)
    assert list(names["net"].step_parameters) == [4, 64]
    assert names["result"].n_samples == 3
    assert names["result"].layers[0].spike_counts.shape == (3, 8, 28, 28)
    assert Path("net.h5").exists()


def commands(path: Path):
    """Every ``python -m evsnn...`` line of a document, as words."""
    lines = [line for block in blocks(path, "sh") for line in block.splitlines()]
    return [line.split("#")[0].split("&&")[-1].split() for line in lines if "-m evsnn" in line]


@pytest.mark.slow
@pytest.mark.parametrize("document, least", [("README.md", 7), ("docs/convert.md", 4)])
def test_commands_of_documents_run(tmp_path, document, least):
    """With a weights file, a model that has limits, samples and digits at hand."""
    onnx = pytest.importorskip("onnx")
    if not (PACKAGE / "models" / "mnist.h5").exists():
        pytest.skip("no demo model")
    import numpy as np
    from onnx_builder import OnnxModel

    net = evsnn.load(PACKAGE / "models" / "mnist.h5")
    evsnn.save(tmp_path / "weights.h5", net)
    for name, n in (("digits", 5), ("samples", 100), ("test", 20)):
        np.savez(tmp_path / f"{name}.npz", images=net.samples.images[:n], labels=net.samples.labels[:n])
    m = OnnxModel((1, 28, 28))
    x = m.op("Clip", m.conv("x", 1, 4, strides=[2, 2]), np.float32(0), np.float32(6))
    onnx.save(m.model(m.head(x, 4 * 13 * 13)), tmp_path / "model.onnx")
    found = commands(ROOT / document)
    assert len(found) >= least
    for command in found:
        done = python(*command[1:], cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout


@pytest.mark.slow
def test_readme_from_torch_to_spikes(tmp_path):
    """The model in README, by README alone."""
    pytest.importorskip("torch")
    (code,) = [code for code in blocks(ROOT / "README.md", "python") if "torch" in code]
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = [command for command in commands(ROOT / "README.md") if "samples.npz" in command] + [
        ["python", "-m", "evsnn.run", "weights.h5"]
    ]
    assert len(after) == 2
    for command in after:
        done = python(*command[1:], cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)


def test_convert_page_from_scikit_learn(tmp_path, monkeypatch):
    """The classifier of docs/convert.md becomes a file that agrees with it."""
    linear, _ = pytest.importorskip("sklearn.neural_network"), pytest.importorskip("skl2onnx")
    import numpy as np

    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6))
    classifier = linear.MLPClassifier((16, 16), max_iter=50, random_state=0)
    with pytest.warns(match="converged"):
        classifier.fit(X, X[:, :3].argmax(axis=1))
    monkeypatch.chdir(tmp_path)
    (code,) = [code for code in blocks(ROOT / "docs" / "convert.md", "python") if "skl2onnx" in code]
    exec(
        compile(
            code.replace('open("model.onnx", "wb").write(', 'Path("model.onnx").write_bytes('),
            "docs/convert.md",
            "exec",
        ),
        {"classifier": classifier, "X": X, "Path": Path},
    )
    net = evsnn.convert("model.onnx", calibration=X, n_steps=64)
    assert (evsnn.simulate(net, X).predictions == classifier.predict(X)).mean() > 0.9


def test_packages_hold_the_demo_and_no_other_model():
    """Nothing that would bring examples/models into a wheel or an sdist: other packages, a manifest, or a
    plugin that takes what git tracks.
    """
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert settings["options"]["packages"] == "find:" and settings["options.packages.find"][
        "include"
    ].split() == ["evsnn*", "firmware_export*"]
    assert (
        dict(settings["options.package_data"])
        == {
            "evsnn": "py.typed, models/*.h5, profiling/pages/*.html",
            "firmware_export": "py.typed, runtime/*.h, emulator/*, templates/*.j2",
        }
        and "include_package_data" not in settings["options"]
    )
    assert (
        'requires = ["setuptools>=64"]' in (ROOT / "pyproject.toml").read_text()
        and not (ROOT / "MANIFEST.in").exists()
    )
    assert [path.name for path in (PACKAGE / "models").iterdir()] == ["mnist.h5"]


def test_ci_runs_the_readme_line():
    """One test line, in README, which .ci/run reads from there."""
    lines = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    assert sum("-m pytest" in line for line in lines) == 1
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
