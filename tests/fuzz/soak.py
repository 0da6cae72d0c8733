"""Many random cases: `python -m tests.fuzz.soak 10000 [seed]` prints what was tried and lost."""

import sys
import time
import traceback
from collections import Counter

import numpy as np
from tqdm import tqdm

from tests.fuzz import kills
from tests.fuzz.cases import KINDS, MUTATIONS, Case, run

TRAININGS = {"killed": kills.killed, "at once": kills.at_once}


def random_case(kind: str, seed: int) -> Case:
    """A case of one to three mutations, one time in fifty of none."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    count = int(rng.choice([0, 1, 2, 3], p=[0.02, 0.58, 0.25, 0.15]))
    return Case(kind, tuple(map(str, rng.choice(MUTATIONS[kind], count))), seed)


def place_and_reason(error: Exception) -> str:
    """Where an exception came from, and what it says."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
    return f"{type(error).__name__} at {place}: {str(error)[:300]}"


def main(count: int, first: int = 0, *kinds: str) -> int:
    """Run `count` cases of each kind; the number that was lost.

    Trainings take seconds each: of them there is one for twenty cases, at least 20 of both kinds.
    """
    trainings = not kinds or "training" in kinds
    kinds = tuple(kind for kind in kinds or KINDS if kind in KINDS)
    tried: Counter = Counter()
    lost: list[tuple[object, str]] = []
    started = time.perf_counter()
    for kind in kinds:
        for seed in tqdm(range(first, first + count), desc=kind, unit=" cases"):
            case = random_case(kind, seed)
            try:
                verdict = run(case)
            except Exception as error:
                verdict = "lost"
                lost.append((case, place_and_reason(error)))
            for name in set(case.names) or {"(none)"}:
                tried[kind, name, verdict] += 1
            tried[kind, "all", verdict] += 1
    print(f"{'input':<9} {'mutation':<24} {'loaded':>8} {'refused':>8} {'lost':>6}")
    for kind in kinds:
        for name in ["all", "(none)", *MUTATIONS[kind]]:
            counts = [tried[kind, name, verdict] for verdict in ("loaded", "refused", "lost")]
            print(f"{kind:<9} {name:<24} {counts[0]:>8,} {counts[1]:>8,} {counts[2]:>6,}")
    if trainings:
        print(f"{'training':<34} {'tried':>8} {'hits':>8} {'lost':>6}")
        for name, try_once in TRAININGS.items():
            hits, before = 0, len(lost)
            seeds = range(first, first + max(20, count // 20))
            for seed in tqdm(seeds, desc=name, unit=" trainings"):
                try:
                    hits += try_once(seed)
                except Exception as error:
                    lost.append((f"{name} {seed}", place_and_reason(error)))
            print(f"{name:<34} {len(seeds):>8,} {hits:>8,} {len(lost) - before:>6,}")
    print(f"{time.perf_counter() - started:.0f} s; lost: {len(lost)}")
    for case, reason in lost[:100]:
        print(f"{case}\n    {reason}")
    return len(lost)


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(min(1, main(*map(int, words[:2]), *words[2:])))
