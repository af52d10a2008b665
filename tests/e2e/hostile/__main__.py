"""All attacks for some minutes, as `scripts/hostile` starts them; the status is 1 where any did harm."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.hostile.clients import attack_serving
from tests.e2e.hostile.faults import attack_commands
from tests.e2e.hostile.figures import Budget, table
from tests.e2e.hostile.files import attack_checkpoints, attack_reading
from tests.e2e.hostile.live import attack_listening

ATTACKS = {  # and their shares of the time
    attack_reading: 0.25,
    attack_checkpoints: 0.1,
    attack_serving: 0.3,
    attack_commands: 0.1,
    attack_listening: 0.25,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/hostile", description=__doc__)
    parser.add_argument(
        "minutes", type=float, nargs="?", default=10.0, help="for all attacks together; 10 if not given"
    )
    parser.add_argument("--seed", type=int, default=None, help="the same attacks again")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else int(time.time())
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    print(f"Seed {seed}; what does harm stays in {folder}.", flush=True)
    found = []
    for attack, share in ATTACKS.items():
        place = folder / attack.__name__
        place.mkdir()
        figures = attack(
            random.Random(f"{seed} {attack.__name__}"), place, Budget(seconds=60 * share * arguments.minutes)
        )
        print(f"{figures.name}: {figures.inputs}, harm {figures.harm}", flush=True)
        print("".join(f"  {note}\n" for note in figures.notes), end="", flush=True)
        found.append(figures)
    print(f"\n{table(found)}")
    return 1 if any(figures.harm for figures in found) else 0


if __name__ == "__main__":
    sys.exit(main())
