"""Reads Prometheus' text exposition format 0.0.4, strictly: whatever the format forbids is an assertion."""

import math
import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_HELP = re.compile(rf"# HELP ({_NAME}) ((?:[^\\\n]|\\\\|\\n)+)")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|histogram|summary|untyped)")
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")


@dataclass
class Family:
    kind: str
    help: str
    samples: dict = field(default_factory=dict)  # (name, labels as sorted pairs) -> value


def parse(text: str) -> dict[str, Family]:
    """The metric families by name."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    name = None
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if help_line := _HELP.fullmatch(line):
            name = help_line[1]
            assert name not in families, f"{name} comes in two places"
            type_line = _TYPE.fullmatch(lines[number + 1])
            assert type_line and type_line[1] == name, f"no type behind the help of {name}"
            families[name] = Family(type_line[2], help_line[2])
        elif not _TYPE.fullmatch(line):
            sample = _SAMPLE.fullmatch(line)
            assert sample, f"line {number + 1} is no sample: {line!r}"
            assert name is not None, "a sample before any help"
            series, value = (sample[1], _labels(sample[2])), _number(sample[3])
            family = families[name]
            suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
            assert sample[1] in [name + suffix for suffix in suffixes], f"{sample[1]} among those of {name}"
            assert series not in family.samples, f"twice: {series}"
            family.samples[series] = value
    for name, family in families.items():
        assert family.samples, f"{name} has no samples"
        if family.kind == "histogram":
            _check_histogram(name, family)
        if family.kind == "counter":
            assert all(0 <= value < math.inf for value in family.samples.values()), name
    return families


def _labels(text: str | None) -> tuple:
    pairs = [pair.split("=", 1) for pair in re.findall(_LABEL, text or "")]
    assert len({label for label, _ in pairs}) == len(pairs), f"a label twice: {text}"
    return tuple(sorted((label, value[1:-1]) for label, value in pairs))


def _number(text: str) -> float:
    assert re.fullmatch(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|Inf)|NaN", text), f"no number: {text}"
    return float(text)


def _check_histogram(name: str, family: Family) -> None:
    """Buckets rise to +Inf, which equals the count; there are a sum and a count for each set of labels."""
    buckets: dict[tuple, list] = {}
    for (series, labels), value in family.samples.items():
        if series == name + "_bucket":
            bound = dict(labels)["le"]
            others = tuple(pair for pair in labels if pair[0] != "le")
            buckets.setdefault(others, []).append((_number(bound), value))
    assert buckets, name
    for labels, pairs in buckets.items():
        bounds, values = zip(*pairs)
        assert list(bounds) == sorted(set(bounds)) and bounds[-1] == math.inf, name
        assert list(values) == sorted(values), name
        assert family.samples[(name + "_count", labels)] == values[-1], name
        assert family.samples[(name + "_sum", labels)] >= 0, name
