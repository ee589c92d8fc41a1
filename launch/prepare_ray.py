"""Parts of a preparation as Ray tasks, and their join. Needs `pip install 'myna[ray]'`.

    python launch/prepare_ray.py 32 fineweb-edu --out /shared/data/fineweb-edu [any flag of myna prepare]

Ray runs it on this machine (tested), or on the cluster that RAY_ADDRESS names (not tried). All machines must have Myna
and see the folder of --out. CORES is how many cores a task takes (16). A task that fails is tried again, and goes on
where its part was.
"""

import os
import subprocess
import sys
from collections.abc import Sequence

CORES = int(os.environ.get("CORES", "16"))


def prepare_part(number: int, of: int, call: Sequence[str]) -> None:
    """Makes one part. Raises CalledProcessError where `myna prepare` fails; stderr says why."""
    words = ["prepare", *call, "--part", f"{number}/{of}", "--workers", str(CORES)]
    subprocess.run([sys.executable, "-m", "myna", *words], check=True)


def main(of: int, call: Sequence[str]) -> None:
    """Makes all parts, then the dataset.

    Args:
        of: how many parts.
        call: what follows `myna prepare`.
    """
    import ray

    ray.init()
    task = ray.remote(num_cpus=CORES, max_retries=10, retry_exceptions=True)(prepare_part)
    ray.get([task.remote(number, of, call) for number in range(1, of + 1)])
    join = ray.remote(max_retries=10)(subprocess.run)
    out = call[call.index("--out") + 1]
    ray.get(join.remote([sys.executable, "-m", "myna", "data", "join", out], check=True))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
