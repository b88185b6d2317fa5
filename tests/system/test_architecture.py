"""The picture and the page of the architecture are those of the code."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import draw_the_house
import pytest
from house import ROOT, modules

PAGE = ROOT / "docs" / "architecture.md"
GLOSSARY = ROOT / "docs" / "glossary.md"
PACKAGES = [name for name, path in modules().items() if path.name == "__init__.py"]


@pytest.mark.slow
def test_the_picture_is_current():
    current = draw_the_house.FILE.read_text(encoding="utf-8") == draw_the_house.draw()
    assert current, "draw it anew: python tests/draw_the_house.py"


@pytest.mark.slow
def test_the_picture_can_be_checked_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(draw_the_house, "ROOT", tmp_path)
    monkeypatch.setattr(draw_the_house, "FILE", tmp_path / "picture.svg")
    assert draw_the_house.main(["--check"]) == 1
    assert draw_the_house.main([]) == 0
    assert draw_the_house.main(["--check"]) == 0
    (tmp_path / "picture.svg").write_text("<svg/>")
    assert draw_the_house.main(["--check"]) == 1
    assert "run tests/draw_the_house.py" in capsys.readouterr().out


@pytest.mark.slow
def test_the_picture_shows_every_module():
    """And it is well-formed."""
    root = ElementTree.fromstring(draw_the_house.draw())
    texts = [(node.text or "").strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for name in modules():
        last = name.rpartition(".")[2]
        assert last in texts or f"{last}/" in texts, name


def test_the_page_shows_the_picture():
    assert "(figures/architecture.svg)" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_page_names_every_package(package):
    path = modules()[package].parent.relative_to(ROOT).as_posix()
    assert f"`{path}/`" in PAGE.read_text(encoding="utf-8"), f"docs/architecture.md does not name {path}/"


def test_the_page_names_no_package_that_is_gone():
    named = re.findall(r"`((?:evsnn|firmware_export)(?:/\w+)*)/`", PAGE.read_text(encoding="utf-8"))
    assert {name.replace("/", ".") for name in named} <= set(PACKAGES) | {
        "firmware_export.runtime",
        "firmware_export.templates",
        "firmware_export.emulator",
    }


def test_the_glossary_names_what_there_is():
    """Files, and names of the code: a word that is changed there is changed in the glossary, too."""
    rows = re.findall(r"^\| .* \| ([^|]*) \|$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    assert 25 <= len(rows) - 1 <= 45  # the first is the head
    text = "\n".join(path.read_text(encoding="utf-8") for path in modules().values())
    for name in re.findall(r"`([^`]+)`", " ".join(rows)):
        if "/" in name:
            assert (ROOT / name).exists() or (ROOT / "evsnn" / name).exists(), name
        else:
            for word in name.split("."):
                assert re.search(rf"\b{word}\b", text), name


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_pages_for_contributors_name_files_that_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:evsnn|firmware_export|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / name).exists() or name == "evsnn/NAME.py", name
    for name in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / name).exists(), name
