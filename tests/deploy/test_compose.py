"""compose.yaml: a core, an agent and those who watch on one machine, apart from each other and without rights."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from core_server.config import ServerConfig
from tests.deploy.deployment import DEPLOY, OBSERVABILITY, ROOT, VERSION, ran, seconds_to_stop, server_of

FILE = DEPLOY / "compose.yaml"
OWNER = "1000:1000"


def composed(file: Path = FILE, **variables: str) -> dict[str, Any]:
    """The file with its variables, by default as they are by default, and its merges made."""
    given = {"SLINGSHOT_USER": OWNER, **variables}
    variable = r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}"
    text = re.sub(variable, lambda found: given.get(found[1], found[2]), file.read_text())
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def core_of(**variables: str) -> ServerConfig:
    """The server that is started; Compose splits the one text as a shell does."""
    return server_of(shlex.split(composed(**variables)["services"]["core"]["command"]))


COMPOSED = composed()
SERVICES: dict[str, dict[str, Any]] = COMPOSED["services"]
each_service = pytest.mark.parametrize("name", SERVICES)


@pytest.mark.parametrize("file", [FILE, DEPLOY / "compose.gpu.yaml"], ids=lambda file: file.name)
def test_it_is_a_compose_file(file: Path) -> None:
    PyCompose.from_yaml(yaml.safe_dump(composed(file))).validate()


@each_service
def test_no_service_has_rights_or_writes_to_its_image(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert not [volume for volume in service["volumes"] if "docker.sock" in volume["source"]]


@each_service
def test_every_image_is_of_a_version(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", image)
    if image.startswith("slingshot-"):
        assert image.endswith(f":{VERSION}")
        assert (ROOT / SERVICES[name]["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["core", "agent", "prometheus", "grafana"])
def test_every_service_that_runs_is_asked_whether_it_does(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


@each_service
def test_secrets_are_files_and_no_variables_or_arguments(name: str) -> None:
    service = SERVICES[name]
    for variable, value in service.get("environment", {}).items():
        assert not re.search("KEY|PASS|SECRET|TOKEN", variable) or variable.endswith("__FILE"), variable
        assert "sk-" not in value
    named = [secret if isinstance(secret, str) else secret["source"] for secret in service.get("secrets", [])]
    assert set(named) <= set(COMPOSED["secrets"])
    assert not re.search("sk-|BEGIN", str(service.get("command")))


def test_each_image_is_built_with_what_pip_is_told_for_it_alone() -> None:
    told = {}
    for name in ("core", "agent"):
        (secret,) = SERVICES[name]["build"]["secrets"]
        (asked,) = set(re.findall(r"type=secret,id=(\w+)", (ROOT / SERVICES[name]["build"]["dockerfile"]).read_text()))
        assert secret["target"] == asked
        told[name] = COMPOSED["secrets"][secret["source"]]["file"]
    assert told == {"core": "./local/pip-core.conf", "agent": "./local/pip-agent.conf"}


def test_what_is_secret_is_never_committed() -> None:
    files = [DEPLOY / secret["file"] for secret in COMPOSED["secrets"].values()]
    assert all(file.is_relative_to(DEPLOY / "local") for file in files)
    ignored = ran("git", "check-ignore", *files, DEPLOY / ".env")
    assert len(ignored.stdout.splitlines()) == len(files) + 1


def test_the_core_is_told_files_that_it_is_given() -> None:
    server = core_of(CORE_OPTIONS="--client-ca=/run/secrets/ca.pem --precision bfloat16")
    targets = {f"/run/secrets/{secret['target']}" for secret in SERVICES["core"]["secrets"]}
    assert {str(server.tls_certificate), str(server.tls_key), str(server.client_ca)} == targets
    assert server.precision == "bfloat16"
    keys = {volume["target"]: volume["source"] for volume in SERVICES["core"]["volumes"]}
    assert Path(keys[str(server.keys.parent)]).name == "keys", "the folder: a file by itself would stay the old one"


def test_the_core_has_time_to_let_its_answers_end() -> None:
    given_s = int(SERVICES["core"]["stop_grace_period"].removesuffix("s"))
    assert given_s > seconds_to_stop(core_of())


def test_the_agent_is_told_files_that_it_is_given() -> None:
    targets = {f"/run/secrets/{secret['target']}" for secret in SERVICES["agent"]["secrets"]}
    assert SERVICES["agent"]["environment"]["SLINGSHOT_CA"] in targets
    assert {"/run/secrets/SLINGSHOT_CORE_KEY", "/run/secrets/SLINGSHOT_PASSPHRASE"} <= targets
    assert SERVICES["agent"]["environment"]["SLINGSHOT_CORE"].split(":") == ["core", str(core_of().port)]


def test_documents_are_the_agent_s_alone_and_it_cannot_change_them() -> None:
    holders = {name for name, service in SERVICES.items() for v in service["volumes"] if v["target"] == "/documents"}
    assert holders == {"agent"}
    (documents,) = (volume for volume in SERVICES["agent"]["volumes"] if volume["target"] == "/documents")
    assert documents["read_only"] is True


def networks_of(name: str) -> set[str]:
    return set(SERVICES[name].get("networks", ()))


def test_the_agent_meets_the_core_alone_and_where_nothing_leads_outside() -> None:
    assert {other for other in SERVICES if networks_of(other) & networks_of("agent")} == {"agent", "core"}
    assert networks_of("agent") & networks_of("core") == {"agents"}
    assert COMPOSED["networks"]["agents"] == COMPOSED["networks"]["ops"] == {"internal": True}


def test_the_ops_port_is_in_the_network_of_those_who_watch_alone() -> None:
    server = core_of()
    networks = {name: (given or {}).get("aliases", []) for name, given in SERVICES["core"]["networks"].items()}
    assert {name for name, aliases in networks.items() if server.ops_host in aliases} == {"ops"}
    targets = yaml.safe_load((OBSERVABILITY / "compose/cores.yml").read_text())
    assert targets == [{"targets": [f"{server.ops_host}:{server.ops_port}"]}]
    assert f"http://{server.ops_host}:{server.ops_port}/ready" in SERVICES["core"]["healthcheck"]["test"]


def test_the_one_who_makes_keys_has_no_network() -> None:
    assert SERVICES["access"]["network_mode"] == "none"
    assert SERVICES["access"]["profiles"] == ["access"]


@each_service
def test_ports_are_this_machine_s_alone_by_default(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@each_service
def test_files_that_are_mounted_are_there(name: str) -> None:
    sources = [volume["source"] for volume in SERVICES[name]["volumes"] if volume["type"] == "bind"]
    for source in (source for source in sources if not source.startswith("./local")):
        assert (DEPLOY / source).is_file()


def test_prometheus_reads_what_is_mounted_where_its_file_says() -> None:
    targets = {v["target"]: v["source"] for v in SERVICES["prometheus"]["volumes"]}
    read = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
    for file in (*read["rule_files"], *read["scrape_configs"][0]["file_sd_configs"][0]["files"]):
        assert f"/etc/prometheus/{file}" in targets
    assert targets["/etc/prometheus/alerts.yml"] == "./observability/alerts.yml"


def test_grafana_shows_the_dashboard_of_the_repository() -> None:
    targets = {v["target"]: v["source"] for v in SERVICES["grafana"]["volumes"]}
    (provider,) = yaml.safe_load((OBSERVABILITY / "compose/dashboards.yml").read_text())["providers"]
    assert targets[f"{provider['options']['path']}/dashboard.json"] == "./observability/dashboard.json"
    (source,) = yaml.safe_load((OBSERVABILITY / "compose/datasource.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert networks_of("grafana") & networks_of("prometheus")
