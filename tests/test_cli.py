"""The command line, as the shell sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ml_pipeline.cli import main
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.config.data_lineage import lineage_tracker
from ml_pipeline.config.logging_config import audit_logger


def test_help_lists_every_command_and_imports_little() -> None:
    """`--help` answers without loading scikit-learn, NumPy or SQLite stores."""
    program = "import sys; from ml_pipeline.cli import main; code = main(['--help']); "
    program += "print(sorted({'numpy', 'sklearn', 'pydantic', 'requests'} & set(sys.modules))); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for command in ("run", "check", "health", "settings", "lineage", "alerts", "audit"):
        assert command in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_run_help_is_the_examples_own(capsys: pytest.CaptureFixture[str]) -> None:
    """`ml-pipeline run --help` lists the options of the example."""
    assert main(["run", "--help"]) == 0
    assert "--fail-at" in capsys.readouterr().out


def test_settings_shows_variable_value_and_meaning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting has a line; a secret's value stays hidden."""
    monkeypatch.setenv("GRAFANA_TOKEN", "glsa_very_secret")
    assert main(["settings"]) == 0
    out = capsys.readouterr().out
    assert "ML_PIPELINE_LOG_LEVEL" in out
    assert "glsa_very_secret" not in out
    assert "GRAFANA_TOKEN" in out


def test_health_names_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    """A sound set-up has exit code 0 and says which checks it made."""
    assert main(["health"]) == 0
    assert "ok" in capsys.readouterr().out


def test_audit_verify_finds_a_changed_record(capsys: pytest.CaptureFixture[str]) -> None:
    """An intact trail is said to be intact; after an edit the line is named and the exit code is 1."""
    for action in ("first", "second", "third"):
        audit_logger.info(action)
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out == "intact: 3 records\n"
    trail = Path("ml_pipeline/logs/audit.log")
    trail.write_bytes(trail.read_bytes().replace(b"second", b"SECOND"))
    assert main(["audit", "verify"]) == 1
    assert "not intact: line 2: record 2 was changed" in capsys.readouterr().out


def test_audit_verify_without_a_trail_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A trail that is not there is bad input: one line, exit code 2."""
    assert main(["audit", "verify", "nowhere.log"]) == 2
    assert capsys.readouterr().err == (
        "error: an audit trail must exist to be verified (got 'nowhere.log'); name the file\n"
    )


def test_lineage_commands_walk_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    """find, upstream, downstream and path print one node a line; export names the files it wrote."""
    source_id, data_id = lineage_tracker.track_data_ingestion("clinic", "visits", records_count=3)
    model_id = lineage_tracker.track_training(data_id, "classifier", "1")
    assert main(["lineage", "find", "--type", "model"]) == 0
    assert model_id in capsys.readouterr().out
    assert main(["lineage", "upstream", model_id]) == 0
    assert source_id in capsys.readouterr().out
    assert main(["lineage", "downstream", source_id]) == 0
    assert model_id in capsys.readouterr().out
    assert main(["lineage", "path", source_id, model_id]) == 0
    assert data_id in capsys.readouterr().out
    assert main(["lineage", "export", "exported"]) == 0
    assert {path.name for path in Path("exported").iterdir()} == {
        "nodes.json",
        "edges.json",
        "lineage.dot",
        "lineage.svg",
    }


def test_a_row_stays_a_line_when_it_is_piped(isolated: Path) -> None:
    """Long names do not cut or wrap an id: what `lineage find` prints to a pipe can be pasted."""
    name = "a very long name of a data set " * 8
    _, data_id = lineage_tracker.track_data_ingestion("clinic", name, records_count=3)
    lineage_tracker.flush()
    done = subprocess.run(
        [sys.executable, "-m", "ml_pipeline", "lineage", "find", "--type", "dataset"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if data_id in line]
    assert name.strip() in row


def test_alerts_are_listed_newest_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Each alert is a line with its time, severity, kind, operation and message."""
    alert_manager.alert_processing_failure("first_step", "broken")
    alert_manager.alert_processing_failure("second_step", "broken")
    assert main(["alerts", "list"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "processing_failure" in line]
    assert ["second_step" in lines[0], "first_step" in lines[1]] == [True, True]
    assert main(["alerts", "list", "--limit", "0"]) == 2


def test_credentials_in_a_url_stay_hidden(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The user and password of a URL, or a token in it, are shown by no command and no error."""
    monkeypatch.setenv("ML_PIPELINE_PUSHGATEWAY_URL", "http://bob:s3cr3t@127.0.0.1:9/?token=tok123")
    assert main(["settings"]) == 0
    assert main(["settings", "nonsense"]) == 2
    out, err = capsys.readouterr()
    assert "http://***@127.0.0.1:9/?token=***" in out
    assert "s3cr3t" not in out + err
    assert "tok123" not in out + err


def test_an_unknown_node_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A node that is not in the store is bad input: one line, exit code 2, no traceback."""
    assert main(["lineage", "upstream", "model:nope"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "model:nope" in err


def test_an_unknown_command_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command has exit code 2 and one line."""
    assert main(["lineag"]) == 2
    assert capsys.readouterr().err.startswith("error: No such command 'lineag'")


@pytest.mark.parametrize("script", ["examples/logging_monitoring_example.py", "config/setup_dashboards.py"])
def test_a_script_without_its_packages_names_the_remedy(script: str, isolated: Path) -> None:
    """Run by a Python that has none of the packages: one line, and no traceback."""
    path = Path(__file__).resolve().parents[1] / "ml_pipeline" / script
    done = subprocess.run([sys.executable, "-S", "-I", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "the package typer is missing: run make setup\n")
