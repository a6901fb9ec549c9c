"""Alertmanager's configuration, made from the same settings that a pipeline reads.

Alertmanager expands no variables: a ``${SMTP_HOST}`` would be taken literally, and found out with the first alert. So
the file is rendered before it starts. Secrets are not in it; it names the files that hold them.
"""

from __future__ import annotations

import json
import re
from string import Template
from typing import TYPE_CHECKING, Final

from stack.docker import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ml_pipeline.settings import Settings

__all__ = ["render", "runbook_of", "runbooks_address", "secret_files"]

_SECRETS: Final = "/run/secrets"
"""Where the container has them."""
OWN_RUNBOOK: Final = "{{ .Annotations.runbook_url }}"
_INBOX: Final = "mailpit:1025"
_IMPLICIT_TLS_PORT: Final = 465
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def render(template: Path, settings: Settings, runbook: str = OWN_RUNBOOK) -> str:
    """Fill in Alertmanager's configuration.

    Args:
        template: The file with the routes. ``$name`` is filled in; a line that begins with ``#slack:`` or
            ``#pagerduty:`` stands in the result, without that, where the channel's secret is set.
        settings: Without a mail server, mail goes to the stack's own inbox.
        runbook: The page of an alert, in Alertmanager's own template language; by default the one that it names.

    Returns:
        The configuration, YAML.

    Raises:
        StackError: If the template asks for something that is not filled in.
    """
    sender = settings.alert_email_from or "ml-pipeline@localhost"
    receivers = ", ".join(settings.alert_email_to) or "ops@localhost"
    text = template.read_text("utf-8")
    for channel, secret in (("slack", settings.slack_webhook_file), ("pagerduty", settings.pagerduty_key_file)):
        text = re.sub(rf"^#{channel}:(.*\n?)", r"\1" if secret else "", text, flags=re.MULTILINE)
    values = {
        "smtp_smarthost": _quoted(_smarthost(settings)),
        "smtp_from": _quoted(sender),
        "smtp_options": "".join(f"  {name}: {value}\n" for name, value in _smtp_options(settings).items()),
        "email_to": _quoted(receivers),
        "runbook": runbook,
    }
    try:
        return Template(text).substitute(values)
    except (KeyError, ValueError) as wrong:
        raise StackError(
            f"every $name in {template.name} must be one that is filled in",
            wrong.args[0],
            f"write a plain dollar sign as $$; filled in are {', '.join(sorted(values))}",
        ) from None


def runbooks_address(variables: Mapping[str, str]) -> str:
    """Return where runbooks are served: by the stack's Prometheus, unless ``RUNBOOKS_URL`` says otherwise.

    Args:
        variables: What Compose fills variables in from.
    """
    return variables.get("RUNBOOKS_URL") or f"http://127.0.0.1:{variables.get('PROMETHEUS_PORT', '9090')}/consoles"


def runbook_of(pages: Path, variables: Mapping[str, str]) -> str:
    """Return the page of an alert, in Alertmanager's own template language.

    Rules name theirs. What a process tells names none; it has the page of its name, where there is one.

    Args:
        pages: The folder of the runbooks, a file for each name.
        variables: As above.
    """
    names = "|".join(sorted(page.stem for page in pages.glob("*.md") if page.stem.isalnum() and page.stem != "README"))
    page = runbooks_address(variables) + "/{{ .Labels.alertname }}.md"
    own = f'{{{{ if match "^({names})$" .Labels.alertname }}}}{page}{{{{ end }}}}'
    return f"{{{{ with .Annotations.runbook_url }}}}{{{{ . }}}}{{{{ else }}}}{own}{{{{ end }}}}"


def secret_files(settings: Settings) -> dict[str, Path]:
    """Return the secrets that the configuration names: their names in the container, and where they are here."""
    files = {
        "smtp_password": settings.smtp_password_file if settings.smtp_host else None,
        "slack_webhook": settings.slack_webhook_file,
        "pagerduty_key": settings.pagerduty_key_file,
    }
    return {name: path for name, path in files.items() if path}


def _smarthost(settings: Settings) -> str:
    if settings.smtp_host is None:
        return _INBOX
    # What is "this machine" here is the container itself there.
    host = "host.docker.internal" if settings.smtp_host.lower() in _LOOPBACK else settings.smtp_host
    return f"[{host}]:{settings.smtp_port}" if ":" in host else f"{host}:{settings.smtp_port}"


def _smtp_options(settings: Settings) -> dict[str, str]:
    if settings.smtp_host is None:
        return {"smtp_require_tls": "false"}
    options = {"smtp_require_tls": "true" if settings.smtp_security == "starttls" else "false"}
    if settings.smtp_security == "tls" and settings.smtp_port != _IMPLICIT_TLS_PORT:
        options["smtp_force_implicit_tls"] = "true"  # port 465 means it by itself
    if settings.smtp_user:
        options["smtp_auth_username"] = _quoted(settings.smtp_user)
    if settings.smtp_password_file:
        options["smtp_auth_password_file"] = f"{_SECRETS}/smtp_password"
    return options


def _quoted(text: str) -> str:
    """Any text as YAML, of which JSON is a part but for what cannot be printed; that is escaped as YAML does."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(each if each.isprintable() else f"\\U{ord(each):08X}" for each in quoted)
