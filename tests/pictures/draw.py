#!/usr/bin/env python3
"""Draws each dashboard of deploy/grafana from what a real Prometheus answers, as SVG: what an operator would see, without a Grafana.

usage: draw.py --prometheus URL --out FOLDER [--seconds N] [--rate SPAN]

It stands in for Grafana as far as these dashboards need it: rows, stats, time series, heatmaps, texts; their grid, units,
thresholds and legends. Exit code 1: a query failed.
"""

import argparse
import html
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

BOARDS = Path(__file__).resolve().parents[2] / "deploy/grafana/dashboards"
COLUMN, ROW, GAP = 60, 30, 8
COLOURS = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"]
THRESHOLDS = {"red": "#f2495c", "green": "#73bf69", "yellow": "#f2cc0c", "orange": "#ff780a"}


def said(value, unit):
    """A number as Grafana writes it in `unit`."""
    if value is None or math.isnan(value):
        return "no data"
    if math.isinf(value):
        return "∞"
    if unit == "percentunit":
        return f"{100 * value:.4g} %"
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{1000 * value:.3g} ms" if abs(value) < 1 and value else f"{value:.3g} s"
    if unit == "bytes":
        for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
    for size, name in ((1e6, " M"), (1e3, " K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}" + {"ops": " ops/s", "reqps": " req/s"}.get(unit, "")


class Prometheus:
    """What is asked, over the last seconds."""

    def __init__(self, url, seconds, rate):
        self.url, self.rate = url, rate
        self.end = time.time()
        self.start = self.end - seconds
        self.failed = []

    def series(self, query):
        """(labels, [(time, value)]) of each series."""
        asked = {"query": query.replace("$__rate_interval", self.rate), "start": self.start, "end": self.end, "step": 1}
        url = f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.URLError as error:
            self.failed.append(f"{query}: {error}")
            return []
        return [(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in result]


def legend(text, labels):
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), text or "") or "value"


class Picture:
    """One dashboard."""

    def __init__(self, board, prometheus):
        self.prometheus, self.parts, self.empty = prometheus, [], []
        self.height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) * ROW + 50
        self.width = 24 * COLUMN
        self.text(12, 30, board["title"], 20, "#ffffff", "bold")
        for panel in board["panels"]:
            self.panel(panel)

    def text(self, x, y, text, size=12, colour="#ccccdc", weight="normal", anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
                          f'text-anchor="{anchor}">{html.escape(text)}</text>')

    def panel(self, panel):
        grid = panel["gridPos"]
        x, y = grid["x"] * COLUMN + GAP / 2, grid["y"] * ROW + 46
        width, height = grid["w"] * COLUMN - GAP, grid["h"] * ROW - GAP
        if panel["type"] == "row":
            self.text(x, y + 18, panel["title"], 14, "#ffffff", "bold")
            return
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="#181b1f" stroke="#2c3235"/>')
        self.text(x + 8, y + 18, panel["title"], 12, "#ffffff")
        if panel["type"] == "text":
            self.words(x + 8, y + 38, width - 16, panel["options"]["content"])
            return
        series = []
        for target in panel["targets"]:
            of = self.prometheus.series(target["expr"])
            series += [(legend(target.get("legendFormat"), labels), labels, points) for labels, points in of]
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        unit = defaults.get("unit", "short")
        box = (x + 66, y + 28, width - 76, height - 62)
        if not any(not math.isnan(value) for _, _, points in series for _, value in points):
            self.empty.append(panel["title"])
            self.text(x + width / 2, y + height / 2, "No data", 14, "#8e8e8e", anchor="middle")
        elif panel["type"] == "stat":
            self.stat(x, y, width, height, series, unit, defaults.get("thresholds", {}).get("steps", []))
        elif panel["type"] == "heatmap":
            self.heatmap(box, series)
        else:
            self.lines(box, series, unit)

    def words(self, x, y, width, content):
        line, at = "", y
        for word in content.replace("`", "").split():
            if len(line) + len(word) > width / 6.3:
                self.text(x, at, line, 11)
                line, at = "", at + 15
            line += word + " "
        self.text(x, at, line, 11)

    def stat(self, x, y, width, height, series, unit, steps):
        value = next(v for _, v in reversed(series[0][2]) if not math.isnan(v))
        colour = "#73bf69"
        for step in steps:
            if step["value"] is None or value >= step["value"]:
                colour = THRESHOLDS.get(step["color"], colour)
        self.text(x + width / 2, y + height / 2 + 18, said(value, unit), 34, colour, "bold", "middle")

    def axis(self, box, low, high, unit):
        x, y, width, height = box
        for part in range(5):
            at = y + height - height * part / 4
            self.parts.append(f'<line x1="{x}" x2="{x + width}" y1="{at:.1f}" y2="{at:.1f}" stroke="#2c3235"/>')
            self.text(x - 6, at + 4, said(low + (high - low) * part / 4, unit), 10, "#8e8e8e", anchor="end")
        for part in range(4):
            at = self.prometheus.start + (self.prometheus.end - self.prometheus.start) * part / 3
            self.text(x + width * part / 3, y + height + 14, time.strftime("%H:%M:%S", time.gmtime(at)), 10, "#8e8e8e",
                      anchor=("start", "middle", "middle", "end")[part])

    def lines(self, box, series, unit):
        x, y, width, height = box
        finite = [v for _, _, points in series for _, v in points if not math.isnan(v) and not math.isinf(v)]
        low, high = min(finite + [0]), max(finite + [0])
        high = high if high > low else low + 1
        self.axis(box, low, high, unit)
        span = self.prometheus.end - self.prometheus.start
        at, over = x - 54, 0
        for nth, (name, _, points) in enumerate(series):
            colour, run = COLOURS[nth % len(COLOURS)], []
            for when, value in points + [(0, math.nan)]:
                if math.isnan(value) or math.isinf(value):
                    if len(run) == 1:
                        run.append((run[0][0] + 1.5, run[0][1]))
                    if run:
                        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in run)
                        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
                    run = []
                    continue
                run.append((x + width * (when - self.prometheus.start) / span, y + height - height * (value - low) / (high - low)))
            last = next((v for _, v in reversed(points) if not math.isnan(v)), math.nan)
            label = f"{name}: {said(last, unit)}"
            if at + 6.0 * len(label) + 16 > x + width:
                over += 1
                continue
            self.parts.append(f'<rect x="{at}" y="{y + height + 20}" width="10" height="3" fill="{colour}"/>')
            self.text(at + 14, y + height + 26, label, 10)
            at += 6.0 * len(label) + 26
        if over:
            self.text(x + width, y + height + 26, f"+{over}", 10, anchor="end")

    def heatmap(self, box, series):
        x, y, width, height = box
        order = sorted(series, key=lambda one: float(one[1].get("le", "inf")))
        before, cells = {}, []
        for nth, (name, _, points) in enumerate(order):
            for when, value in points:
                cells.append((nth, when, max(0.0, value - before.get(when, 0.0))))
                before[when] = value
        top = max((count for _, _, count in cells), default=0) or 1
        span, tall = self.prometheus.end - self.prometheus.start, height / max(len(order), 1)
        for nth, when, count in cells:
            if count > 0:
                left = x + width * (when - self.prometheus.start) / span
                self.parts.append(f'<rect x="{left:.1f}" y="{y + height - tall * (nth + 1):.1f}" width="{width / span + 0.5:.1f}" '
                                  f'height="{tall:.1f}" fill="#ff780a" fill-opacity="{0.15 + 0.85 * count / top:.2f}"/>')
        for nth, (name, labels, _) in enumerate(order):
            if nth % max(1, len(order) // 6) == 0:
                self.text(x - 6, y + height - tall * nth, labels.get("le", name), 10, "#8e8e8e", anchor="end")

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
                f'font-family="DejaVu Sans, sans-serif"><rect width="100%" height="100%" fill="#111217"/>'
                + "\n".join(self.parts) + "</svg>\n")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--prometheus", required=True)
    arguments.add_argument("--out", required=True, type=Path)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--rate", default="15s")
    asked = arguments.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    prometheus = Prometheus(asked.prometheus, asked.seconds, asked.rate)
    for path in sorted(BOARDS.glob("*.json")):
        picture = Picture(json.loads(path.read_text()), prometheus)
        made = asked.out / f"{path.stem}.svg"
        made.write_text(picture.svg())
        print(f"{made}: without data: {', '.join(picture.empty) or 'none'}")
    for failed in prometheus.failed:
        print(failed, file=sys.stderr)
    return 1 if prometheus.failed else 0


if __name__ == "__main__":
    sys.exit(main())
