"""The files that `make up` generates: who may read them, what is kept, what is renewed, and what is said on a fault."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_pipeline.settings import Settings, load_settings
from stack.docker import StackError
from stack.files import GENERATED, forget, is_known, prepare
from tests.support import ROOT

LINE = b"STACK_LOG_GROUP="
NOTE = b"# Written by `make up`: the group whose log files the log shipper may read."
TOO_LITTLE = "the stack's files must be writable below work/ (got '{}'); correct the permissions, or free some space"


@pytest.fixture
def root(isolated: Path) -> Path:
    """A folder with the template, which is all that is needed."""
    (isolated / "prometheus").mkdir()
    template = "alertmanager.yml.template"
    (isolated / "prometheus" / template).write_bytes((ROOT / "prometheus" / template).read_bytes())
    return isolated


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """A umask that lets everybody in, the usual one, and one that lets nobody in."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def mount() -> Iterator[Callable[[Path, str], None]]:
    """Mounts a file system of its own at a folder, for root is not stopped by permissions."""
    mounted: list[Path] = []

    def add(folder: Path, options: str) -> None:
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting needs root: {done.stderr.strip()}")
        mounted.append(folder.absolute())

    yield add
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _refused(root: Path, settings: Settings | None = None) -> str:
    with pytest.raises(StackError) as refused:
        prepare(root, settings or load_settings())
    return str(refused.value)


def _secret(path: Path, text: str = "s3cret") -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def _everything(root: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(path): (path.stat().st_ino, _mode(path), path.read_bytes() if path.is_file() else b"")
        for path in (root / ".env", *root.glob(".stack/**/*"))
    }


def _with_channels(root: Path) -> Settings:
    return load_settings(
        {
            "smtp_host": "smtp.example.org",
            "smtp_user": "mail",
            "alert_email_from": "a@example.org",
            "alert_email_to": "b@example.org",
            "smtp_password_file": _secret(root / "password", "pass\n"),
            "slack_webhook_file": _secret(root / "webhook", "https://hooks.example.org/x"),
            "pagerduty_key_file": _secret(root / "key", "k" * 32),
        }
    )


def test_modes(root: Path, umask: int) -> None:
    """Whatever the umask, nobody else enters the secrets' folder, and containers can read the files in it."""
    prepare(root, _with_channels(root))
    state = root / ".stack"
    assert {str(path.relative_to(state)): oct(_mode(path)) for path in (state, *state.rglob("*"))} == {
        ".": "0o755",
        "secrets": "0o700",
        **{f"secrets/{name}": "0o444" for name in GENERATED},
        "secrets/alertmanager": "0o755",
        **{f"secrets/alertmanager/{name}": "0o444" for name in ("smtp_password", "slack_webhook", "pagerduty_key")},
        "run-make-up-first": "0o644",
        "alertmanager": "0o755",
        "alertmanager/alertmanager.yml": "0o644",
    }
    assert _mode(root / ".env") == 0o600
    assert _mode(root / "ml_pipeline" / "logs") == 0o750
    assert os.umask(umask) == umask, "the process's own umask is as it was"


def test_modes_are_mended(root: Path) -> None:
    """Modes that somebody changed are right again after the next run, and the contents are the same."""
    prepare(root, load_settings())
    before = _everything(root)
    for path in root.glob(".stack/**/*"):
        path.chmod(0o700)
    prepare(root, load_settings())
    assert {name: rest for name, (_, *rest) in _everything(root).items()} == {
        name: rest for name, (_, *rest) in before.items()
    }


def test_secrets(root: Path) -> None:
    """Generated secrets are long, differ, and are one line without an end."""
    prepare(root, load_settings())
    secrets = [(root / ".stack" / "secrets" / name).read_text() for name in GENERATED]
    assert len(set(secrets)) == len(GENERATED)
    assert all(re.fullmatch(r"[\w-]{32}", each) for each in secrets)


def test_a_second_run_changes_nothing(root: Path) -> None:
    """Every file is the very same one, down to the inode: nothing was even rewritten."""
    settings = _with_channels(root)
    prepare(root, settings)
    before = _everything(root)
    prepare(root, settings)
    assert _everything(root) == before


def test_settings_that_change_are_applied(root: Path) -> None:
    """New values of a secret and of an address are in place after the next run; generated secrets stay."""
    settings = _with_channels(root)
    prepare(root, settings)
    before = _everything(root)
    _secret(root / "password", "other")
    prepare(root, load_settings(settings.model_dump() | {"alert_email_to": ("c@example.org",)}))
    after = _everything(root)
    changed = {Path(name).name for name in after if after[name] != before[name]}
    assert changed == {"smtp_password", "alertmanager.yml"}
    assert (root / ".stack/secrets/alertmanager/smtp_password").read_text() == "other"
    configuration = yaml.safe_load((root / ".stack/alertmanager/alertmanager.yml").read_text())
    assert configuration["receivers"][1]["email_configs"][0]["to"] == "c@example.org"


def test_secrets_of_removed_channels_disappear(root: Path) -> None:
    """A channel that is set no longer leaves no secret behind; the secrets of the others are untouched."""
    settings = _with_channels(root)
    prepare(root, settings)
    mail = root / ".stack" / "secrets" / "alertmanager"
    assert (mail / "smtp_password").read_text() == "pass"
    prepare(root, load_settings(settings.model_dump() | {"slack_webhook_file": None}))
    assert {path.name for path in mail.iterdir()} == {"smtp_password", "pagerduty_key"}
    prepare(root, load_settings())
    assert list(mail.iterdir()) == []
    assert all((mail.parent / name).is_file() for name in GENERATED)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), ("folder", "Is a directory"), (b"\xff\xfe", "not UTF-8")],
)
def test_secret_that_cannot_be_read(root: Path, content: bytes | str | None, reason: str) -> None:
    """A secret file that cannot be read is named, with what is wrong with it."""
    source = root / "hook"
    if content == "folder":
        source.mkdir()
    elif isinstance(content, bytes):
        source.write_bytes(content)
    with pytest.raises(StackError) as refused:
        prepare(root, load_settings({"slack_webhook_file": "hook"}))
    assert refused.value.rule == "a file with a secret must be readable"
    assert refused.value.given == f"{source}: {reason}"
    assert refused.value.remedy == "correct its name or its permissions"


@pytest.mark.parametrize("content", ["", " \n\t\n"])
def test_secret_that_is_empty(root: Path, content: str) -> None:
    """An empty secret would be found out with the first alert: it is said now."""
    (root / "hook").write_text(content)
    with pytest.raises(StackError) as refused:
        prepare(root, load_settings({"slack_webhook_file": "hook"}))
    assert refused.value.rule == "a file with a secret must not be empty"
    assert refused.value.given == str(root / "hook")
    assert refused.value.remedy == "write the secret into it"


def test_a_good_secret_after_a_bad_one(root: Path) -> None:
    """A refused run leaves nothing half-done that the next one does not mend."""
    (root / "hook").write_text("")
    settings = load_settings({"slack_webhook_file": "hook"})
    _refused(root, settings)
    _secret(root / "hook", "https://hooks.example.org/x")
    prepare(root, settings)
    assert (root / ".stack/secrets/alertmanager/slack_webhook").read_text() == "https://hooks.example.org/x"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, NOTE + b"\n" + LINE + b"%d\n"),
        (b"", NOTE + b"\n" + LINE + b"%d\n"),
        (b"A=1\n", b"A=1\n" + NOTE + b"\n" + LINE + b"%d\n"),
        (b"A=1", b"A=1\n" + NOTE + b"\n" + LINE + b"%d\n"),
        (b"A=1\r\nB=2\r\n", b"A=1\r\nB=2\r\n" + NOTE + b"\r\n" + LINE + b"%d\r\n"),
        (b"A=1\r\nB=2", b"A=1\r\nB=2\r\n" + NOTE + b"\r\n" + LINE + b"%d\r\n"),
        (b"A=1\n" + LINE + b"99999\n\n# end", b"A=1\n" + LINE + b"%d\n\n# end"),
        (b"A=1\r\n" + LINE + b"99999\r\nB=2\r\n", b"A=1\r\n" + LINE + b"%d\r\nB=2\r\n"),
        (LINE + b"99999", LINE + b"%d"),
        (LINE, LINE + b"%d"),
        (LINE + b"%d\n" + LINE + b"99999\n", LINE + b"%d\n" + LINE + b"%d\n"),
        (b"# " + LINE + b"99999\n", b"# " + LINE + b"99999\n" + NOTE + b"\n" + LINE + b"%d\n"),
        (b"#" + LINE + b"%d\n", b"#" + LINE + b"%d\n" + NOTE + b"\n" + LINE + b"%d\n"),
        (b"X_" + LINE + b"1\n", b"X_" + LINE + b"1\n" + NOTE + b"\n" + LINE + b"%d\n"),
        ("A='é ü'\n".encode(), "A='é ü'\n".encode() + NOTE + b"\n" + LINE + b"%d\n"),
    ],
)
def test_one_line_of_env(root: Path, before: bytes | None, after: bytes) -> None:
    """Every byte of `.env` but the one line stays, and with the right line in it the file is left alone."""
    (root / "ml_pipeline" / "logs").mkdir(parents=True)
    group = str((root / "ml_pipeline" / "logs").stat().st_gid).encode()
    path = root / ".env"
    if before is not None:
        path.write_bytes(before.replace(b"%d", group))
        path.chmod(0o640)
    prepare(root, load_settings())
    assert path.read_bytes() == after.replace(b"%d", group)
    assert _mode(path) == (0o600 if before is None else 0o640)
    inode = path.stat().st_ino
    prepare(root, load_settings())
    assert path.stat().st_ino == inode


def test_group_is_that_of_the_log_folder(root: Path) -> None:
    """The variable holds the group of the folder that the logs are in, wherever that is."""
    folder = root / "elsewhere" / "logs"
    folder.mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(folder, -1, 4321)
    prepare(root, load_settings({"log_dir": folder}))
    assert (root / ".env").read_bytes().endswith(LINE + f"{folder.stat().st_gid}\n".encode())


def test_env_that_is_a_link(root: Path, tmp_path: Path) -> None:
    """A link to an `.env` that is kept elsewhere stays one, and what it leads to has the line."""
    (tmp_path / "kept").write_text("A=1\n")
    (root / ".env").symlink_to(tmp_path / "kept")
    prepare(root, load_settings())
    assert (root / ".env").is_symlink()
    assert LINE in (tmp_path / "kept").read_bytes()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.sampled_from(["A=1", "", "# note", "STACK_LOG_GROUP=7", "B='x y'"])), end=st.booleans())
def test_env_keeps_every_other_line(root: Path, lines: list[str], end: bool) -> None:
    """Whatever `.env` holds: what is not the variable's is there afterwards in the same order, and Compose reads ours."""
    (root / ".env").write_text("\n".join(lines) + ("\n" if end else ""))
    prepare(root, load_settings())
    after = (root / ".env").read_text().splitlines()
    ours = [line for line in after if line.startswith(LINE.decode())]
    assert set(ours) == {f"STACK_LOG_GROUP={(root / 'ml_pipeline/logs').stat().st_gid}"}
    rest = [line for line in after if line not in ours and line != NOTE.decode()]
    assert [line for line in rest if line] == [line for line in lines if line and not line.startswith(LINE.decode())]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (".stack", "File exists"),
        (".stack/secrets", "File exists"),
        (".stack/secrets/alertmanager", "File exists"),
        (".stack/alertmanager", "File exists"),
        ("ml_pipeline", "Not a directory"),
    ],
)
def test_file_in_the_place_of_a_folder(root: Path, place: str, reason: str) -> None:
    """A folder that cannot be made is named with the reason."""
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text("")
    with pytest.raises(StackError) as refused:
        prepare(root, load_settings())
    assert refused.value.rule == "the stack's files must be writable below work/"
    assert str(refused.value.given).startswith(str(root / place))
    assert str(refused.value.given).endswith((reason, "Not a directory"))
    assert refused.value.remedy == "correct the permissions, or free some space"


def test_folder_in_the_place_of_a_file(root: Path) -> None:
    """Likewise a folder where a file must be."""
    (root / ".env").mkdir()
    assert "Is a directory" in _refused(root)


def test_read_only_folder(root: Path, mount: Callable[[Path, str], None]) -> None:
    """A folder on a read-only file system: one line, and the file or folder in it that could not be made."""
    mount(root / ".stack", "size=1m,ro")
    assert re.fullmatch(re.escape(TOO_LITTLE).replace(r"\{\}", ".*: Read-only file system"), _refused(root))


def test_full_disk(root: Path, mount: Callable[[Path, str], None]) -> None:
    """A disk with room for nothing: one line that names a place, no half-written file, and a later run mends it."""
    mount(root / ".stack", "size=4k,nr_inodes=64")
    (root / ".stack" / "big").write_bytes(b"x" * 4096)
    said = _refused(root)
    assert re.fullmatch(re.escape(TOO_LITTLE).replace(r"\{\}", r".*\.stack.*: No space left on device"), said), said
    assert "None" not in said
    assert [path.name for path in (root / ".stack").rglob("*") if path.is_file()] == ["big"]
    (root / ".stack" / "big").unlink()
    subprocess.run(["mount", "-o", "remount,size=1m", str(root / ".stack")], check=True)
    prepare(root, load_settings())
    assert (root / ".stack/alertmanager/alertmanager.yml").stat().st_size > 1000


def test_log_folder_that_is_there_stays_as_it_is(root: Path) -> None:
    """It is somebody's: its mode is told of, not changed."""
    folder = root / "ml_pipeline" / "logs"
    folder.mkdir(parents=True)
    folder.chmod(0o711)
    prepare(root, load_settings())
    assert _mode(folder) == 0o711


@pytest.mark.parametrize("before", [b"", b"A=1\n", b"A=1\r\nB=2\r\n", b"# a note\n\n"])
def test_forget(root: Path, before: bytes) -> None:
    """What was written is gone, and `.env` is what it was; one that held nothing else is gone too."""
    if before:
        (root / ".env").write_bytes(before)
        (root / ".env").chmod(0o640)
    prepare(root, load_settings())
    assert is_known(root)
    forget(root)
    assert not is_known(root)
    assert not (root / ".stack").exists()
    assert (root / ".env").exists() == bool(before)
    if before:
        assert (root / ".env").read_bytes() == before
        assert _mode(root / ".env") == 0o640
    forget(root)


def test_forget_what_cannot_be_written(root: Path, mount: Callable[[Path, str], None]) -> None:
    """What cannot be removed is one line."""
    mount(root / ".stack", "size=1m")
    prepare(root, load_settings())
    with pytest.raises(StackError) as refused:
        forget(root)
    assert re.fullmatch(
        re.escape(TOO_LITTLE).replace(r"\{\}", r".*\.stack: Device or resource busy"), str(refused.value)
    )
