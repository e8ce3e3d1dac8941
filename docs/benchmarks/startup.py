"""How long `maldrop --help` takes, as a share of `import torch`: fresh interpreters, in turn.

python docs/benchmarks/startup.py [ROUNDS]
"""

import statistics
import subprocess
import sys
import time


def seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    pairs = [(seconds("-m", "maldrop_cli", "--help"), seconds("-c", "import torch")) for _ in range(rounds + 1)][1:]
    helps, imports = zip(*pairs, strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"maldrop --help {statistics.median(helps):.2f} s, import torch {statistics.median(imports):.2f} s", end="; ")
    print(f"ratio {ratio:.3f} (median of {rounds} pairs)")


if __name__ == "__main__":
    main()
