"""Says how many nodes of a Ray are alive: `python alive.py ADDRESS`, a JSON line twice a second, until it is ended.

Run by path by the interpreter that has Ray; so it imports nothing of dsrl.
"""

import json
import sys
import time
from typing import Any


def main() -> None:
    """Until its output is read no more."""
    from ray._raylet import GcsClient

    while True:
        print(json.dumps(look(GcsClient, sys.argv[1])), flush=True)
        time.sleep(0.5)


def look(client: Any, address: str) -> dict[str, Any]:
    """Nodes that are alive, with their CPUs and GPUs in all; or why Ray doesn't answer."""
    from ray.exceptions import AuthenticationError, RayError

    try:
        nodes = client(address=address).get_all_node_info(timeout=5).values()
    except AuthenticationError as error:
        return {"refused": str(error).splitlines()[0]}
    except (RayError, RuntimeError, OSError) as error:
        return {"error": (str(error).splitlines() or [type(error).__name__])[0]}
    alive = [dict(node.resources_total) for node in nodes if node.state == 0]
    sums = {name.lower() + "s": int(sum(node.get(name, 0) for node in alive)) for name in ("CPU", "GPU")}
    each = sorted((int(node.get("GPU", 0)) for node in alive), reverse=True)
    return {"alive": len(alive), **sums, "gpus_by_node": each}


if __name__ == "__main__":
    main()
