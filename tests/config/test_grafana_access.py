"""Where Grafana is and the way in: arguments, settings, this project's stack; and no secret in any message."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_pipeline.config._grafana_access import GrafanaAccess, find_access, project_variable
from ml_pipeline.config._hosts import is_loopback
from ml_pipeline.errors import SettingsError

WAYS = (
    "Grafana needs a token or a password; give --token-file, --password-file, GRAFANA_TOKEN or "
    "GRAFANA_PASSWORD_FILE; for the stack of this project make up generates a password"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose stack was started once."""
    secrets = tmp_path / "project" / ".stack" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "grafana_admin_password").write_text("generated\n")
    return tmp_path / "project"


def secret_file(text: str) -> Path:
    """A file with a secret."""
    path = Path("secret")
    path.write_text(text)
    return path


def test_without_arguments_it_is_this_projects_stack(project: Path) -> None:
    """Its address on this host, its user, the generated password without its line end."""
    access = find_access(project=project)
    assert access == GrafanaAccess("http://127.0.0.1:3000", user="admin", password="generated")


def test_the_stacks_port_is_a_variable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the project's .env, and the environment wins."""
    (project / ".env").write_text("GRAFANA_PORT=3333\nOTHER=x\n")
    assert find_access(project=project).url == "http://127.0.0.1:3333"
    monkeypatch.setenv("GRAFANA_PORT", "4444")
    assert find_access(project=project).url == "http://127.0.0.1:4444"
    assert find_access("http://localhost:4444/", project=project).password == "generated"


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1"])
def test_a_wrong_port_is_an_error(port: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named with its value."""
    monkeypatch.setenv("GRAFANA_PORT", port)
    with pytest.raises(SettingsError) as error:
        find_access(project=project)
    assert str(error.value) == f"GRAFANA_PORT must be a port, 1 to 65535 (got '{port}'); correct it or unset it"


@pytest.mark.parametrize("url", ["http://grafana.example.org:3000", "http://127.0.0.1:3001", "https://10.0.0.1:3000"])
def test_the_generated_password_goes_to_no_other_grafana(url: str, project: Path) -> None:
    """Another host or port gets it neither by option nor by setting."""
    with pytest.raises(SettingsError) as error:
        find_access(url, project=project)
    assert str(error.value) == WAYS


def test_with_nothing_given_the_ways_are_named(tmp_path: Path) -> None:
    """No stack, no setting: the message says what there is to give."""
    with pytest.raises(SettingsError) as error:
        find_access(project=tmp_path)
    assert str(error.value) == WAYS
    with pytest.raises(SettingsError, match="Grafana needs a token or a password"):
        GrafanaAccess("http://127.0.0.1:3000")


def test_settings_name_another_grafana(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, user and password file; a token wins over them, an option over the token."""
    monkeypatch.setenv("GRAFANA_URL", "https://g.example.org/sub/")
    monkeypatch.setenv("GRAFANA_USER", "ops")
    monkeypatch.setenv("GRAFANA_PASSWORD_FILE", str(secret_file("pass word \r\n")))
    access = find_access(project=project)
    assert access == GrafanaAccess("https://g.example.org/sub", user="ops", password="pass word ")
    monkeypatch.setenv("GRAFANA_TOKEN", "glsa_1")
    access = find_access(project=project)
    assert (access.token, access.password) == ("glsa_1", None)
    access = find_access(password_file=Path("secret"), user="me", project=project)
    assert (access.token, access.user, access.password) == (None, "me", "pass word ")
    access = find_access("http://g2", token_file=secret_file("glsa_2\n"), project=project)
    assert (access.url, access.token) == ("http://g2", "glsa_2")


def test_token_and_user_exclude_each_other() -> None:
    """Nobody has to guess which was used."""
    with pytest.raises(SettingsError) as error:
        find_access(token_file=Path("t"), user="me")
    assert str(error.value) == "--token-file stands alone; leave out --user and --password-file, or the token"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a file with a token or a password must be readable (got 'secret'); No such file or directory"),
        (b"\xff\xfe", "a file with a token or a password must be readable (got 'secret'); not UTF-8"),
        (b" \n", "a file with a token or a password must not be empty (got 'secret'); write it into the file"),
    ],
)
def test_a_secrets_file_that_cannot_be_used(content: bytes | None, message: str, tmp_path: Path) -> None:
    """The file is named, never what is in it."""
    if content is not None:
        Path("secret").write_bytes(content)
    with pytest.raises(SettingsError) as error:
        find_access(password_file=Path("secret"), project=tmp_path)
    assert str(error.value) == message


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut"])
def test_a_token_that_no_header_can_hold(token: str) -> None:
    """It is refused before it is sent, and not shown."""
    with pytest.raises(SettingsError) as error:
        GrafanaAccess("http://g", token=token)
    assert str(error.value) == "a Grafana token must be one word of plain ASCII; give the token alone"


def test_credentials_in_the_address_are_refused_and_not_shown() -> None:
    """They would be in the process list and in every message; a slash in the password hides nothing."""
    for url in ("http://admin:hunter2@g:3000", "http://admin:hun/ter2@g"):
        with pytest.raises(SettingsError) as error:
            GrafanaAccess(url, token="x")
        assert str(error.value) == "Grafana's address must hold no user and no password; give the address alone"


@pytest.mark.parametrize(
    "url", ["g:3000", "ftp://g", "http://", "http://g:x", "http://g/?a=1", "http://a b", "http://[::1"]
)
def test_an_address_that_is_none(url: str) -> None:
    """Rule, value, remedy."""
    with pytest.raises(SettingsError) as error:
        GrafanaAccess(url, token="x")
    assert str(error.value) == f"Grafana's address must look like http://127.0.0.1:3000 (got {url!r}); correct it"


def test_no_secret_is_shown() -> None:
    """Not by the object itself."""
    shown = repr(GrafanaAccess("http://g", token="glsa_x", password="hunter2"))
    assert "glsa_x" not in shown
    assert "hunter2" not in shown


def test_loopback_addresses() -> None:
    """By name and by number, of both families."""
    assert all(map(is_loopback, ("localhost", "grafana.localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("grafana", "10.0.0.1", "localhost.example.org")))


def test_an_unreadable_env_file_is_an_error(project: Path) -> None:
    """Named."""
    (project / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(SettingsError) as error:
        project_variable("A", project)
    assert str(error.value).startswith("the project's .env must be a readable text file (got '/")
