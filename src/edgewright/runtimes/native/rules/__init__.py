"""Rules: how each operator is planned, by its name; those of the domain edgewright have names that no standard one has."""

from __future__ import annotations

from edgewright.runtimes.native.planner import Rule
from edgewright.runtimes.native.rules import binary, elementwise, layers, shaping

RULES: dict[str, Rule] = {**layers.RULES, **elementwise.RULES, **shaping.RULES, **binary.RULES}
