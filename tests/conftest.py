"""Makes `tests/cases.py` importable and keeps Hypothesis the same on every run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# A width from outside (pytest-xdist sets one for its workers) would wrap what tests read.
os.environ.pop("COLUMNS", None)
sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile(
    "project", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")
# Every stage of every compilation is verified in the tests (compiler/stages.py).
os.environ.setdefault("CSP_EMBED_CHECK", "1")
