# SPDX-License-Identifier: MIT
"""What `promtool check metrics` refuses in Prometheus' text exposition format 0.0.4, for hosts without it."""
import re
import shutil
import subprocess

SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def labels(text):
    found, at = {}, 0
    while at < len(text or ""):
        m = LABEL.match(text, at)
        assert m, f"no label: {text[at:]!r}"
        assert m[1] not in found, f"label {m[1]} twice"
        found[m[1]] = m[2]
        at = m.end()
    return found


def family(name, types):
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and types.get(base) == "histogram":
            return base
    return name


def check_name(name, kind):
    assert (kind == "counter") == name.endswith("_total"), f"{kind} {name}"
    assert not re.search(r"_(milliseconds|usec|kilobytes|ms|kb)(_|$)", name), f"{name}: no base unit"
    assert not name.endswith(("_bucket", "_sum", "_count")), name


def check_histogram(name, samples):
    """Buckets of each set of labels grow with le, end with +Inf, and the count is that of the last."""
    series = {}
    for (n, key), value in samples.items():
        if n == name + "_bucket":
            le = dict(key)["le"]
            series.setdefault(tuple(k for k in key if k[0] != "le"), []).append((float(le), value))
    assert series, name
    for key, buckets in series.items():
        assert [b for b, _ in buckets] == sorted(b for b, _ in buckets), (name, buckets)
        assert [v for _, v in buckets] == sorted(v for _, v in buckets), (name, buckets)
        assert buckets[-1][0] == float("inf"), (name, key)
        assert samples[name + "_count", key] == buckets[-1][1], (name, key)
        assert (name + "_sum", key) in samples, (name, key)


def lint(text):
    """{(name, labels): value}; AssertionError where something is wrong."""
    types, helps, samples, done, last = {}, set(), {}, set(), None
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, words = line[7:].split(" ", 1)
            assert name not in helps and words.strip(), line
            helps.add(name)
            continue
        if line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name not in types and name in helps, line
            assert kind in ("counter", "gauge", "histogram"), line
            check_name(name, kind)
            types[name] = kind
            continue
        m = SAMPLE.match(line)
        assert m, f"no sample: {line!r}"
        base = family(m[1], types)
        assert base in types, f"no type: {line}"
        if base != last:
            assert base not in done, f"{base} stands in two places"
            done.add(base)
            last = base
        key = m[1], tuple(sorted(labels(m[2]).items()))
        assert key not in samples, f"twice: {line}"
        samples[key] = float(m[3])
        assert samples[key] >= 0, line
    for name, kind in types.items():
        if kind == "histogram":
            check_histogram(name, samples)
    promtool = shutil.which("promtool")
    if promtool:
        subprocess.run([promtool, "check", "metrics"], input=text, text=True, check=True)
    return samples
