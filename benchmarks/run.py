"""All benchmarks: speed and memory beside named peers, and the cost of sharing work.

    python benchmarks/run.py            # two minutes, two cores
    python benchmarks/run.py --quick    # a hundredth of the events, to see that it runs

Every ratio is of times measured in the same run; results are checked to be equal first.
"""

from __future__ import annotations

import argparse

import ks_speed
import sharing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    scale = 100 if parser.parse_args().quick else 1
    ks_speed.stream(10**8 // scale)
    ks_speed.compare(10**7 // scale)
    sharing.compare(4 * 10**7 // scale)


if __name__ == "__main__":  # the workers of the cluster import this file
    main()
