"""A Ray cluster of four nodes on this host, with one CPU each; on the last one loadtrt has another version."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER_VERSION = "0.0.9"
_OBJECTS_BYTES = 80 << 20
_OTHER = f"""
import sys
if "loadtrt.runs.worker" in sys.orig_argv:
    import loadtrt
    loadtrt.__version__ = {OTHER_VERSION!r}
"""


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """The cluster; this process is connected to it."""
    # Short, as Ray's sockets lie in it, whose names are limited.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    packages = os.pathsep.join(filter(None, (os.path.abspath(path) for path in sys.path)))
    given = {
        "PYTHONPATH": packages,
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS_SKIP_REGEX": r"[\s\S]*",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ |= given
    try:
        import ray
        from ray.cluster_utils import Cluster

        (folder / "sitecustomize.py").write_text(_OTHER)
        node = {"num_cpus": 1, "object_store_memory": _OBJECTS_BYTES}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            for _ in range(2):
                cluster.add_node(wait=False, **node)
            cluster.add_node(wait=False, **node, env_vars={"PYTHONPATH": f"{folder}{os.pathsep}{packages}"})
            cluster.wait_for_nodes()
            ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
