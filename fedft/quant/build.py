"""Compiling the kernels at first use, into a cache keyed by their sources, flags and architecture."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ABI = 1
"""The version of the C interface that this package calls."""

_HERE = Path(__file__).resolve().parent
_TIMEOUT = 600  # seconds for one compiler call


class BuildError(Exception):
    """Why a library could not be made; one line."""


def sources() -> Path:
    """Return the folder of the kernels' sources, of the checkout or of the installed package.

    Raises:
        BuildError: when neither is there.

    """
    for place in (_HERE.parents[1] / "kernels" / "csrc", _HERE / "_native" / "csrc"):
        if (place / "manifest.json").is_file():
            return place
    raise BuildError("the kernels' sources are not installed")


def build_id(kind: str) -> str:
    """Return 16 hexadecimal digits that name the sources and flags of ``"cpu"`` or ``"cuda"``."""
    folder = sources()
    digest = hashlib.sha256(b"manifest.json\0" + (folder / "manifest.json").read_bytes())
    for path in sorted((folder / kind).iterdir()):
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cached_cpu() -> Path:
    """Return the CPU library from the cache; compile it first if it is not there.

    Raises:
        BuildError: no compiler, a compiler error, or no safe place for the cache.

    """
    name = f"cpu-{build_id('cpu')}-{platform.machine()}"
    return _cached(name, "libfedft_cpu.so", compile_cpu)


def cached_cuda(archs: Sequence[str]) -> Path:
    """Return the CUDA library for compute capabilities such as ``"90"``, and for newer ones, likewise."""
    name = f"cuda-{build_id('cuda')}-sm{'-'.join(archs)}"
    return _cached(name, "libfedft_cuda.so", lambda out: compile_cuda(out, archs))


def compile_cpu(out: Path) -> None:
    """Compile the CPU library to ``out``, with OpenMP where the compiler has it."""
    compiler = _find("c++", os.environ.get("CXX"), "c++", "g++", "clang++")
    plan = _manifest()["cpu"]
    files: dict[str, list[str]] = plan["sources"] | plan.get(_architecture(), {})
    define = f'-DFEDFT_BUILD_ID="{build_id("cpu")}"'
    with tempfile.TemporaryDirectory() as folder:
        openmp = ["-fopenmp"] if _has_openmp(compiler, Path(folder)) else []
        objects = []
        for number, (name, flags) in enumerate(files.items()):
            target = f"{folder}/{number}.o"
            _call(
                [compiler, *plan["flags"], *openmp, define, *flags, "-c", str(sources() / name), "-o", target]
            )
            objects.append(target)
        _call([compiler, "-shared", *openmp, *objects, "-o", str(out)])


def compile_cuda(out: Path, archs: Sequence[str]) -> None:
    """Compile the CUDA library to ``out``: machine code for each architecture, PTX of the last for newer."""
    nvcc = _find("nvcc", os.environ.get("NVCC"), "nvcc", "/usr/local/cuda/bin/nvcc")
    plan = _manifest()["cuda"]
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    targets.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    define = f'-DFEDFT_BUILD_ID="{build_id("cuda")}"'
    files = [str(sources() / name) for name in plan["sources"]]
    _call([nvcc, *plan["flags"], *targets, define, "-shared", *files, "-o", str(out)])


def cache_folder() -> Path:
    """Return the folder that compiled kernels are kept in: ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fedft" / "kernels"


def _cached(name: str, file: str, make: Callable[[Path], None]) -> Path:
    try:
        folder = cache_folder() / name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.geteuid() or folder.stat().st_mode & 0o022:
            raise BuildError(f"{folder} can be written by others")
        library = folder / file
        if not library.exists():
            with _lock(folder / "lock"):
                if not library.exists():
                    partial = folder / f"{file}.{os.getpid()}"
                    make(partial)
                    os.replace(partial, library)
        return library
    except OSError as error:
        raise BuildError(f"no place for compiled kernels: {error}") from error


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process build while the others wait; the kernel drops the lock of a process that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _manifest() -> dict[str, Any]:
    return json.loads((sources() / "manifest.json").read_text())  # type: ignore[no-any-return]


def _architecture() -> str:
    return {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine())


def _find(what: str, *names: str | None) -> str:
    for name in names:
        found = shutil.which(name) if name else None
        if found:
            return found
    raise BuildError(f"no compiler: {what} is not on the path")


def _has_openmp(compiler: str, folder: Path) -> bool:
    probe = folder / "probe.cpp"
    probe.write_text("int f(int n) { int s = 0;\n#pragma omp parallel for reduction(+ : s)\n"
                     "for (int i = 0; i < n; ++i) s += i; return s; }\n")  # fmt: skip
    try:
        _call([compiler, "-fopenmp", "-fPIC", "-shared", str(probe), "-o", str(folder / "probe.so")])
    except BuildError:
        return False
    return True


def _call(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} could not run: {error}") from error
    if result.returncode:
        first = next(
            (line for line in result.stderr.splitlines() if "error" in line.lower()), result.stderr[:200]
        )
        raise BuildError(f"{command[0]} failed: {first.strip()}")


if __name__ == "__main__":
    # For the CMake project: python -I fedft/quant/build.py cpu
    print(build_id(sys.argv[1]))
