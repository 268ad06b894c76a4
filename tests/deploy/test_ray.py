"""The manifest for KubeRay: what Kubernetes, the operator and the image that it names take it for."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.deployment import DEPLOY
from tests.deploy.test_chart import DEFAULTS, NEWEST_KUBERNETES, OLDEST_KUBERNETES

Manifest = dict[str, Any]

SERVICE, *OTHERS = yaml.safe_load_all((DEPLOY / "ray/rayservice.yaml").read_text())
CLUSTER: Manifest = SERVICE["spec"]["rayClusterConfig"]
PODS = {
    group.get("groupName", "head"): group["template"]["spec"]
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"])
}
each_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
def test_kubernetes_knows_every_object_and_field(version: str) -> None:
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod} for name, pod in PODS.items()]
    for manifest in (*pods, *OTHERS):
        kubernetes_validate.validate(manifest, version, strict=True)


@each_pod
def test_no_pod_is_root_or_can_become_it_or_writes_to_its_image(pod: Manifest) -> None:
    (container,) = pod["containers"]
    assert pod["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": 10001}.items()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for powers in (container["securityContext"], CLUSTER["autoscalerOptions"]["securityContext"]):
        assert powers == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    writable = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == CLUSTER["autoscalerOptions"]["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]


@each_pod
def test_probes_use_only_what_the_image_and_the_kind_of_pod_have(
    pod: Manifest,
) -> None:
    pytest.importorskip("ray.serve")
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS

    (container,) = pod["containers"]
    for probe in (container["livenessProbe"], container["readinessProbe"]):
        asked = probe["httpGet"]
        assert asked["path"] in PUBLIC_EXACT_PATHS, "no token is sent along"
        assert asked["port"] == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT


def test_the_operator_reaches_what_it_asks_the_head_before_it_is_the_service_s() -> None:
    assert yaml.safe_load(SERVICE["spec"]["serveConfigV2"])["http_options"]["host"] == "0.0.0.0"  # noqa: S104
    by_name = {manifest["kind"]: manifest["spec"] for manifest in OTHERS}
    assert by_name["Service"]["selector"]["ray.io/serve"] == "true"
    (asks,) = [rule for rule in by_name["NetworkPolicy"]["ingress"] if {"port": 8000} in rule.get("ports", ())]
    assert asks["from"][0]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}


def test_the_figures_reach_prometheus_where_the_chart_s_do() -> None:
    (policy,) = (manifest["spec"] for manifest in OTHERS if manifest["kind"] == "NetworkPolicy")
    (scraped,) = [rule for rule in policy["ingress"] if rule.get("ports") == [{"port": 8080}]]
    assert scraped["from"] == DEFAULTS["networkPolicy"]["metrics"]


def test_ray_s_own_ports_want_a_token() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_the_page_builds_the_image_that_the_manifest_names() -> None:
    page = (DEPLOY / "ray/README.md").read_text()
    images = {container["image"] for pod in PODS.values() for container in pod["containers"]}
    assert [f"--build-arg EXTRAS=scale --tag {image} ." in page for image in images] == [True]


def test_the_page_s_table_has_every_argument() -> None:
    pytest.importorskip("ray.serve")
    from core_server.scale.app import ARGUMENTS

    page = (DEPLOY / "ray/README.md").read_text()
    arguments = {name for name in ARGUMENTS if not name.startswith("log_")}
    assert arguments - set(re.findall(r"`(\w+)`", page)) == set()
