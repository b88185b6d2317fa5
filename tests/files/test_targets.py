"""What a command writes takes the place of nothing that it must not: what is read, pipes, links, modes."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest

import evsnn
from evsnn import RunError
from evsnn.convert import main as convert
from evsnn.files.atomic import replace_file
from evsnn.files.targets import check_targets
from evsnn.profile import main as profile
from evsnn.run import main as run


def test_a_file_that_is_read_is_not_written(tmp_path):
    read, link, hard = tmp_path / "w.png", tmp_path / "l.png", tmp_path / "h.png"
    read.write_text("weights")
    link.symlink_to(read)
    hard.hardlink_to(read)
    for path in (read, link, hard, tmp_path / "." / "w.png"):
        with pytest.raises(RunError, match=r"the file to write is one that is read\. Give --plot"):
            check_targets({"--plot": str(path)}, (None, str(tmp_path / "none"), str(read)))
    check_targets({"--plot": str(tmp_path / "new.png"), "--html": None}, (str(read),))


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, what in (
        (tmp_path / "pipe.png", "something else has that name: got a pipe"),
        (tmp_path, "cannot be written"),
        (tmp_path / "no" / "a.png", "cannot be written"),
    ):
        with pytest.raises(RunError, match=what):
            check_targets({"--plot": str(path)})
    with pytest.raises(RunError, match="--plot and --html are one file"):
        check_targets({"--plot": str(tmp_path / "a"), "--html": str(tmp_path / "." / "a")})


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (run, "{w} --plot {w}"),
        (run, "{w} --input {i} --outputs {i}"),
        (run, "{w} --outputs {p}.npz"),
        (profile, "{w} --html {w}"),
        (profile, "{w} --speedscope {w}"),
        (convert, "{i} -o {i} --calibration {c}"),
        (convert, "{i} -o new.h5 --calibration {c} --plot {c}"),
    ],
)
def test_commands_ask_before_they_work(tmp_path, monkeypatch, capsys, command, words):
    """All names of files to write go through one function; no file changes."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    endings = {"--plot": "png", "--html": "html", "--speedscope": "json"}
    suffix = next((ending for option, ending in endings.items() if option in words), "h5")
    files = {"w": f"w.{suffix}", "i": "i.npz", "c": "c.png", "p": "p"}
    net = evsnn.Network([evsnn.Input((2,)), evsnn.Linear(np.eye(2)), evsnn.Readout()], n_steps=2)
    evsnn.save(files["w"], net)
    np.savez("i.npz", images=np.ones((2, 2)))
    (tmp_path / "c.png").write_bytes((tmp_path / "i.npz").read_bytes())
    os.mkfifo("p.npz")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert command(words.format(**files).split()) == 1
    assert "one that is read" in (err := capsys.readouterr().err) or "something else has that name" in err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_modes_are_not_wider_and_links_are_followed(tmp_path):
    target = tmp_path / "page.html"
    target.write_text("old")
    target.chmod(0o600)
    (tmp_path / "link.html").symlink_to(target)
    replace_file(tmp_path / "link.html", b"new")
    assert target.read_text() == "new" and (tmp_path / "link.html").is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    old = os.umask(0o077)
    try:
        replace_file(tmp_path / "other.html", b"new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "other.html").stat().st_mode) == 0o600
    replace_file(tmp_path / "link.html", b"own", follow=False)
    assert not (tmp_path / "link.html").is_symlink() and target.read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, UnicodeEncodeError("utf-8", "x", 0, 1, "no"), OSError])
def test_nothing_is_left_beside_a_file_that_failed(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        replace_file(tmp_path / "a.html", b"text")
    assert not list(tmp_path.iterdir())
