"""What quantization did to a network and to each of its layers, in sentences and numbers for people."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgewright.records import DeployOutcome
from edgewright.report.quantization import Part, QuantizedLayer, finite_of, list_of, text_of, whole_of
from edgewright.report.svg import elided, label

if TYPE_CHECKING:
    from markupsafe import Markup

_LONGEST_NAME = 300  # of a tensor in the advice
_MUCH_CLIPPED, _MUCH_SHIFTED = 0.001, 0.02  # worth a word: of the values, of the spread
_MOST_REASONS, _MOST_NAMES = 8, 6  # to stay in float, and layers named for each
_MOST_TRIED = 6  # numbers of layers in float in one sentence


def summary(part: Part) -> list[str]:
    """Sentences on the format and on what stays in float, names in backticks; empty where the pass tells nothing."""
    return [text for text in (_format(part), _counted(part), _bytes(part), *_kept(part), _chosen(part)) if text]


def headline(part: Part) -> str:
    """`47 of 49 layers in int8`, for the line that opens the part."""
    total, quantized = len(part.layers), len(part.quantized)
    kinds = {layer.state for layer in part.quantized if layer.state} or {"int8"}
    kind = "int8" if kinds == {"int8"} else " and ".join(sorted(kinds)[:3])
    plural = "s" if total != 1 else ""
    if quantized == total and part.step.stats.get("float"):  # the pass lists what stays in float elsewhere
        return f"{quantized} layer{plural} in {kind}"
    return f"{'all' if quantized == total else f'{quantized} of'} {total} layer{plural} in {kind}"


def about(layer: QuantizedLayer, part: Part) -> str:
    """`Conv · 864 weights · 8 bit`: what a layer is; without the bits where all layers of `part` have the same."""
    weights = "" if layer.weights is None else f"{layer.weights:,} weight{'s' if layer.weights != 1 else ''}"
    uniform = len({other.bits for other in part.quantized}) == 1
    bits = "" if layer.bits is None or uniform or layer.state == "float" else f"{layer.bits} bit"
    return " · ".join(word for word in (shorten(layer.op, 30), weights, bits) if word)


def advice(part: Part, outcome: DeployOutcome) -> str | None:
    """The command that leaves the worst layer in float as well; None where the pass has no such option."""
    if "keep" not in part.step.config or not part.worst:
        return None
    name = part.worst[0].name
    asked = [text_of(other) for other in list_of(part.step.config["keep"])]
    names = [other for other in (*asked, name) if other]
    if any("," in other or not other.isprintable() or len(other) > _LONGEST_NAME for other in names):
        return None  # `--set` takes names with commas between them
    option = f"--set {part.step.name}.keep={shlex.quote(','.join(names))}"
    command = outcome.command if outcome.command.startswith("edgewright ") else "edgewright deploy MODEL"
    return f"{command} {option}"


def cause(layer: QuantizedLayer) -> str:
    """Why a layer hurts, in words: what is rounded, clipping, a shifted mean."""
    words = [_blame(layer)]
    for name, span in (("input", layer.input), ("output", layer.output)):
        if span is not None and span.clipped is not None and span.clipped >= _MUCH_CLIPPED:
            words.append(f"{part_of(span.clipped)} of its {name} is clipped to {ends(span.low, span.high)}")
    if layer.bias_after is not None and abs(layer.bias_after) >= _MUCH_SHIFTED:
        words.append(f"its output's mean is off by {shift(layer.bias_after)} of its spread")
    return "; ".join(word for word in words if word) or "no single cause stands out"


def _blame(layer: QuantizedLayer) -> str:
    """The sources of its error, the worst first, and which of them is to blame: those within 3 dB of the worst."""
    sources = sorted(layer.sources.items(), key=lambda pair: pair[1])
    if not sources:
        return ""
    levels = ", ".join(f"{source} {_level(level)}" for source, level in sources)
    if len(sources) == 1:
        return f"rounded {levels}"
    worst = [source for source, level in sources if level == sources[0][1] or level <= sources[0][1] + 3]
    if len(worst) == len(sources):
        return f"its {' and '.join(worst)} alike ({levels})"
    return f"mostly its rounded {' and '.join(worst)} ({levels})"


def _level(level: float | None) -> str:
    text = decibel(level)
    return f"{text} dB" if text[-1:].isdigit() else text


def remedy(layer: QuantizedLayer) -> str:
    """What was done about a layer, in words."""
    words = []
    if layer.rounding_before is not None and layer.rounding_after is not None:
        words.append(f"rounding {change(layer.rounding_before, layer.rounding_after, decibel)} dB")
    if layer.bias_before is not None and layer.bias_after is not None:
        words.append(f"mean shift {change(layer.bias_before, layer.bias_after, shift)}")
    span = layer.input
    if span is not None and span.seen_low is not None and span.seen_high is not None and span.low is not None:
        if ends(span.low, span.high) == ends(span.seen_low, span.seen_high):
            words.append("range as seen")
        else:
            words.append(f"range {ends(span.seen_low, span.seen_high)} → {ends(span.low, span.high)}")
    return "; ".join(words) or "–"


def _format(part: Part) -> str:
    stated = part.step.stats.get("format")
    if isinstance(stated, str) and stated:
        return f"Format: {shorten(text_of(stated), 500).rstrip('.')}."
    if not isinstance(stated, Mapping):
        return ""
    dtype, bits = text_of(stated.get("activation_dtype")), whole_of(stated.get("weight_bits"))
    words = [
        f"{dtype}{' symmetric' if stated.get('activation_symmetric') is True else ''} activations" if dtype else ""
    ]
    if stated.get("pairs") is True:
        words.append("8-bit weights that add up to 128 at most in every pair")
    else:
        words.append(f"{bits}-bit weights" if bits is not None else "")
    if isinstance(stated.get("per_channel"), bool):
        words.append(f"one weight scale per {'output channel' if stated['per_channel'] else 'tensor'}")
    reason = text_of(stated.get("reason")).strip().rstrip(".")
    listed = ", ".join(word for word in words if word)
    text = shorten(f"{listed}: {reason}" if listed and reason else listed or reason, 500)
    return f"Format: {text}." if text else ""


def _counted(part: Part) -> str:
    weights = [(layer.weights or 0, layer.state != "float") for layer in part.layers]
    total = sum(count for count, _ in weights)
    if not total or all(quantized for _, quantized in weights):
        return ""
    share = sum(count for count, quantized in weights if quantized) / total
    return f"Layers in float hold {part_of(1 - share)} of the weights."


def _bytes(part: Part) -> str:
    told = part.step.stats.get("bytes")
    before, after = (whole_of(told.get(key)) if isinstance(told, Mapping) else None for key in ("before", "after"))
    if not before or after is None:
        return ""
    return f"Weights take {after / 1e6:,.2f} MB instead of {before / 1e6:,.2f} MB."


def _kept(part: Part) -> Iterator[str]:
    """One sentence for each reason to stay in float."""
    reasons: dict[str, list[str]] = {}
    listed = set()
    for layer in part.layers:
        if layer.state == "float":
            reasons.setdefault(layer.reason, []).append(layer.name)
            listed |= {layer.name, layer.node}
    for name in map(text_of, list_of(part.step.stats.get("kept"))):
        if name and name not in listed:
            reasons.setdefault("", []).append(name)
    counts: dict[str, int] = {}
    others = part.step.stats.get("float")
    for key, told in others.items() if isinstance(others, Mapping) else ():
        if isinstance(told, Mapping):  # by reason: how many, and some of them
            reasons.setdefault(text_of(key), []).extend(map(text_of, list_of(told.get("nodes"))))
            counts[text_of(key)] = whole_of(told.get("count")) or 0
        elif isinstance(told, str):  # by name
            reasons.setdefault(text_of(told), []).append(text_of(key))
    found = [(reason, names, max(counts.get(reason, 0), len(names))) for reason, names in reasons.items() if names]
    for reason, names, count in sorted(found, key=lambda item: -item[2])[:_MOST_REASONS]:
        some = ", ".join(f"`{_quotable(name)}`" for name in names[:_MOST_NAMES])
        rest = count - min(len(names), _MOST_NAMES)
        more = f" and {rest:,} more" if rest else ""
        yield f"In float: {some}{more}{f' ({shorten(reason, 200)})' if reason else ''}."


def _chosen(part: Part) -> str:
    """How the number of layers in float was chosen on the select samples."""
    stats = part.step.stats
    select = stats.get("select")
    if not isinstance(select, Mapping):
        select = {"samples": stats.get("select_samples"), "agreement_after": stats.get("agreement")}
    count = whole_of(select.get("samples"))
    where = f"On {count} select sample{'s' if count != 1 else ''}" if count is not None else "On the select samples"
    asked = finite_of(select.get("required"))
    tail = "" if asked is None else f" ({part_of(asked)} asked for)"
    tried = sorted(_tried(select).items())
    if len(tried) > _MOST_TRIED:
        tried = [*tried[: _MOST_TRIED // 2], *tried[-_MOST_TRIED // 2 :]]
    if tried:
        levels = ", ".join(f"{part_of(level)} with {kept or 'none'} in float" for kept, level in tried)
        return f"{where} the answers agree with the original's: {levels}{tail}."
    before, after = finite_of(select.get("agreement_before")), finite_of(select.get("agreement_after"))
    if after is None and before is None:
        return ""
    return f"{where} the answers agree with the original's: {change(before, after, part_of)}{tail}."


def _tried(select: Mapping[str, Any]) -> dict[int, float]:
    """Agreement by number of layers in float, as far as it is known."""
    known: dict[int, float] = {}
    for row in list_of(select.get("steps")):
        if isinstance(row, Mapping):
            kept, level = whole_of(row.get("kept")), finite_of(row.get("agreement"))
            if kept is not None and level is not None:
                known[kept] = level
    return known


# --- numbers ----------------------------------------------------------------------------------------------------------


def decibel(level: float | None) -> str:
    """`31.2`; "exact" where there is no noise at all."""
    if level is None:
        return "–"
    return _signed(f"{level:.1f}") if math.isfinite(level) else "exact" if level > 0 else "–"


def value(number: float | None) -> str:
    """A number with three significant digits."""
    return "–" if number is None else "0" if number == 0 else _signed(f"{number:.3g}")


def shift(number: float | None) -> str:
    """A shift of the mean over the spread, with two significant digits."""
    return "–" if number is None else "0" if number == 0 else _signed(f"{number:.2g}")


def part_of(share: float | None) -> str:
    """`0.03 %` of a share 0..1, with the digits that a small one needs."""
    if share is None:
        return "–"
    percent = 100 * share
    if percent and abs(percent) < 0.01:
        return "<0.01 %"
    if 99.95 <= percent < 100:
        return ">99.9 %"
    return f"{percent:.0f} %" if percent in (0, 100) else f"{percent:.{2 if abs(percent) < 1 else 1}f} %"


def ends(low: float | None, high: float | None) -> str:
    """`−1.2 to 6`."""
    return "–" if low is None or high is None else f"{value(low)} to {value(high)}"


def change(before: float | None, after: float | None, write: Callable[[float | None], str]) -> str:
    """`30.1 → 36.0`; one of them alone where the other is not known."""
    if before is None or after is None:
        return write(after if before is None else before)
    return f"{write(before)} → {write(after)}"


def breakable(name: str) -> Markup:
    """A shortened name, escaped, that a table may break where a word of it ends."""
    from markupsafe import Markup

    return Markup(re.sub(r"(?<=[/.:])(?=[^/.:])", "<wbr>", label(name, 120)))


def shorten(text: str, most: int = 120) -> str:
    """Text of a pass in at most `most` characters."""
    return elided(text, most)


def _signed(text: str) -> str:
    return text.replace("-", "−") if text.startswith("-") else text


def _quotable(name: str) -> str:
    return shorten(name, 80).replace("`", "'")
