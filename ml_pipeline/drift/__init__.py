"""Drift verdicts that can be believed: arrays in, frozen results out.

A reference is profiled once; each batch is counted in the profile's cells and judged by evidence (is it more than
chance?) and effect (is it enough to matter?). Nothing here reads a file, a setting or a clock.

>>> import numpy as np
>>> from ml_pipeline.drift import ReferenceProfile, check
>>> random = np.random.default_rng(0)
>>> profile = ReferenceProfile.fit({"age": random.normal(70, 8, 5_000), "site": random.choice(["A", "B"], 5_000)})
>>> report = check(profile, {"age": random.normal(74, 8, 1_000), "site": random.choice(["A", "B"], 1_000)})
>>> report.verdict.value, report.drifted
('drift', ('age',))

The profile travels as text (``to_json``, ``from_json``); counts of the parts of a batch add up (`BatchCounts.merge`),
so that a distributed engine can make them (`ReferenceProfile.assemble`); `learn_floors` knows how much the reference's
own chunks differ, `DriftAlarm` when verdicts become an alarm, and `self_test` how the check behaves on the user's own
data.
"""

from ml_pipeline.drift.alarm import DriftAlarm
from ml_pipeline.drift.bins import CategoricalBins, Counted, NumericBins
from ml_pipeline.drift.columns import Tally
from ml_pipeline.drift.counts import BatchCounts
from ml_pipeline.drift.distribution import Distribution, distribution
from ml_pipeline.drift.effects import Effects, Floors, PsiEffect
from ml_pipeline.drift.evidence import Evidence
from ml_pipeline.drift.history import learn_floors
from ml_pipeline.drift.performance import Estimate, PerformanceEstimator
from ml_pipeline.drift.profile import ReferenceProfile
from ml_pipeline.drift.replay import SelfTest, self_test
from ml_pipeline.drift.report import DriftReport, FeatureDrift, Verdict
from ml_pipeline.drift.verdict import check

__all__ = [
    "BatchCounts",
    "CategoricalBins",
    "Counted",
    "Distribution",
    "DriftAlarm",
    "DriftReport",
    "Effects",
    "Estimate",
    "Evidence",
    "FeatureDrift",
    "Floors",
    "NumericBins",
    "PerformanceEstimator",
    "PsiEffect",
    "ReferenceProfile",
    "SelfTest",
    "Tally",
    "Verdict",
    "check",
    "distribution",
    "learn_floors",
    "self_test",
]
