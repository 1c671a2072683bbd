"""The quickstart's comparison: base, RL, SFT on the same samples, RL on random samples, RL on gold-labelled data.

    python benchmarks/quickstart_table.py --out FOLDER [--seeds 0 1 2]

Runs the command line once for each cell in one store, so shared stages run once, and prints Markdown: pass@1 of
every cell, and the gain over the base with its 95 % interval. A cell that fails stops the table.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CELLS = {
    "RL on the selected samples": [],
    "RL on equally many random samples": ["train.train_on=control"],
    "RL on equally many gold-labelled samples": ["train.train_on=gold"],
    "SFT on the selected samples": ["train=sft", "train.learning_rate=3e-4", "train.batch=32", "train.max_steps=60"],
}


def cell(name: str, seed: int, folder: Path) -> dict:
    """The `evaluate` block of one run."""
    run = folder / f"{'-'.join(name.lower().split())}-{seed}"
    seeds = [f"seed={seed}", f"model.prepare.seed={seed}", f"train.seed={seed}"]
    command = [
        sys.executable, "-m", "dsrl", "experiment=quickstart", *seeds, *CELLS[name],
        f"store={folder / 'store'}", f"hydra.run.dir={run}", "tracking.enabled=false",
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return json.loads((run / "metrics.json").read_text())["evaluate"]


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def gain(evaluated: dict) -> str:
    """`31.1 (27.9 to 34.4)`."""
    difference = evaluated["difference"]
    return f"{percent(difference['estimate'])} ({percent(difference['low'])} to {percent(difference['high'])})"


def row(label: str, values: list[float], notes: list[str]) -> str:
    return f"| {label} | {' | '.join(notes)} | {percent(statistics.fmean(values))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    folder = arguments.out.absolute()
    results = {name: [cell(name, seed, folder) for seed in arguments.seeds] for name in CELLS}
    bases = [evaluated["base"] for evaluated in next(iter(results.values()))]
    print("\n| pass@1, % | " + " | ".join(f"seed {seed}" for seed in arguments.seeds) + " | mean |")
    print("|---|" + "---|" * (len(bases) + 1))
    for label, key in (("pass_at_1", "pass_at_1"), ("greedy", "greedy"), ("format-free", "format_free")):
        suffix = "" if key == "pass_at_1" else f", {label}"
        print(row(f"base{suffix}", [base[key] for base in bases], [percent(base[key]) for base in bases]))
        for name, cells in results.items():
            values = [evaluated["trained"][key] for evaluated in cells]
            print(row(f"{name}{suffix}", values, [percent(value) for value in values]))
    for name, cells in results.items():
        gains = [evaluated["difference"]["estimate"] for evaluated in cells]
        print(row(f"gain: {name}", gains, [gain(evaluated) for evaluated in cells]))


if __name__ == "__main__":
    main()
