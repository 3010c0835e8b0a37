"""All checks of the CUDA kernels, on a machine with a GPU.

    python kernels/check_gpu.py                  # everything; adds a section to kernels/RESULTS.md
    python kernels/check_gpu.py --correctness    # correctness only, nothing is written

Compiles the library for this GPU, compares every kernel with float64 or with the reference's bits, runs the
same under compute-sanitizer where that is installed, and measures kernels, layers and training steps.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from checks import correctness, speed, streams, training

from fedft.errors import FedftError
from fedft.quant import select
from fedft.quant.cuda_library import CudaLibrary

HERE = Path(__file__).resolve().parent


def library() -> CudaLibrary:
    """The library compiled for this GPU, or the end of the program with the reason."""
    if not torch.cuda.is_available():
        sys.exit("check_gpu: torch finds no CUDA device; run this on a machine with a GPU")
    try:
        kernels = select.cuda()
    except FedftError as error:
        sys.exit(f"check_gpu: {error}")
    if kernels is None:
        sys.exit(f"check_gpu: no CUDA kernels: {'; '.join(select.cuda_choice().reasons)}")
    return kernels


def check(kernels: CudaLibrary, seeds: range) -> list[str]:
    """Lines of the report; the program ends when a check fails."""
    device = torch.device("cuda")
    lines = []
    for seed in seeds:
        count, *failed = correctness.run(kernels, device, seed)
        lines.append(f"correctness, seed {seed}: {count}, {len(failed)} failed")
        if failed:
            sys.exit("\n".join(["check_gpu: FAILED", *failed]))
    count, *failed = streams.run(device)
    lines.append(f"layer, streams, graph: {count}, {len(failed)} failed")
    if failed:
        sys.exit("\n".join(["check_gpu: FAILED", *failed]))
    return lines


def sanitize() -> list[str]:
    """The correctness checks again, under each tool of compute-sanitizer."""
    tool = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if tool is None:
        return ["compute-sanitizer: not installed"]
    lines = []
    for kind in ("memcheck", "racecheck"):
        options = [
            "--tool",
            kind,
            "--error-exitcode",
            "9",
            "--kernel-name-exclude",
            "regex:at::native|cutlass|sm90",
        ]
        command = [tool, *options, sys.executable, __file__, "--correctness"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        summary = next((x for x in result.stdout.splitlines() if "SUMMARY" in x), result.stderr[-200:])
        lines.append(f"compute-sanitizer {kind}: exit {result.returncode}, {summary.strip('= ')}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--correctness", action="store_true", help="correctness only")
    parser.add_argument("--layers", type=int, default=32, help="layers of the model whose step is timed")
    arguments = parser.parse_args()
    kernels = library()
    if arguments.correctness:
        print("\n".join(check(kernels, range(1))))
        return
    device = torch.device("cuda")
    lines = check(kernels, range(3)) + sanitize()
    copy = speed.copy_bandwidth(device)
    rows: list[speed.Row] = [("copy of 1 GiB", f"{copy / 1e12:.2f} TB/s", "")]
    rows += speed.dequantisation(device, copy)
    rows += speed.adapter(kernels, device, copy)
    rows += speed.layers(device)
    rows += training.steps(kernels, device, arguments.layers)
    report(lines, rows)


def report(lines: list[str], rows: list[speed.Row]) -> None:
    """Print the section and add it to RESULTS.md."""
    facts = torch.cuda.get_device_properties(0)
    title = f"{facts.name} (sm_{facts.major}{facts.minor}), {datetime.date.today().isoformat()}"
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"
    table = ["| what | measured | goal |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    section = ["", f"## {title}", "", f"{versions}.", "", *(f"- {line}" for line in lines), "", *table, ""]
    with (HERE / "RESULTS.md").open("a") as file:
        file.write("\n".join(section))
    print("\n".join(section))


if __name__ == "__main__":
    main()
