"""Prints how many nodes of a Ray are alive: `python alive_child.py ADDRESS`, one JSON line twice a second until killed.

The interpreter that has Ray runs this file by path, so it imports nothing of dsrl.
"""

import json
import sys
import time
from typing import Any


def main() -> None:
    from ray._raylet import GcsClient

    while True:
        print(json.dumps(query(GcsClient, sys.argv[1])), flush=True)
        time.sleep(0.5)


def query(client: Any, address: str) -> dict[str, Any]:
    """Counts of live nodes, CPUs and GPUs; or `refused` or `error` with Ray's message."""
    from ray.exceptions import AuthenticationError, RayError

    try:
        nodes = client(address=address).get_all_node_info(timeout=5).values()
    except AuthenticationError as error:
        return {"refused": str(error).splitlines()[0]}
    except (RayError, RuntimeError, OSError) as error:
        return {"error": (str(error).splitlines() or [type(error).__name__])[0]}
    alive = [dict(node.resources_total) for node in nodes if node.state == 0]
    sums = {name.lower() + "s": int(sum(node.get(name, 0) for node in alive)) for name in ("CPU", "GPU")}
    by_node = sorted((int(node.get("GPU", 0)) for node in alive), reverse=True)
    return {"alive": len(alive), **sums, "gpus_by_node": by_node}


if __name__ == "__main__":
    main()
