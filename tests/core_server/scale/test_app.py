from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("ray.serve")

from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from core_server.config import ServerConfig
from core_server.scale.app import DEPLOYMENT, build_app, deployment_options, read_arguments
from core_server.scale.proxy import PREFIX, proxy_config
from ssd2.errors import InvalidParameter
from ssd2.logits.format import AllowedFormats
from ssd2.wire.codec import MAX_MESSAGE_BYTES

DEPLOY = Path(__file__).parents[3] / "deploy/ray"
MODELS = {"general": Path("models/core")}


def local() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "local.yaml").read_text())


def manifests() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "rayservice.yaml").read_text())}


def on_kubernetes() -> dict[str, Any]:
    return yaml.safe_load(manifests()["RayService"]["spec"]["serveConfigV2"])


def head() -> dict[str, Any]:
    (container,) = manifests()["RayService"]["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"][
        "containers"
    ]
    return container


def options_of(**arguments: Any) -> dict[str, Any]:
    return deployment_options(*read_arguments({"models": MODELS, **arguments}))


CONFIGS = pytest.mark.parametrize("config", [local, on_kubernetes])


@CONFIGS
def test_what_is_shipped_is_what_serve_reads_and_builds_the_application(config: Any) -> None:
    read = ServeDeploySchema.model_validate(config())
    (application,) = read.applications
    assert application.import_path == f"{build_app.__module__}:{build_app.__name__}"
    assert application.route_prefix, "without one Serve hands on no gRPC"
    built = call_user_app_builder_with_args_if_necessary(build_app, application.args)
    assert built._bound_deployment.name == DEPLOYMENT


def test_http_is_for_this_machine_alone_where_no_operator_asks() -> None:
    assert ServeDeploySchema.model_validate(local()).http_options.host == "127.0.0.1"


@CONFIGS
def test_what_is_shipped_has_one_proxy_and_no_reflection(config: Any) -> None:
    read = ServeDeploySchema.model_validate(config())
    assert read.proxy_location.value == "HeadOnly"
    assert not read.grpc_options.enable_reflection
    assert read.grpc_options.grpc_servicer_functions == ["core_server.scale.proxy.add_to_proxy"]


def test_the_manifest_s_proxy_has_tls_and_keys_and_agents_reach_no_other_port() -> None:
    given = {one["name"]: one["value"] for one in head()["env"]}
    config = proxy_config(given)
    assert config.keys
    assert config.tls_certificate
    assert given["RAY_SERVE_GRPC_MAX_MESSAGE_SIZE"] == str(MAX_MESSAGE_BYTES)
    mounted = tuple(volume["mountPath"] for volume in head()["volumeMounts"])
    assert all(value.startswith(mounted) for name, value in given.items() if name.startswith(PREFIX) and "/" in value)
    assert [port["targetPort"] for port in manifests()["Service"]["spec"]["ports"]] == ["core"]
    assert {port["name"]: port["containerPort"] for port in head()["ports"]}["core"] == config.port
    open_to_all = [rule for rule in manifests()["NetworkPolicy"]["spec"]["ingress"] if "from" not in rule]
    assert open_to_all == [{"ports": [{"port": config.port}]}]


def test_the_manifest_s_workers_have_what_a_replica_takes() -> None:
    config, scaling = read_arguments(on_kubernetes()["applications"][0]["args"])
    (bundle,) = deployment_options(config, scaling)["placement_group_bundles"]
    (group,) = manifests()["RayService"]["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["maxReplicas"] >= scaling.max_replicas
    (worker,) = group["template"]["spec"]["containers"]
    assert float(worker["resources"]["limits"]["nvidia.com/gpu"]) == bundle["GPU"]
    assert float(worker["resources"]["requests"]["cpu"]) >= bundle["CPU"]
    assert any(str(config.models["general"]).startswith(volume["mountPath"]) for volume in worker["volumeMounts"])


def test_no_pod_of_the_manifest_runs_as_root_or_reports_its_use() -> None:
    cluster = manifests()["RayService"]["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]


def test_a_replica_is_a_tensor_parallel_group_on_one_node() -> None:
    options = options_of(device="cuda", tensor_parallel=4, cpus=8)
    assert options["placement_group_bundles"] == [{"CPU": 8.0, "GPU": 4.0}]
    assert options["placement_group_strategy"] == "STRICT_PACK"
    assert options["ray_actor_options"] == {"num_cpus": 8.0, "num_gpus": 4.0}
    on_cpu = options_of(tensor_parallel=2, cpus=2)
    assert on_cpu["placement_group_bundles"] == [{"CPU": 2.0}]


def test_replicas_come_and_go_with_open_sessions() -> None:
    options = options_of(sessions_per_replica=16, min_replicas=2, max_replicas=5)
    assert options["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 12.0}
    assert options["max_ongoing_requests"] > 16, "a replica itself says that it is full"
    chosen = options_of(target_sessions=3)
    assert chosen["autoscaling_config"]["target_ongoing_requests"] == 3


def test_arguments_reach_the_replica_as_a_server_s_options() -> None:
    given = {"sessions_per_replica": 7, "cpus": "3", "logits": "top-k:64", "grace_s": 9, "compiled": True}
    config, _ = read_arguments({"models": {"general": "models/core"}, **given})
    assert config == ServerConfig(
        {"general": Path("models/core")},
        max_sessions=7,
        threads=3,
        logits_formats=AllowedFormats.parse("top-k:64"),
        grace_s=9.0,
        compiled=True,
        log_format="json",
    )


UPSTREAM = {"upstream": "http://vllm:8000", "upstream_model": "m", "tokenizer": "/models/m"}


def test_a_replica_may_have_an_upstream_in_place_of_models() -> None:
    config, scaling = read_arguments({**UPSTREAM, "upstream_key": "/keys/upstream", "upstream_timeout_s": 9})
    assert (config.upstream, config.upstream_timeout_s) == ("http://vllm:8000", 9.0)
    assert config.upstream_key == Path("/keys/upstream")
    assert config.model_folders == {"m": Path("/models/m")}
    assert deployment_options(config, scaling)["placement_group_bundles"] == [{"CPU": 1.0}]


def test_an_argument_that_is_null_has_its_default() -> None:
    assert read_arguments({"models": MODELS, "target_sessions": None, "device": None}) == read_arguments(
        {"models": MODELS}
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"models": {}}, "no model to serve"),
        ({"models": "models/core"}, "no model to serve"),
        ({"models": MODELS, **UPSTREAM}, "either models of its own or an upstream"),
        ({"upstream": "http://vllm:8000"}, "go together; set all three"),
        ({**UPSTREAM, "tensor_parallel": 2}, "nothing is computed here"),
        ({"models": MODELS, "tensor_parallel": 2.5}, "tensor_parallel is 2.5; give a whole number"),
        ({"models": MODELS, "compiled": "yes"}, "compiled is 'yes'; give true or false"),
        ({"models": MODELS, "log_format": "xml"}, "log format is 'xml'; choose text or json"),
        ({"models": MODELS, "target_sessions": 0}, "target sessions is 0.0; it must be above 0"),
        ({"models": MODELS, "device": "cuda:1"}, "give cpu or cuda"),
        ({"models": MODELS, "sessions_per_replica": 0}, "max sessions is 0"),
        ({"models": MODELS, "min_replicas": 3, "max_replicas": 2}, "min replicas is 3"),
        ({"models": MODELS, "cpus": 0}, "threads is 0"),
    ],
)
def test_an_application_that_could_not_serve_is_not_built(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidParameter, match=error):
        build_app(arguments)


def test_an_unknown_argument_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(InvalidParameter, match=r"no argument 'max_sessions'; the arguments are models, sessions_per"):
        build_app({"models": MODELS, "max_sessions": 3})
