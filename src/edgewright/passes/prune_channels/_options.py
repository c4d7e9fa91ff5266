"""Options of the pass, checked before anything is read."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Any

from edgewright.errors import EdgewrightError

#: Options that say what remains.
TARGETS = ("macs", "size", "latency")


def check(config: Any) -> None:
    """Refuse values that cannot be.

    Raises:
        EdgewrightError: E103.
    """
    for option in ("multiple", "max_samples", "max_vectors", "max_trials"):
        given = getattr(config, option)
        if given < 1:
            raise _wrong(option, given, "at least 1")
    if not 0 < config.most < 1:
        raise _wrong("most", config.most, "above 0 and below 1")
    for pattern, ratio in config.ratios.items():
        if not 0 <= ratio < 1:
            raise _wrong(f"ratios.{pattern}", ratio, "at least 0 and below 1: the share of channels to remove")
    targets = {option: getattr(config, option) for option in TARGETS if getattr(config, option) is not None}
    for option, share in targets.items():
        if not 0 < share <= 1:
            raise _wrong(option, share, "above 0 and at most 1: the share that remains")
    if len(targets) > 1:
        given = " and ".join(f"`prune_channels.{option}`" for option in targets)
        raise EdgewrightError(
            "E103", f"options {given} are all set: give one", hint=f"--set prune_channels.{next(iter(targets))}=none"
        )
    if config.spread == "given":
        if not config.ratios or targets:
            raise EdgewrightError(
                "E103", "with `prune_channels.spread` = given, `prune_channels.ratios` decide, and no target"
            )
    elif not targets or config.ratios:
        what = "`ratios` need `spread` = given" if config.ratios else "no target is set"
        raise EdgewrightError(
            "E103",
            f"`prune_channels`: {what}",
            hint="--set prune_channels.macs=0.75 keeps three quarters of the multiply-adds",
        )


def matching(patterns: Iterable[str], names: Iterable[str], *, option: str) -> dict[str, str]:
    """Names that a pattern fits -> the last pattern that does.

    Raises:
        EdgewrightError: E103 for a pattern that fits none.
    """
    known = list(names)
    found: dict[str, str] = {}
    for pattern in patterns:
        fitting = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not fitting:
            few = ", ".join(f"`{name}`" for name in known[:5])
            raise EdgewrightError(
                "E103",
                f"option `prune_channels.{option}`: `{pattern}` fits none of the {len(known)} groups, such as {few}",
                hint="edgewright inspect MODEL --groups",
            )
        found |= dict.fromkeys(fitting, pattern)
    return found


def _wrong(option: str, given: object, limit: str) -> EdgewrightError:
    return EdgewrightError("E103", f"option `prune_channels.{option}` is {given}, but must be {limit}")
