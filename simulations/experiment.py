"""What the experiments share: command line, SST-2's files, a federation, results kept row by row."""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from fedft.config import RunConfig, load_config
from fedft.simulation.simulate import simulate
from fedft.store import RoundRecord, RunStore

SST2 = Path(__file__).parents[1] / "examples" / "sst2-minilm.toml"
COMMON: dict[str, object] = {
    "simulation.backend": "inline",
    "evaluation.every": 1000,  # the last round is always evaluated
    "evaluation.before": False,
}
Row = dict[str, Any]


class Rows:
    """The rows in ``path``; a row is named by what it was asked for ("arm", "seed" and so on)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all: list[Row] = json.loads(path.read_text()) if path.exists() else []

    def add(self, asked: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> None:
        """Measure and keep a row, with its CPU seconds, unless it is there; print it."""
        if self.select(**asked):
            return
        start = time.process_time()
        row = {**asked, **measure()}
        row["cpu_seconds"] = round(time.process_time() - start)
        self.all.append(row)
        self.path.write_text(json.dumps(self.all, indent=1) + "\n")
        print(json.dumps(row), flush=True)

    def select(self, **asked: Any) -> list[Row]:
        """Return the rows with these values."""
        return [row for row in self.all if all(row.get(key) == value for key, value in asked.items())]

    def write_table(self, lines: Iterable[str]) -> None:
        """Write the Markdown beside the rows."""
        self.path.with_suffix(".md").write_text("\n".join(lines) + "\n")


def command_line(doc: str | None, out: str) -> argparse.ArgumentParser:
    """Return the options that every experiment has."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=style)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--model", type=Path, required=True, help="folder of the MiniLM encoder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    parser.add_argument("--set", nargs="*", default=[], help="overrides, section.key=value")
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results / out, help="JSON of the rows")
    return parser


def sst2(arguments: argparse.Namespace, settings: Mapping[str, object]) -> RunConfig:
    """Return SST-2's configuration with these settings, then those of the command line."""
    files = {
        f"data.{part}": str((arguments.data / f"{name}.tsv").resolve())
        for part, name in {"train": "train", "public": "dev", "test": "test"}.items()
    }
    model = {"model.source": str(arguments.model.resolve())}
    return load_config(SST2, {**COMMON, **files, **model, **settings, **overrides(arguments)})


def demo(arguments: argparse.Namespace, settings: Mapping[str, object]) -> RunConfig:
    """Return the demo's configuration with these settings, then those of the command line."""
    return load_config("demo", {**COMMON, **settings, **overrides(arguments)})


def overrides(arguments: argparse.Namespace) -> dict[str, str]:
    """Return what ``--set`` says."""
    return dict(pair.split("=", 1) for pair in arguments.set)


def federate(config: RunConfig) -> list[RoundRecord]:
    """Carry a run out in a store of its own and return its rounds."""
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        return store.rounds(simulate(config, store=store).id)


def last_metrics(config: RunConfig) -> dict[str, float]:
    """Carry a run out and return what the server measured at its end."""
    return dict(federate(config)[-1].evaluations[0].metrics)


def command() -> str:
    """Return this process's command, for a table's first line; absolute paths are left out."""
    return shlex.join(["python", *("DIR" if Path(part).is_absolute() else part for part in sys.argv)])


def percent(values: Iterable[float]) -> str:
    """Show shares in per cent: their mean and, of several, their standard deviation."""
    shares = [100 * value for value in values]
    spread = f" ± {statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{statistics.mean(shares):.2f}{spread}"
