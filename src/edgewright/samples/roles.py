"""Roles: which samples make a file, which choose between files, and which judge.

The role follows from a hash of the content's source, so it never depends on names, order or what else is in the
folder: adding samples moves none, and identical photos under two names share a role. Near duplicates (the same scene
a second later, the same photo saved again) are different content and are not detected: name their common source in the
column `group` of labels.csv.
"""

from __future__ import annotations

import hashlib

from edgewright.contracts import Role

#: Upper ends of the shares by hash: calibrate 25 %, select 15 %, judge the remaining 60 %.
CALIBRATE_BELOW = 0.25
SELECT_BELOW = 0.40


def role_of(group: str) -> Role:
    """The role of a group, from the first 64 bits of its SHA-256 (hex)."""
    position = int(group[:16], 16) / 2**64
    if position < CALIBRATE_BELOW:
        return "calibrate"
    return "select" if position < SELECT_BELOW else "judge"


def named_group(name: str) -> str:
    """The group hash (hex) of a source that labels.csv or an .npz names, such as a speaker."""
    return hashlib.sha256(b"edgewright.group\x1f" + name.encode("utf-8", "surrogateescape")).hexdigest()
