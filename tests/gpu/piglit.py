# SPDX-License-Identifier: MIT
"""Runs tests of piglit, many in one process where they can, and says how each of them ended."""
import os
import re
import subprocess
import time
from pathlib import Path

ROOT = next((p for p in Path("/usr/lib").glob("*/piglit") if (p / "bin/shader_runner").exists()), None)
STARTED = re.compile(r"PIGLIT TEST: (\d+) - ")
RESULT = re.compile(r'PIGLIT: \{"result": "([a-z]+)"')
SUBTEST = re.compile(r'PIGLIT: \{"subtest": \{.*: "([a-z]+)"\}\}')
BATCH_SECONDS = 60


def environment(extra):
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "GALLIUM_DRIVER", "WAYLAND_DISPLAY")}
    return {**env, "PIGLIT_PLATFORM": "surfaceless_egl", "LIBGL_ALWAYS_SOFTWARE": "1", "LC_ALL": "C",
            "MESA_SHADER_CACHE_DISABLE": "true", **extra}


def run_shaders(prefix, files, env):
    """How each of files (*.shader_test below ROOT) ended, as {file: (result, seconds)}, one behind the other in one
    process of shader_runner, and another one behind a test that ends it."""
    results, left = {}, list(files)
    while left:
        done = shader_runner(prefix, left, env)
        results.update(done)
        left = left[len(done):]
    return results


def shader_runner(prefix, files, env):
    """At least one result, in the order of files."""
    process = subprocess.Popen([*prefix, "stdbuf", "-oL", ROOT / "bin/shader_runner", *files, "-auto", "-fbo",
                                "-report-subtests"], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    results, current, start, last = {}, 0, time.monotonic(), None
    for line in process.stdout:
        line = line.decode(errors="replace")
        if m := STARTED.match(line):
            current, start = int(m.group(1)) - 1, time.monotonic()
        elif m := SUBTEST.match(line):
            results[files[current]] = (m.group(1), time.monotonic() - start)
        elif m := RESULT.match(line):
            last = m.group(1)
    status = process.wait()
    # A test that fails early, or needs what there is not, ends the process with its own result.
    if files[current] not in results:
        results[files[current]] = (last if last and status in (0, 1) else f"crash {status}", time.monotonic() - start)
    return {f: results.get(f, ("nothing", 0)) for f in files[:current + 1]}


def run_program(prefix, command, env):
    """How one program of piglit ended."""
    name, *arguments = command.split()
    start = time.monotonic()
    try:
        out = subprocess.run([*prefix, ROOT / "bin" / name, *arguments, "-auto", "-fbo"], cwd=ROOT, env=env,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             timeout=BATCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "timeout", BATCH_SECONDS
    m = None
    for m in RESULT.finditer(out.stdout.decode(errors="replace")):
        pass
    return (m.group(1) if m else f"crash {out.returncode}"), time.monotonic() - start


def run_list(prefix, names, extra):
    """{name: (result, seconds)} of names: files *.shader_test, and programs with their arguments."""
    env = environment(extra)
    results = run_shaders(prefix, [n for n in names if n.endswith(".shader_test")], env)
    for name in names:
        if not name.endswith(".shader_test"):
            results[name] = run_program(prefix, name, env)
    return results
