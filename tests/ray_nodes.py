"""A Ray cluster on this machine, and a node of it that dies."""

import contextlib
import os
from pathlib import Path

import pytest

from rsprune.runners import NoProgress

NODE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80_000_000}


@contextlib.contextmanager
def three_nodes():
    """A cluster of three nodes, each of one core, which `RAY_ADDRESS` names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        ray = pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        soon = {"health_check_period_ms": 1_000, "health_check_timeout_ms": 3_000, "health_check_failure_threshold": 3}
        made = Cluster(initialize_head=True, head_node_args=NODE | {"_system_config": soon})
        patch.setenv("RAY_ADDRESS", made.address)
        for _ in range(2):
            made.add_node(**NODE)
        made.wait_for_nodes()
        yield made
        ray.shutdown()
        made.shutdown()


class KillsNode(NoProgress):
    """Kills a node of a cluster when the first image is embedded."""

    def __init__(self, cluster):
        self.cluster, self.stage, self.killed = cluster, "", None

    def start(self, stage, total, done):
        self.stage = stage

    def advance(self, images):
        if self.stage == "embed" and self.killed is None:
            import ray

            here = ray.get_runtime_context().get_node_id()
            self.killed = next(node for node in self.cluster.worker_nodes if node.node_id != here)
            self.cluster.remove_node(self.killed, allow_graceful=False)
