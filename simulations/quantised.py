"""The same federations on a base in NF4 and on the unquantised one: the demo, and SST-2 on MiniLM.

    python simulations/quantised.py --data DIR --model DIR [--seeds 17 18 19] [--tasks ...] [--out FILE]

DIR of --data holds train.tsv, dev.tsv and test.tsv of SST-2, "sentence<TAB>label" without a header; DIR of
--model the MiniLM-L6 encoder. Both arms of a pair have the same seed, so the same partition, batches and
codec; frames are built on each arm's own base. Results are added to the output file run by run, so a stopped
script goes on. The unquantised SST-2 runs are those of `simulations/sst2.py`, arm "federated, IID, dense".
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from fedft.config import RunConfig, load_config
from fedft.server.simulate import simulate
from fedft.store import RunStore

SST2 = Path(__file__).parents[1] / "examples" / "sst2-minilm.toml"
METRIC = {"demo": "exact_match", "sst2": "accuracy"}
QUANTS = ("none", "nf4")


def main() -> None:
    arguments = _arguments()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    done = {(row["task"], row["seed"], row["quant"]) for row in results}
    for seed in arguments.seeds:
        for task in arguments.tasks:
            for quant in QUANTS:
                if (task, seed, quant) in done:
                    continue
                row = {"task": task, "seed": seed, "quant": quant}
                row |= _run(_config(arguments, task, seed, quant))
                results.append(row)
                print(json.dumps(row), flush=True)
                arguments.out.write_text(json.dumps(results, indent=1) + "\n")
                arguments.out.with_suffix(".md").write_text(_table(results))


def _run(config: RunConfig) -> dict[str, float]:
    """Quality on the test records after the last round."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(folder)
        rounds = store.rounds(simulate(config, store=store).id)
    metrics = rounds[-1].evaluations[0].metrics
    return {
        "quality": metrics[METRIC["sst2" if config.task.labels else "demo"]],
        "loss": metrics["loss"],
        "cpu_seconds": round(time.process_time() - start),
    }


def _config(arguments: argparse.Namespace, task: str, seed: int, quant: str) -> RunConfig:
    settings = {
        "seed": seed,
        "model.quant": quant,
        "simulation.backend": "inline",
        "evaluation.every": 1000,  # the last round is always evaluated
        "evaluation.before": False,
    }
    if task == "demo":
        return load_config("demo", settings)
    data = arguments.data.resolve()
    files = {f"data.{split}": str(data / f"{name}.tsv") for split, name in _SPLITS.items()}
    source = {"model.source": str(arguments.model.resolve()), "codec.name": "dense"}
    return load_config(SST2, settings | files | source)


_SPLITS = {"train": "train", "public": "dev", "test": "test"}


def _table(results: list[dict[str, object]]) -> str:
    lines = [
        "# Quantised bases",
        "",
        "Written by `simulations/quantised.py`: exact match (demo) and accuracy (SST-2 on MiniLM-L6, updates",
        "uncoded) on the test records in % after the last round, with the linear layers of the base as they",
        "are and in NF4. The last column is NF4 less unquantised, in points.",
        "",
        "| task | seed | unquantised | NF4 | difference |",
        "|---|---|---|---|---|",
    ]
    for task in METRIC:
        pairs = _pairs(results, task)
        for seed, (dense, nf4) in pairs.items():
            values = f"{_percent(dense)} | {_percent(nf4)}"
            lines.append(f"| {task} | {seed} | {values} | {_points(dense, nf4):+.2f} |")
        if len(pairs) > 1:
            mean = statistics.mean(_points(dense, nf4) for dense, nf4 in pairs.values())
            lines.append(f"| {task} | mean | | | {mean:+.2f} |")
    return "\n".join(lines) + "\n"


Row = dict[str, object]


def _pairs(results: list[Row], task: str) -> dict[object, tuple[Row, Row]]:
    """Both arms of each seed that has both."""
    found = {(row["seed"], row["quant"]): row for row in results if row["task"] == task}
    seeds = [seed for seed, quant in found if quant == "none" and (seed, "nf4") in found]
    return {seed: (found[seed, "none"], found[seed, "nf4"]) for seed in seeds}


def _percent(row: Row) -> str:
    return f"{100 * float(str(row['quality'])):.2f}"


def _points(dense: Row, nf4: Row) -> float:
    return 100 * (float(str(nf4["quality"])) - float(str(dense["quality"])))


def _arguments() -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.tsv, dev.tsv, test.tsv")
    parser.add_argument("--model", type=Path, required=True, help="folder of the MiniLM encoder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19])
    parser.add_argument("--tasks", nargs="+", choices=list(METRIC), default=list(METRIC))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "quantised.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
