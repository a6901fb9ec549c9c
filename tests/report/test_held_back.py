"""A failure whose alert was held back as a repeat is not shown as a run without alerts."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.report.console import print_summary
from ml_pipeline.report.page import write_report
from ml_pipeline.report.summary import RunRecorder


def _failed_run() -> dict[str, object]:
    training = operation_logger.operation("training")
    with RunRecorder() as recorder, pytest.raises(ValueError, match="broken"), training:
        raise ValueError("broken")
    return recorder.summary(training.run_id)


def test_a_repeat_is_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The second failure within the cooldown raises nothing new: summary, terminal and page say that it was held back."""
    first, second = _failed_run(), _failed_run()
    assert (len(first["alerts"]), first["alerts_held_back"]) == (1, 0)
    assert (len(second["alerts"]), second["alerts_held_back"]) == (0, 1)
    print_summary(second, {})
    assert "Alerts  none, 1 held back as repeats of alerts raised earlier" in capsys.readouterr().out
    page = write_report(Path("runs"), second).read_text("utf-8")
    assert "1 alert held back as repeats" in page
    assert "1 repeat of alerts raised earlier held back by the cooldown" in page
