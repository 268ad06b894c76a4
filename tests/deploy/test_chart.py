"""The Helm chart, rendered by Helm: what it asks a cluster for is valid, keeps secrets apart and lets answers end."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from core_server.config import ServerConfig
from core_server.observability.observation import Observation
from core_server.observability.ops import create_app
from tests.deploy.deployment import DEPLOY, OBSERVABILITY, VERSION, seconds_to_stop, server_of

Values = dict[str, Any]
Manifest = dict[str, Any]

CHART = DEPLOY / "helm/slingshot-core"
DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Values = json.loads((CHART / "values.schema.json").read_text())
OLDEST_KUBERNETES, NEWEST_KUBERNETES = "1.30", "1.36"

SAFE: Values = {"access": {"tlsSecret": "the-tls", "keysSecret": "the-keys", "clientCaSecret": "the-ca"}}
WHOLE: Values = {
    **SAFE,
    "image": {"digest": f"sha256:{'a' * 64}", "pullSecrets": ["registry"]},
    "core": {"device": "cuda", "tensorParallel": 2, "engines": 2, "otlpEndpoint": "http://collector:4317"},
    "models": {"claim": "the-models"},
    "gpu": {"runtimeClassName": "nvidia"},
    "autoscaling": {"enabled": True},
    "service": {
        "type": "LoadBalancer",
        "port": 443,
        "annotations": {"example.org/kind": "tcp"},
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    },
    "networkPolicy": {
        "agents": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
        "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": 4317}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "serviceAccount": {"annotations": {"example.org/role": "core"}},
    "podAnnotations": {"example.org/reload": "true"},
    "podLabels": {"team": "core"},
    "nodeSelector": {"gpu": "h100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
}
OPEN: Values = {
    "access": {"open": True},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
}
VARIANTS = {"safe": SAFE, "whole": WHOLE, "open": OPEN}


def rendered(values: Values) -> dict[str, str]:
    """Text of every template by its name."""
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        made = chart.render(values, name="demo", namespace="prod")
    return {path.removeprefix("slingshot-core/templates/"): text for path, text in made.items()}


def manifests(values: Values) -> list[Manifest]:
    return _manifests(json.dumps(values))


@cache
def _manifests(values: str) -> list[Manifest]:
    """Rendered and read once, which together take a second."""
    texts = (text for name, text in rendered(json.loads(values)).items() if name.endswith(".yaml"))
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def one(kind: str, values: Values = SAFE, name: str = "demo-slingshot-core") -> Manifest:
    (found,) = (m for m in manifests(values) if m["kind"] == kind and m["metadata"]["name"] == name)
    return found


def pod_of(values: Values = SAFE) -> Manifest:
    spec: Manifest = one("Deployment", values)["spec"]["template"]["spec"]
    return spec


def container_of(values: Values = SAFE) -> Manifest:
    (container,) = pod_of(values)["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_kubernetes_knows_every_object_and_field(values: Values, version: str) -> None:
    found = [m for m in manifests(values) if not m["apiVersion"].startswith("monitoring.coreos.com/")]
    assert len(found) >= 5
    for manifest in found:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_oldest_kubernetes_is_the_one_that_the_chart_asks_for() -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST_KUBERNETES}.0-0"


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_helm_finds_nothing_amiss(values: Values) -> None:
    messages = helm.lint(str(CHART), values)["messages"]
    assert [m for m in messages if m["error"] != "icon is recommended"] == []


def test_it_is_the_version_that_it_installs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == VERSION
    assert container_of()["image"] == f"slingshot-core:{VERSION}"
    assert container_of(WHOLE)["image"].endswith(f"@sha256:{'a' * 64}")


# What runs.


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_the_arguments_are_a_server_that_can_be_started(values: Values) -> None:
    server = server_of(container_of(values)["args"])
    ports = {port["name"]: port["containerPort"] for port in container_of(values)["ports"]}
    assert ports == {"grpc": server.port, "ops": server.ops_port}
    assert server.log_format == "json"


def test_values_are_what_the_server_is_told() -> None:
    told = {
        "models": [{"name": "a", "path": "/models/a"}, {"name": "b", "path": "/models/b"}],
        "device": "cuda",
        "precision": "bfloat16",
        "tensorParallel": 2,
        "engines": 3,
        "threads": 7,
        "maxSessions": 1_000_000,
        "speculation": 5,
        "logits": "float16,top-k:9",
        "compile": True,
        "answerTimeoutS": 12.5,
        "sessionTimeoutS": 1_000_000,
        "engineTimeoutS": 13,
        "graceS": 14,
        "logLevel": "warning",
        "otlpEndpoint": "http://collector:4317",
    }
    assert set(told) == set(DEFAULTS["core"])
    server = server_of(container_of({**SAFE, "core": told})["args"])
    assert {name: str(path) for name, path in server.models.items()} == {"a": "/models/a", "b": "/models/b"}
    assert (server.device, server.precision, server.tensor_parallel, server.replicas) == ("cuda", "bfloat16", 2, 3)
    assert (server.threads, server.max_sessions, server.speculation) == (7, 1_000_000, 5)
    assert (server.answer_timeout_s, server.engine_timeout_s, server.grace_s) == (12.5, 13, 14)
    assert (server.compiled, server.session_timeout_s) == (True, 1_000_000)
    assert (str(server.logits_formats), server.log_level) == ("float16,top-k:9", "warning")
    assert server.otlp_endpoint == "http://collector:4317"


def test_defaults_are_the_server_s_but_for_those_that_are_named() -> None:
    given, own = server_of(container_of()["args"]), ServerConfig({})
    options = {field.name for field in fields(ServerConfig)} - {"host", "port", "ops_host", "ops_port", "log_format"}
    options -= {"tls_certificate", "tls_key", "client_ca", "keys"}
    differ = {name for name in options if getattr(given, name) != getattr(own, name)}
    assert differ - {"threads"} == {"models", "logits_formats", "grace_s"}  # threads: all of them, which may be two
    (named,) = re.findall(r"but for (.*?), its defaults", (CHART / "values.yaml").read_text())
    assert named == "models, threads, logits and graceS"


def test_a_pod_gets_a_gpu_for_each_rank_and_none_on_processors() -> None:
    server = server_of(container_of(WHOLE)["args"])
    assert container_of(WHOLE)["resources"]["limits"]["nvidia.com/gpu"] == server.ranks == 4
    assert "nvidia.com/gpu" not in container_of()["resources"]["limits"]


@pytest.mark.parametrize(("grace_s", "pre_stop_s"), [(0, 1), (20, 5), (90.5, 30)])
def test_a_pod_is_given_the_time_that_its_answers_are_promised(grace_s: float, pre_stop_s: int) -> None:
    values = {**SAFE, "core": {"graceS": grace_s}, "drain": {"preStopS": pre_stop_s}}
    server, waits_s = server_of(container_of(values)["args"]), container_of(values)["lifecycle"]["preStop"]["sleep"]
    assert (server.grace_s, waits_s["seconds"]) == (grace_s, pre_stop_s)
    assert pod_of(values)["terminationGracePeriodSeconds"] > pre_stop_s + seconds_to_stop(server)


def test_probes_ask_what_the_ops_port_answers() -> None:
    container, routes = container_of(), {route.path for route in create_app(Observation()).routes}
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    assert {kind: probe["httpGet"]["path"] for kind, probe in probes.items()} == {
        "startup": "/ready",  # or a server whose models never come would wait for ever
        "readiness": "/ready",
        "liveness": "/health",  # or a server that drains would be killed
    }
    assert {probe["httpGet"]["path"] for probe in probes.values()} <= routes
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {"ops"}


@pytest.mark.parametrize(("startup_s", "period_s"), [(600, 5), (601, 7), (3, 10)])
def test_models_have_the_time_to_load_that_was_given(startup_s: int, period_s: int) -> None:
    probe = container_of({**SAFE, "probes": {"startupS": startup_s, "periodS": period_s}})["startupProbe"]
    assert startup_s <= probe["failureThreshold"] * probe["periodSeconds"] < startup_s + period_s


UPSTREAM: Values = {
    **SAFE,
    "core": {"device": "cuda"},
    "upstream": {
        "url": "https://vllm.vllm.svc:8000",
        "model": "Qwen/Qwen3-8B",
        "tokenizer": "/models/qwen3-8b",
        "keySecret": "the-upstream",
        "timeoutS": 30,
    },
    "models": {"claim": "the-models"},
    "networkPolicy": {"egress": [{"ports": [{"port": 8000}]}]},
}


def with_upstream(**changes: object) -> Values:
    return {**UPSTREAM, "upstream": {**UPSTREAM["upstream"], **changes}}


def test_a_core_with_an_upstream_loads_no_model_and_takes_no_gpu() -> None:
    server, container = server_of(container_of(UPSTREAM)["args"]), container_of(UPSTREAM)
    assert not server.models
    assert (server.upstream, server.upstream_model) == ("https://vllm.vllm.svc:8000", "Qwen/Qwen3-8B")
    assert (str(server.tokenizer), server.upstream_timeout_s) == ("/models/qwen3-8b", 30)
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(server.upstream_key.parent) in mounted
    (secret,) = (v["secret"] for v in pod_of(UPSTREAM)["volumes"] if v["name"] == "upstream-key")
    assert (secret["secretName"], secret["items"][0]["path"]) == ("the-upstream", server.upstream_key.name)
    for manifest in manifests(UPSTREAM):
        kubernetes_validate.validate(manifest, OLDEST_KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (with_upstream(tokenizer=""), "needs upstream.url, upstream.model and upstream.tokenizer"),
        (with_upstream(url="http://vllm.vllm.svc:8000"), "use an https upstream.url"),
        ({**UPSTREAM, "core": {"engines": 2}}, "nothing is computed here"),
        ({**UPSTREAM, "networkPolicy": {}}, "allow it in networkPolicy.egress"),
    ],
)
def test_an_upstream_that_could_not_be_asked_is_refused(values: Values, says: str) -> None:
    with pytest.raises(helm.HelmError, match=says):
        rendered(values)


# Who gets in, and what is secret.


@pytest.mark.parametrize(
    ("access", "says"),
    [
        ({}, "set who may connect"),
        ({"tlsSecret": "t"}, "set who may connect"),
        ({"keysSecret": "k"}, "set access.tlsSecret"),
        ({"clientCaSecret": "c"}, "set access.tlsSecret"),
        ({"open": True, "tlsSecret": "t", "keysSecret": "k"}, "remove it"),
    ],
)
def test_nobody_serves_everybody_by_mistake(access: Values, says: str) -> None:
    with pytest.raises(helm.HelmError, match=says):
        rendered({"access": access})


def test_an_open_core_is_warned_of() -> None:
    assert "connections are not encrypted" in rendered(OPEN)["NOTES.txt"]
    assert "Everybody who can reach" in rendered({"access": {"open": True, "tlsSecret": "t"}})["NOTES.txt"]
    assert "WARNING" not in rendered(SAFE)["NOTES.txt"]


def test_secrets_are_files_that_no_argument_variable_or_object_of_the_chart_holds() -> None:
    assert not [m for m in manifests(WHOLE) if m["kind"] == "Secret"]
    container = container_of(WHOLE)
    assert "env" not in container
    assert "envFrom" not in container
    assert not re.search("the-(tls|keys|ca)", " ".join(container["args"]))
    mounted = {v["name"]: v["secret"] for v in pod_of(WHOLE)["volumes"] if "secret" in v}
    assert {secret["secretName"] for secret in mounted.values()} == {"the-tls", "the-keys", "the-ca"}
    assert {secret["defaultMode"] for secret in mounted.values()} == {0o440}


def test_the_server_is_told_the_files_that_are_there() -> None:
    server, container = server_of(container_of()["args"]), container_of()
    folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    there = {
        f"{folders[volume['name']]}/{item['path']}"
        for volume in pod_of()["volumes"]
        for item in volume.get("secret", {}).get("items", [])
    }
    assert {str(f) for f in (server.tls_certificate, server.tls_key, server.keys, server.client_ca)} == there


def test_a_changed_secret_reaches_the_pod() -> None:
    assert not [mount for mount in container_of(WHOLE)["volumeMounts"] if "subPath" in mount]


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_no_pod_is_root_or_can_become_it_or_writes_to_its_image(values: Values) -> None:
    pods = [m["spec"] for m in manifests(values) if m["kind"] == "Pod"] + [pod_of(values)]
    assert len(pods) == 2
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
    mounts = {mount["mountPath"] for mount in container_of(values)["volumeMounts"] if not mount.get("readOnly")}
    assert mounts == {"/tmp", "/dev/shm"}  # noqa: S108


def test_the_network_policy_opens_two_ports_and_one_of_them_to_few() -> None:
    policy = one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []
    agents, operators = policy["ingress"]
    assert [port["port"] for port in agents["ports"]] == ["grpc"]
    assert "from" not in agents
    assert [port["port"] for port in operators["ports"]] == ["ops"]
    test_pod = one("Pod", name="demo-slingshot-core-test")["metadata"]["labels"]
    assert operators["from"][0]["podSelector"]["matchLabels"].items() <= test_pod.items()
    assert operators["from"][1:] == DEFAULTS["networkPolicy"]["metrics"]


def test_the_network_policy_lets_those_in_and_out_that_it_is_told() -> None:
    policy = one("NetworkPolicy", WHOLE)["spec"]
    assert policy["ingress"][0]["from"] == WHOLE["networkPolicy"]["agents"]
    assert policy["egress"] == WHOLE["networkPolicy"]["egress"]


def test_no_load_balancer_has_the_ops_port() -> None:
    services = [m for m in manifests(WHOLE) if m["kind"] == "Service"]
    ports = {m["metadata"]["name"]: [port["name"] for port in m["spec"]["ports"]] for m in services}
    assert ports == {"demo-slingshot-core": ["grpc"], "demo-slingshot-core-ops": ["ops"]}
    assert one("Service", WHOLE)["spec"]["type"] == "LoadBalancer"
    assert one("Service", WHOLE, "demo-slingshot-core-ops")["spec"]["clusterIP"] == "None"


# What belongs together.


def test_selectors_find_the_core_s_pods_and_never_the_test_s() -> None:
    labels = one("Deployment", WHOLE)["spec"]["template"]["metadata"]["labels"]
    test_labels = one("Pod", WHOLE, "demo-slingshot-core-test")["metadata"]["labels"]
    selectors = [
        one("Deployment", WHOLE)["spec"]["selector"]["matchLabels"],
        one("PodDisruptionBudget", WHOLE)["spec"]["selector"]["matchLabels"],
        one("NetworkPolicy", WHOLE)["spec"]["podSelector"]["matchLabels"],
        pod_of(WHOLE)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
        *(m["spec"]["selector"] for m in manifests(WHOLE) if m["kind"] == "Service"),
    ]
    assert len(selectors) == 6
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= test_labels.items()


def test_prometheus_finds_the_pods_under_the_job_that_the_alerts_name() -> None:
    monitor, service = one("ServiceMonitor", WHOLE), one("Service", WHOLE, "demo-slingshot-core-ops")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == [port["name"] for port in service["spec"]["ports"]]
    assert service["spec"]["publishNotReadyAddresses"] is True, "or CoreNotReady would never be seen"
    job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    assert set(re.findall(r'job="([^"]+)"', (OBSERVABILITY / "alerts.yml").read_text())) == {job}


def test_alerts_and_dashboard_are_those_of_the_repository() -> None:
    for name in ("alerts.yml", "dashboard.json"):
        assert (CHART / "files" / name).resolve() == OBSERVABILITY / name
    assert one("PrometheusRule", WHOLE)["spec"] == yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())
    dashboard = one("ConfigMap", WHOLE, "demo-slingshot-core-dashboard")
    assert dashboard["data"]["slingshot-core.json"] == (OBSERVABILITY / "dashboard.json").read_text()
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_a_packed_chart_holds_them_too(tmp_path: Path) -> None:
    with helm.Chart.load(CHART) as chart, helm.Chart.load(chart.save(str(tmp_path))) as packed:
        files = {file["name"]: file["data"] for file in packed.files}
    assert files["files/alerts.yml"] == (OBSERVABILITY / "alerts.yml").read_text()


def test_pods_are_added_by_a_figure_that_there_is() -> None:
    scaler = one("HorizontalPodAutoscaler", WHOLE)["spec"]
    (metric,) = scaler["metrics"]
    assert metric["pods"]["metric"]["name"] in {family.name for family in Observation().metrics.collect()}
    assert float(metric["pods"]["target"]["averageValue"]) < DEFAULTS["core"]["maxSessions"]
    assert scaler["scaleTargetRef"]["name"] == one("Deployment", WHOLE)["metadata"]["name"]
    assert "replicas" not in one("Deployment", WHOLE)["spec"], "or every upgrade would undo what was scaled"


# Values.


def objects(schema: Values, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], Values]:
    """Every object of named values in the schema, by where it is."""
    named = schema.get("properties", {})
    below = {path: found for name, inner in named.items() for path, found in objects(inner, (*at, name)).items()}
    return {at: schema, **below} if named else below


@pytest.mark.parametrize("path", objects(SCHEMA), ids=".".join)
def test_the_schema_and_the_values_have_the_same_names(path: tuple[str, ...]) -> None:
    values = DEFAULTS
    for name in path:
        values = values[name]
    assert set(objects(SCHEMA)[path]["properties"]) - {"global"} == set(values)


@pytest.mark.parametrize("path", objects(SCHEMA), ids=".".join)
def test_a_name_that_there_is_not_is_refused(path: tuple[str, ...]) -> None:
    values: Values = {"nonsense": 1}
    for name in reversed(path):
        values = {name: values}
    with pytest.raises(helm.HelmError, match="nonsense"):
        rendered({**values, "access": {**SAFE["access"], **values.get("access", {})}})


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ("/replicaCount", -1),
        ("/core/models", []),
        ("/core/models/0/path", "relative"),
        ("/core/precision", "float64"),
        ("/core/device", "cuda:1"),
        ("/core/logits", "all"),
        ("/core/otlpEndpoint", "http://user:password@collector:4317"),
        ("/image/digest", "sha256:short"),
        ("/access/keysSecret", '{"keys": []}'),
        ("/service/port", 70000),
        ("/drain/preStopS", 0),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_is_installed(at: str, value: object) -> None:
    for name in reversed(at[1:].split("/")):
        value = [{"name": "a", "path": "/a"} | value] if name == "0" else {name: value}  # type: ignore[operator]
    with pytest.raises(helm.HelmError, match=f"at '{at}'"):
        rendered(value)  # type: ignore[arg-type]
