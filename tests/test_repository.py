"""What is kept under version control: texts that somebody wrote, and pictures of the documentation."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import ROOT, require

MOST_BYTES = 500_000
PICTURES = "docs/images/"


def kept_files() -> list[str]:
    """Return the files under version control, by their paths in the repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone, and only a clone tells what is kept")
    listed = subprocess.run([require("git"), "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [path for path in listed.stdout.decode().split("\0") if (ROOT / path).is_file()]


def test_what_is_kept_is_small_and_text() -> None:
    """A file that a program has left behind, such as a journal of zeros, is not kept by mistake."""
    wrong = {}
    for path in kept_files():
        content = (ROOT / path).read_bytes()
        if len(content) > MOST_BYTES:
            wrong[path] = f"{len(content)} bytes"
        elif not path.startswith(PICTURES) and (b"\0" in content or not _is_utf8(content)):
            wrong[path] = "no text"
    assert wrong == {}


def test_nothing_lies_at_the_top_that_has_no_name_for_what_it_is() -> None:
    """A file at the top is one that its ending or its name tells."""
    known = {"Dockerfile", "LICENSE", "Makefile", ".dockerignore", ".gitignore", ".gitattributes"}
    top = {path for path in kept_files() if "/" not in path}
    assert {
        path for path in top - known if not path.endswith((".md", ".toml", ".lock", ".yml", ".yaml", ".example"))
    } == set()


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
