"""Train from the shell without the command line's packages, alone or with several processes.

    torchrun --nproc-per-node 2 -m mmctr.training --data data/demo --strategy v4 -p heads=2

One process reads, trains and writes as `mmctr train` does. Of several, each computes its part of
every batch of `batch_size` rows, so that the result is that of one process but for rounding and
dropout; the first one writes the run.
"""

import argparse
import sys
from pathlib import Path

from mmctr.config import parse_pairs
from mmctr.data.dataset import Dataset
from mmctr.errors import MMCTRError
from mmctr.files import DEMO, find, home
from mmctr.training import parallel
from mmctr.training.trainer import configs, train


def main() -> None:
    """Parse, train, print the run's folder; an error a user can cause is one sentence."""
    parser = argparse.ArgumentParser(prog="python -m mmctr.training", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEMO)
    parser.add_argument("--strategy", default="v4")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-p", action="append", metavar="KEY=VALUE", dest="pairs")
    arguments = parser.parse_args()
    status = 0
    try:
        with parallel.joined():
            model, training = configs(**{"seed": arguments.seed, **parse_pairs(arguments.pairs)})
            dataset = _load_in_turn(arguments.data)
            run = train(dataset, arguments.strategy, model, training, home() / "runs")
            if run is not None:
                print(f"valid AUC {run.summary['metrics']['auc']:.4f}\n{run.folder}")
    except MMCTRError as error:
        print(f"mmctr: {error}", file=sys.stderr)
        status = 1
    parallel.leave(status)


def _load_in_turn(data: Path) -> Dataset:
    """The first process of a machine reads the files, the others the cache it leaves."""
    if not parallel.is_first_here():
        parallel.wait_for_all()
        return Dataset.load(find(data))
    if not find(data).exists():
        # Only then, because it draws covers, for which a machine that only trains has no package.
        from mmctr.data.demo import find_data

        find_data(data, say=lambda text: print(text, file=sys.stderr))
    dataset = Dataset.load(find(data))
    parallel.wait_for_all()
    return dataset


if __name__ == "__main__":
    main()
