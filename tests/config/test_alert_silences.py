"""Silences: which alerts they mean, and what is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.config._alert_silences import MATCHED, new_silence
from ml_pipeline.errors import AlertError
from ml_pipeline.testing.alert_store_contract import said


@pytest.mark.parametrize(
    ("matchers", "fits"),
    [
        ({"pipeline": "p"}, True),
        ({"pipeline": "p", "operation": "data_ingestion"}, True),
        ({"pipeline": "p", "operation": "other"}, False),
        ({"operation": "data_*"}, True),
        ({"operation": "*_ingestion"}, True),
        ({"operation": "*"}, True),
        ({"operation": "d*i*n"}, True),
        ({"operation": "data"}, False),
        ({"operation": "data_ingestio?"}, False),
        ({"operation": "Data_*"}, False),
        ({"model": "*"}, True),
        ({"severity": "warning"}, False),
        ({"kind": "processing_failure", "severity": "critical"}, True),
    ],
)
def test_every_matcher_must_fit(matchers: dict[str, str], fits: bool) -> None:
    """The whole text, letter by letter; a star is any characters, and nothing else is special."""
    silence = new_silence(matchers, now=1000.0, seconds=60.0, reason="repair")
    assert silence.matches(said().alert) is fits


@given(st.text(min_size=1, max_size=50))
def test_a_text_without_a_star_means_itself(text: str) -> None:
    """Whatever characters it has."""
    silence = new_silence({"operation": text}, now=1000.0, seconds=60.0, reason="repair")
    operation = silence.matchers["operation"]
    assert silence.matches(said(operation=operation).alert)
    assert silence.matches(said(operation=f"{operation}x").alert) == operation.endswith("*")


def test_a_silence_as_a_dictionary() -> None:
    """Times as RFC 3339, all it knows."""
    silence = new_silence({"model": "m*"}, now=0.0, seconds=60.0, reason="repair", by="ada")
    assert silence.to_dict() == {
        "silence_id": silence.silence_id,
        "matchers": {"model": "m*"},
        "since": "1970-01-01T00:00:00.000000Z",
        "until": "1970-01-01T00:01:00.000000Z",
        "reason": "repair",
        "by": "ada",
    }


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (
            {"matchers": {}},
            'a silence must say which alerts it means (got {}); as in name="DataDrift"; "*" is any text',
        ),
        (
            {"matchers": {"modle": "m"}},
            "a silence matches by a field that it can match by (got 'modle'); did you mean 'model'?",
        ),
        ({"matchers": {"model": ""}}, "a silence matches model by a text (got ''); name one; \"*\" is any text"),
        ({"seconds": 0}, "a silence must last for a while and end (got 0); give seconds above 0, such as 3600"),
        (
            {"seconds": math.inf},
            "a silence must last for a while and end (got inf); give seconds above 0, such as 3600",
        ),
        ({"reason": " "}, "a silence must have a reason (got ' '); say why, for whoever reads it tomorrow"),
    ],
)
def test_what_is_no_silence_is_an_error(wrong: dict[str, Any], text: str) -> None:
    """It names the rule, what was given, and the remedy."""
    given: dict[str, Any] = {"matchers": {"model": "m"}, "seconds": 60.0, "reason": "repair", **wrong}
    with pytest.raises(AlertError) as refused:
        new_silence(given.pop("matchers"), now=1000.0, **given)
    assert str(refused.value) == text


def test_every_field_that_is_matched_is_one_of_an_alert() -> None:
    """With a text."""
    assert all(isinstance(getattr(said().alert, field), str) for field in MATCHED)
