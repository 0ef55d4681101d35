"""The page of a latency calibration: of its table's file, or of its measurements while it goes on."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zeroshot_nas.core.text import read_json
from zeroshot_nas.latency.calibrate import PASSES, lock_of, measured_log
from zeroshot_nas.latency.device_table import DeviceTable
from zeroshot_nas.reporting.base import Bar, Cell, Chart, Facts, Page, Part, Section, State, Table, Tile, register_page
from zeroshot_nas.reporting.charts import ZOOM, Row, Spec, chart, number, thinned, tooltip
from zeroshot_nas.reporting.provenance import made_with
from zeroshot_nas.reporting.words import count, counted, duration, settings_rows
from zeroshot_nas.runs.store import is_held

_FORMAT = "zeroshot_nas.device_table"
_MADE_WITH = ("command", "versions", "machine", "commit")
_MOST_KERNELS = 1_500
_LEAST_MS = 1e-4


def _holds(path: Path) -> bool:
    """Whether a file is a device table, or one that is being measured."""
    if _log_of(path) is not None:
        return True
    try:
        return path.is_file() and read_json(path.read_bytes()).get("format") == _FORMAT
    except (ValueError, AttributeError, OSError):
        return False


def _log_of(path: Path) -> Path | None:
    """The log of measurements that a path is or has beside it."""
    if not path.name:  # the working folder
        return None
    log = path if path.name.endswith(measured_log(Path("x")).suffix) else measured_log(path)
    return log if log.is_file() else None


@register_page("calibration", holds=_holds)
def calibration_page(file: Path) -> Page:
    """A calibration's page.

    Raises:
        FileFormatError: The file is damaged.
    """
    log = _log_of(file)
    return _finished(file, DeviceTable.load(file)) if log is None else _unfinished(log)


def _finished(file: Path, table: DeviceTable) -> Page:
    at, details = table.fingerprint, table.details
    pairs = [(float(measured), float(predicted)) for measured, predicted in details.get("left_out_ms", ())]
    kernels = _kernels(table)
    size = "×".join(map(str, table.input_size))
    tiles = [
        Tile("median error", f"{details['median_error']:.1%}", "on networks left out of the fit")
        if "median_error" in details
        else Tile("median error", "–"),
        Tile("networks", count(details.get("networks", 0)), f"measured {PASSES} times each"),
        Tile("kernels", count(len(table.kernels)), f"of {len(table.models)} kinds"),
        Tile("slowest network", f"{table.largest_ms:.3g} ms", "beyond it predictions are extrapolated"),
        *(
            [Tile("spread", f"{details['median_spread']:.1%}", "of a network's runs")]
            if "median_spread" in details
            else []
        ),
        *([Tile("time", duration(details["seconds"]))] if "seconds" in details else []),
    ]
    threads = counted(at.threads, "thread")
    device = [
        ("device", at.device),
        ("cores", "not known" if at.cores is None else str(at.cores)),
        ("system", at.system),
        ("engine", f"{at.backend} {at.backend_version}"),
        ("run", f"batch {at.batch_size}, {threads}, {at.dtype}"),
        ("space", f"{table.space}, images {size}"),
    ]
    overhead = table.overhead
    model = [
        ("factor on a kernel's time", f"{overhead.factor:.4g}"),
        ("overhead a kernel", f"{overhead.per_kernel_ms:.3g} ms"),
        ("overhead a network", f"{overhead.per_network_ms:.3g} ms"),
    ]
    own = {name: value for name, value in details.items() if name not in (*_MADE_WITH, "fingerprint", "left_out_ms")}
    return Page(
        title=f"Latency of {table.space} on {at.device}",
        kind="calibration",
        state="done",
        tiles=tiles,
        sections=[
            Section(
                "Fit",
                [
                    *_networks(pairs),
                    *_scatter(kernels),
                    Facts(device, "Device"),
                    Facts(model, "From kernels to a network"),
                ],
            ),
            Section("Kernels", _kinds(kernels)),
            Section("Settings", [Facts(settings_rows(own), "Settings"), Facts(made_with(details), "Made with")]),
        ],
        subtitle=f"{at.backend} {at.backend_version} · {size} · batch {at.batch_size} · {threads}",
        foot=[f"File: {file}"],
    )


def _networks(pairs: Sequence[tuple[float, float]]) -> list[Part]:
    """Networks that were left out of the fit, by what was measured and predicted."""
    if not pairs:
        return []
    rows = [{"x": measured, "y": predicted, "error": predicted / measured - 1} for measured, predicted in pairs]
    tip = tooltip(("x", "measured (ms)", ".4g"), ("y", "predicted (ms)", ".4g"), ("error", "error", "+.1%"))
    spec = _against(rows, tip, "measured (ms)", "predicted (ms)", {"value": "var(--accent)"}, 60)
    error = statistics.median(abs(row["error"]) for row in rows)
    alt = f"{len(rows)} networks that the fit did not see, predicted against measured; median error {error:.1%}."
    return [
        Chart("Networks left out of the fit", spec, alt, "On the dashed line prediction and measurement are equal.")
    ]


def _kernels(table: DeviceTable) -> list[dict[str, Any]]:
    """Every measured kernel with what the regressor says of it; those that take no time of their own are left out."""
    rows = []
    for kernel, observed in table.kernels.items():
        predicted = table.regressed_ms(kernel)
        if predicted is not None and observed.latency_ms > _LEAST_MS:
            side = f"{kernel.kernel_size}×{kernel.kernel_size}" if kernel.kernel_size > 1 else ""
            stride = f" /{kernel.stride}" if kernel.stride > 1 else ""
            text = f"{side} {kernel.in_channels}→{kernel.out_channels} at {kernel.height}×{kernel.width}{stride}"
            error = predicted / observed.latency_ms - 1
            rows.append(
                {
                    "x": observed.latency_ms,
                    "y": predicted,
                    "kind": kernel.kind,
                    "kernel": text.strip(),
                    "error": error,
                    "seen": observed.observations,
                }
            )
    return rows


def _scatter(kernels: Sequence[Row]) -> list[Part]:
    if not kernels:
        return []
    kinds = sorted({row["kind"] for row in kernels})
    color = {
        "field": "kind",
        "type": "nominal",
        "title": None,
        "scale": {"domain": kinds, "range": [f"var(--k{index % 8})" for index in range(len(kinds))]},
    }
    tip = tooltip(
        ("kind", "kind"),
        ("kernel", "kernel"),
        ("x", "measured (ms)", ".4g"),
        ("y", "predicted (ms)", ".4g"),
        ("error", "error", "+.1%"),
        ("seen", "times met", "d"),
    )
    spec = _against(thinned(kernels, _MOST_KERNELS), tip, "measured (ms)", "regressor (ms)", color, 22)
    alt = f"{len(kernels):,} kernels, what the regressor says against what was measured, by kind: {', '.join(kinds)}."
    return [
        Chart(
            "Kernels",
            spec,
            alt,
            "A search takes a mean of the two, the more of the measurement the oftener a kernel was met.",
        )
    ]


def _against(rows: Sequence[Row], tip: list[Spec], x_title: str, y_title: str, color: Spec, size: int) -> Spec:
    """A scatter on logarithmic axes with the line on which both are equal."""
    values = [row[axis] for row in rows for axis in ("x", "y")]
    line = [{"x": value, "y": value} for value in (min(values), max(values))]
    log = {"type": "log", "domain": [min(values) / 1.25, max(values) * 1.25], "padding": 0}
    axis = {"tickCount": 5, "format": "~g", "labelOverlap": True}
    x, y = number("x", x_title, scale=log, axis=axis), number("y", y_title, scale=log, axis=axis)
    layers: list[Spec] = [
        {
            "data": {"values": line},
            "mark": {"type": "line", "color": "var(--muted)", "strokeDash": [5, 4]},
            "encoding": {"x": x, "y": y},
        },
        {
            "mark": {"type": "point", "filled": True, "size": size, "opacity": 0.75},
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tip},
            "params": [ZOOM],
        },
    ]
    return chart(rows, layers, height=380)


def _kinds(kernels: Sequence[Row]) -> list[Part]:
    by_kind: defaultdict[str, list[Row]] = defaultdict(list)
    for row in kernels:
        by_kind[row["kind"]].append(row)
    rows: list[list[Cell]] = []
    most = max((sum(row["x"] for row in members) for members in by_kind.values()), default=1.0)
    for kind, members in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        times = [row["x"] for row in members]
        error = statistics.median(abs(row["error"]) for row in members)
        bar = Bar(sum(times) / most, f"{sum(times):.3g} ms")
        rows.append([kind, count(len(members)), f"{min(times):.3g} to {max(times):.3g} ms", f"{error:.1%}", bar])
    head = ["kind", "different kernels", "measured", "median error of the regressor", "all together"]
    slowest = sorted(kernels, key=lambda row: -row["x"])[:20]
    cells = [
        [row["kind"], row["kernel"], f"{row['x']:.4g}", f"{row['y']:.4g}", f"{row['error']:+.1%}", count(row["seen"])]
        for row in slowest
    ]
    return [
        Table(head, rows, "Kinds of kernels"),
        Table(
            ["kind", "kernel", "measured (ms)", "regressor (ms)", "error", "times met"], cells, "The slowest kernels"
        ),
    ]


def _unfinished(log: Path) -> Page:
    """What was measured so far; the last line may be half written."""
    settings, entries = _read(log)
    table = log.with_name(log.name.removesuffix(log.suffix))
    at: Mapping[str, Any] = settings.get("fingerprint", {})
    wanted = PASSES * int(settings.get("networks", 0))
    rows = [
        {"x": place, "y": entry["latency_ms"], "spread": entry["spread"], "pass": f"pass {entry['pass'] + 1}"}
        for place, entry in enumerate(entries, start=1)
    ]
    parts: list[Part] = []
    if rows:
        tip = tooltip(
            ("pass", "pass"), ("x", "measurement", "d"), ("y", "latency (ms)", ".4g"), ("spread", "spread", ".1%")
        )
        color = {
            "field": "pass",
            "type": "nominal",
            "title": None,
            "scale": {"domain": sorted({row["pass"] for row in rows}), "range": ["var(--k0)", "var(--k1)"]},
        }
        x, y = number("x", "measurement", axis={"format": "d", "tickMinStep": 1}), number("y", "latency (ms)")
        layer: Spec = {
            "mark": {"type": "point", "filled": True, "size": 40},
            "encoding": {"x": x, "y": y, "color": color, "tooltip": tip},
            "params": [ZOOM],
        }
        parts.append(
            Chart(
                "Networks measured so far", chart(rows, [layer]), f"Latencies of {len(rows)} measurements.", wide=True
            )
        )
    state: State = "running" if is_held(lock_of(table)) else "stopped"
    spent = sum(entry["seconds"] for entry in entries)
    left = spent / len(entries) * (wanted - len(entries)) if entries else 0.0
    remark = (
        ""
        if state == "running"
        else ("It ended before its end: killed, or stopped by Ctrl-C. The same command goes on where this one stopped.")
    )
    own = {name: value for name, value in settings.items() if name != "fingerprint"}
    return Page(
        title=f"Latency of {settings.get('space', '?')} on {at.get('device', '?')}",
        kind="calibration",
        state=state,
        tiles=[
            Tile("measurements", f"{len(entries):,}", f"of {wanted:,}", len(entries) / max(1, wanted)),
            Tile("time", duration(spent), f"about {duration(left)} left" if left else ""),
        ],
        sections=[
            Section("Measurements", parts),
            Section("Settings", [Facts(settings_rows(own), "Settings"), Facts(settings_rows(at), "Device")]),
        ],
        subtitle=f"{at.get('backend', '?')} {at.get('backend_version', '')}",
        remark=remark,
        progress=len(entries) / max(1, wanted),
        foot=[f"File: {log}"],
    )


def _read(log: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    for line in log.read_bytes().splitlines():
        try:
            entry = read_json(line)
        except ValueError:
            break
        if not isinstance(entry, dict) or (found and not {"pass", "latency_ms", "spread", "seconds"} <= set(entry)):
            break
        found.append(entry)
    return (found[0], found[1:]) if found else ({}, [])
