"""What values mean: colours from Grafana's palette, which fit both themes, and words; colour alone is not enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models import dashboard as model

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AGO",
    "FINE_OR_FAILING",
    "NEUTRAL",
    "STATUS_COLOURS",
    "VERDICTS",
    "YES_OR_NO",
    "Scale",
    "higher_is_better",
    "lower_is_better",
    "trouble",
]


@dataclass(frozen=True, slots=True)
class Scale:
    """How values are judged.

    Attributes:
        steps: From which value on which colour; the first from None, which is minus infinity.
        says: Words, and their colour, in place of certain values.
        nothing: The word where there is no value, or a share of nothing.
    """

    steps: tuple[tuple[float | None, str], ...]
    says: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    nothing: str = "none yet"

    @property
    def judges(self) -> bool:
        """Whether it says anything at all."""
        return len(self.steps) > 1 or bool(self.says)

    @property
    def thresholds(self) -> ThresholdsConfig:
        """The steps, for Grafana."""
        return ThresholdsConfig().steps([model.Threshold(value, colour) for value, colour in self.steps])

    @property
    def mappings(self) -> list[model.ValueMapping]:
        """The words, for Grafana; nothing is neither good nor bad."""
        words = {
            value: model.ValueMappingResult(text, colour, index=index)
            for index, (value, (text, colour)) in enumerate(self.says.items())
        }
        nothing = model.DashboardSpecialValueMapOptions(
            model.SpecialValueMatch.NULL_AND_NAN, model.ValueMappingResult(self.nothing, "text", index=len(words))
        )
        return [*([model.ValueMap(words)] if words else []), model.SpecialValueMap(nothing)]


AGO: Final = "dateTimeFromNow"
"""The unit of a time in milliseconds, read as "5 minutes ago"."""
NEUTRAL: Final = Scale(((None, "text"),))
FINE_OR_FAILING: Final = Scale(((None, "green"), (1, "red")), {"0": ("fine", "green"), "1": ("failing", "red")})
YES_OR_NO: Final = Scale(((None, "red"), (1, "green")), {"0": ("no", "red"), "1": ("yes", "green")})
VERDICTS: Final = Scale(((None, "green"), (1, "orange")), {"0": ("no drift", "green"), "1": ("drift", "orange")})
STATUS_COLOURS: Final = {"complete": "green", "fail": "red", "cancel": "orange", "abandon": "purple"}


def trouble(word: str, colour: str = "red") -> Scale:
    """A count of bad things: a word for 0, a colour from 1."""
    return Scale(((None, "green"), (1, colour)), {"0": (word, "green")})


def higher_is_better(good: float, poor: float) -> Scale:
    """Green from *good*, red below *poor*, orange between."""
    return Scale(((None, "red"), (poor, "orange"), (good, "green")))


def lower_is_better(high: float, too_high: float) -> Scale:
    """Green below *high*, red from *too_high*, orange between."""
    return Scale(((None, "green"), (high, "orange"), (too_high, "red")))
