"""Markdown of what int8_classification.py measured, and whether its targets are met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

AGREEMENT_MIN = 0.983
LOSS_POINTS_MAX = 0.5
RATIO_MAX = 1.05
SECONDS_MAX, PEAK_BYTES_MAX, GROWTH_MAX = 60.0, 1.5e9, 1.2
#: The file that ours is held against on each runtime.
RIVALS = {"onnxruntime": "ort-reduced", "openvino": "nncf"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def heading(environment: Mapping[str, Any], recipe: str, cpu: str, *, quick: bool) -> str:
    features = " ".join(environment["cpu_features"])
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
    return (
        f"# int8 against peers{' (quick run: figures mean nothing)' if quick else ''}\n\n"
        f"{environment['cpu']}, {environment['cores']} cores; {features}\n\n{versions}\n\n"
        f"Ours: recipe `{recipe}` for the CPU `{cpu}`.\n"
    )


def accuracy(result: Mapping[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        low, high = row["agreement_interval"]
        loss = row["top1_loss_points"]
        loss_low, loss_high = row["top1_loss_interval_points"]
        rows.append(
            (
                *(row["runtime"], row["candidate"], str(row["threads"])),
                f"{row['agreement']:.4f} ({low:.4f}-{high:.4f})",
                f"{min(row['agreement_folds']):.4f}",
                f"{row['top1']:.4f}",
                f"{loss:+.2f} ({loss_low:+.2f} to {loss_high:+.2f})",
                f"{row['sqnr_db']:.1f}",
            )
        )
    head = ("runtime", "candidate", "threads", "agrees with fp32", "worst fold", "top-1", "loss, points", "SQNR, dB")
    return (
        f"## Answers: EfficientNet-Lite0, {result['folds']} folds of {result['photos']} photos\n\n"
        f"Calibrated on a fifth of the photos, judged on the others. fp32 top-1 is {result['fp32_top1']:.4f}; these "
        "photos may have been in the network's training set. Intervals are 95 %, photos drawn again.\n\n"
        + table(head, rows)
    )


def speed(result: Mapping[str, Any]) -> str:
    parts = ["## Speed\n"]
    for network, found in result.items():
        rows = []
        for row in found["rows"]:
            gain, over = row["fp32_over_it"], row.get("ours_over_it")
            rows.append(
                (
                    *(row["runtime"], row["candidate"], str(row["threads"]), f"{row['median_ms']:.3f}"),
                    f"{gain['ratio']:.2f} ({gain['low']:.2f}-{gain['high']:.2f})",
                    f"{over['ratio']:.3f} ({over['low']:.3f}-{over['high']:.3f}), <= {over['upper_95']:.3f}"
                    if over
                    else "",
                    f"{row['size_bytes'] / 1e6:.2f}",
                    f"{found['sqnr_db'][name]:.1f}"
                    if (name := f"{row['candidate']}-{row['runtime']}") in found["sqnr_db"]
                    else "",
                )
            )
        head = ("runtime", "file", "threads", "ms", "x fp32", "time of ours / this file", "MB", "SQNR, dB")
        first = found["rows"][0]["fp32_over_it"]
        noisy = sum(item[2] != "trusted" for item in found["trust"])
        parts.append(
            f"### {network}\n\n{first['restarts']} restarts, {first['rounds']} rounds; {noisy} of "
            f"{len(found['trust'])} measurements not trusted.\n\n{table(head, rows)}"
        )
    return "\n".join(parts)


def memory(result: Mapping[str, Any]) -> str:
    rows = [
        (item["runtime"], str(item["photos"]), f"{item['process_seconds']:.1f}", f"{item['peak_bytes'] / 1e9:.3f}")
        for item in result.values()
    ]
    return "## Quantizing EfficientNet-Lite0, whole process\n\n" + table(
        ("runtime", "photos", "seconds", "peak, GB"), rows
    )


# --- targets ----------------------------------------------------------------------------------------------------------


def targets(result: Mapping[str, Any]) -> str:
    """Every target with the figure that was reached."""
    rows = [
        *_accuracy_targets(result.get("accuracy")),
        *_speed_targets(result.get("speed")),
        *_memory_targets(result.get("memory")),
    ]
    shown = [(name, figure, limit, "met" if met else "**missed**") for name, figure, limit, met in rows]
    return "## Targets\n\n" + table(("target", "reached", "limit", ""), shown)


Row = tuple[str, str, str, bool]


def _accuracy_targets(result: Mapping[str, Any] | None) -> Iterable[Row]:
    for row in result["rows"] if result else ():
        if row["candidate"] == "ours":
            where = f"{row['runtime']}, {row['threads']} threads"
            low = row["top1_loss_interval_points"][0]
            yield (
                f"agreement, {where}",
                f"{row['agreement']:.4f}",
                f">= {AGREEMENT_MIN}",
                row["agreement"] >= AGREEMENT_MIN,
            )
            yield (
                f"top-1 loss, {where}",
                f"{row['top1_loss_points']:.2f} (from {low:.2f})",
                f"from <= {LOSS_POINTS_MAX}",
                low <= LOSS_POINTS_MAX,
            )


def _speed_targets(result: Mapping[str, Any] | None) -> Iterable[Row]:
    for network, found in (result or {}).items():
        for row in found["rows"]:
            over = row.get("ours_over_it")
            if over and RIVALS[row["runtime"]] == row["candidate"]:
                name = f"{network}, {row['runtime']}, {row['threads']} threads: time / {row['candidate']}"
                yield name, f"<= {over['upper_95']:.3f}", f"<= {RATIO_MAX}", over["upper_95"] <= RATIO_MAX


def _memory_targets(result: Mapping[str, Any] | None) -> Iterable[Row]:
    by_runtime: dict[str, list[Mapping[str, Any]]] = {}
    for item in (result or {}).values():
        by_runtime.setdefault(item["runtime"], []).append(item)
    for runtime, items in by_runtime.items():
        few, usual, many = sorted(items, key=lambda item: item["photos"])
        growth = many["peak_bytes"] / few["peak_bytes"]
        for item in (usual,):
            seconds, peak = item["process_seconds"], item["peak_bytes"]
            yield (
                f"{item['photos']} photos, {runtime}",
                f"{seconds:.1f} s",
                f"<= {SECONDS_MAX:.0f} s",
                (seconds <= SECONDS_MAX),
            )
            yield (
                f"{item['photos']} photos, {runtime}",
                f"{peak / 1e9:.2f} GB",
                f"<= {PEAK_BYTES_MAX / 1e9} GB",
                peak <= PEAK_BYTES_MAX,
            )
        yield (
            f"memory of {many['photos']} photos / of {few['photos']}, {runtime}",
            f"{growth:.2f}",
            f"<= {GROWTH_MAX}",
            growth <= GROWTH_MAX,
        )
