"""The core server on a Ray cluster of two nodes on this machine, started as its page says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from ssd2.wire.codec import MAX_MESSAGE_BYTES

from .conftest import ENVIRONMENT, ROOT
from .processes import children, is_running

CONFIG = ROOT / "deploy/ray/local.yaml"
START_TIMEOUT_S = 300
NODES = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster()
for cpus in sys.argv[1:]:
    cluster.add_node(num_cpus=int(cpus), include_dashboard=False, object_store_memory=100 * 2**20)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass
class RayCluster:
    """A running application.

    Attributes:
        address: HOST:PORT that Serve's proxy opens itself, without encryption.
        logs: folder of Serve's.
    """

    address: str
    logs: Path

    def replicas(self) -> list[int]:
        """Process ids of the replicas that take answers: those that Serve has said so of, and that have an engine."""
        text = "".join(file.read_text() for file in self.logs.glob("controller_*.log"))
        started = re.findall(r"started successfully on node .*\(PID: (\d+)\)", text)
        return [pid for pid in map(int, started) if is_running(pid) and self.engines(pid)]

    def engines(self, replica: int) -> list[int]:
        """Process ids of a replica's engine."""
        return [pid for pid in children(replica) if b"core_server.engine.process" in _command(pid)]

    def node_of(self, replica: int) -> int:
        """Process id of the node's own process that a replica runs under."""
        return int(Path(f"/proc/{replica}/stat").read_text().rpartition(")")[2].split()[1])

    def wait_for_replicas(self, count: int) -> list[int]:
        """Wait until there are so many."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while len(found := self.replicas()) != count:
            assert time.monotonic() < deadline, f"{len(found)} replicas instead of {count}"
            time.sleep(0.2)
        return found


@contextmanager
def running_on_ray(
    folder: Path, *, cpus: tuple[int, ...] = (1, 1), variables: Mapping[str, str] | None = None, **arguments: Any
) -> Iterator[RayCluster]:
    """Start nodes and the application, and end both on leaving.

    Args:
        folder: checkpoint folder of the core.
        cpus: processors of each node, as far as Ray is concerned.
        variables: of the environment, beside the tests' own.
        **arguments: of the application.
    """
    with tempfile.TemporaryDirectory(prefix="ray-") as scratch, ExitStack() as stack:
        own = {"HOME": scratch, "RAY_TMPDIR": scratch, "RAY_USAGE_STATS_ENABLED": "0"}
        own["RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"] = str(MAX_MESSAGE_BYTES)
        environment = {**ENVIRONMENT, **own, **(variables or {}), "RAY_raylet_start_wait_time_s": "120"}
        log = stack.enter_context((Path(scratch) / "log.txt").open("w+"))
        nodes = stack.enter_context(_nodes(cpus, environment, log))
        ray_address = nodes.stdout.readline().strip()
        assert ray_address, _end_of(log)
        config, address = _config(folder, arguments)
        file = Path(scratch) / "config.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "ray.serve.scripts", "run", str(file), "--address", ray_address]
        stack.enter_context(_serve(command, environment, log))
        cluster = RayCluster(address, Path(scratch) / "ray/session_latest/logs/serve")
        try:
            cluster.wait_for_replicas(config["applications"][0]["args"]["min_replicas"])
            yield cluster
        except BaseException:
            sys.stderr.write(_end_of(log))
            raise


@contextmanager
def _nodes(cpus: tuple[int, ...], environment: dict[str, str], log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", NODES, *map(str, cpus)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
    process = subprocess.Popen(command, **pipes, text=True, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            for pid in _descendants(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.kill()
        process.stdout.close()


@contextmanager
def _serve(command: list[str], environment: dict[str, str], log: IO[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _config(folder: Path, arguments: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The configuration that is documented, on free ports and with another model."""
    config = yaml.safe_load(CONFIG.read_text())
    config["http_options"]["port"], config["grpc_options"]["port"] = free_port(), free_port()
    (application,) = config["applications"]
    application["args"] = {**application["args"], "models": {"core": str(folder)}, **arguments}
    return config, f"127.0.0.1:{config['grpc_options']['port']}"


def _end_of(log: IO[str]) -> str:
    return Path(log.name).read_text()[-5000:]


def _descendants(pid: int) -> list[int]:
    found = []
    try:
        direct = children(pid)
    except OSError:  # it has ended meanwhile
        return []
    for child in direct:
        found += [child, *_descendants(child)]
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
