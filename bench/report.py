"""Report: what scripts/bench measured as one HTML page that needs nothing else: tables, and plots as SVG.

A point is the median of its repetitions, the bar through it goes from the lowest to the highest.
"""

import html
import math
import statistics
from dataclasses import dataclass, field

COLORS = ("#1f6feb", "#d1242f", "#2da44e", "#8250df", "#bf8700", "#57606a")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 380, 80, 50, 20, 190
STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #1f2328; }
table { border-collapse: collapse; margin: 1em 0; } td, th { border: 1px solid #d0d7de; padding: .3em .7em; text-align: left; }
.not { color: #d1242f; font-weight: 600; } svg text { font: 12px system-ui, sans-serif; fill: #1f2328; } code { font-size: 90%; }"""

Table = tuple[list[str], list[list[str]]]  # header and rows


@dataclass
class Chart:
    """`lines`: by name, points of an x and its values in all repetitions. `x_names`: of x = 1, 2, 3, ..."""

    lines: dict[str, list[tuple[float, list[float]]]]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    x_names: list[str] = field(default_factory=list)


@dataclass
class Section:
    heading: str
    text: str
    chart: Chart | None = None
    table: Table | None = None


def short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


class Axis:
    def __init__(self, values: list[float], log: bool, start: float, end: float):
        self.log = log
        low, high = min(values), max(values)
        if log:
            self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
            self.high = max(self.high, self.low + 1)
            self.ticks = [10.0 ** power for power in range(self.low, self.high + 1)]
        else:
            step = 10 ** math.floor(math.log10(high or 1))
            step = next(step / part for part in (1, 2, 5, 10) if (high or 1) / (step / part) >= 4)
            self.low, self.high = 0.0, math.ceil((high or 1) / step) * step
            self.ticks = [step * i for i in range(round(self.high / step) + 1)]
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def svg_of(chart: Chart) -> str:
    points = [(x, values) for line in chart.lines.values() for x, values in line]
    x_axis = Axis([x for x, _ in points], chart.log_x, LEFT, WIDTH - RIGHT)
    y_axis = Axis([value for _, values in points for value in values], chart.log_y, HEIGHT - BOTTOM, TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(chart.y_label)}">']
    for tick in y_axis.ticks:
        y = y_axis.at(tick)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eaeef2"/>'
                     f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    x_ticks = [(i + 1, name) for i, name in enumerate(chart.x_names)] or [(x, short(x)) for x in sorted({x for x, _ in points})]
    for x, name in x_ticks:
        parts.append(f'<text x="{x_axis.at(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{html.escape(name)}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{html.escape(chart.x_label)}</text>'
                 f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
                 f'{html.escape(chart.y_label)}</text>')
    for number, (name, line) in enumerate(chart.lines.items()):
        color = COLORS[number % len(COLORS)]
        place = [(x_axis.at(x), y_axis.at(statistics.median(values)), y_axis.at(min(values)), y_axis.at(max(values)))
                 for x, values in line]
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="'
                     + " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in place) + '"/>')
        for (x, y, low, high), (_, values) in zip(place, line):
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{color}"/>'
                         f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"><title>{statistics.median(values):.4g} '
                         f'({min(values):.4g}..{max(values):.4g})</title></circle>')
        y = TOP + 10 + 20 * number
        parts.append(f'<rect x="{WIDTH - RIGHT + 20}" y="{y - 9}" width="12" height="12" fill="{color}"/>'
                     f'<text x="{WIDTH - RIGHT + 38}" y="{y + 2}">{html.escape(name)}</text>')
    return "".join(parts) + "</svg>"


def table_of(header: list[str], rows: list[list[str]]) -> str:
    def cells(tag: str, texts: list[str]) -> str:
        return "<tr>" + "".join(
            f'<{tag}{" class=not" if "not met" in text else ""}>{html.escape(text.replace("**", "").replace("`", ""))}</{tag}>'
            for text in texts) + "</tr>"

    return "<table>" + cells("th", header) + "".join(cells("td", row) for row in rows) + "</table>"


def page(title: str, about: str, sections: list[Section]) -> str:
    body = [f"<h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>"]
    for section in sections:
        body.append(f"<h2>{html.escape(section.heading)}</h2><p>{html.escape(section.text)}</p>")
        if section.chart is not None:
            body.append(svg_of(section.chart))
        if section.table is not None:
            body.append(table_of(*section.table))
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
            f'</head><body>{"".join(body)}</body></html>\n')
