"""The commands of deploy/README.md are those of the programs and files that there are."""

from __future__ import annotations

import re
import shlex
from typing import Any

import helm_python as helm
import pytest
import yaml

from core_server.access.commands import _parser
from tests.deploy.deployment import DEPLOY

README = (DEPLOY / "README.md").read_text()
COMMANDS = README.replace("\\\n", " ")
COMPOSE = (DEPLOY / "compose.yaml").read_text()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (DEPLOY / link).exists()] == []


@pytest.mark.parametrize(
    "command", re.findall(r"(?:core-server|access) ((?:keys|certs) create [^`>\n]*?)(?:`| > .*)?\n", COMMANDS)
)
def test_keys_and_certificates_are_made_like_that(command: str) -> None:
    options = vars(_parser().parse_args(shlex.split(command)))
    assert command.startswith("certs") or (options["max_sessions"], options["tokens_per_minute"]) == (2, 6000)


def test_limits_are_said_to_hold_at_each_server_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _parser().parse_args(["keys", "create", "--help"])
    assert "at each server that reads the file" in " ".join(capsys.readouterr().out.split())


def test_the_cluster_s_values_are_values_of_the_chart() -> None:
    (values,) = re.findall(r"<<END\n(.*?)END\n", README, re.DOTALL)
    with helm.Chart.load(DEPLOY / "helm/slingshot-core") as chart:
        made = chart.render(yaml.safe_load(values), name="core", namespace="slingshot")
    deployment = made["slingshot-core/templates/deployment.yaml"]
    assert "--model=general=/models/general" in deployment
    (container,) = yaml.safe_load(deployment)["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}, "2.7B do not load in 4Gi"


def test_the_adapter_serves_the_figure_that_pods_are_added_by() -> None:
    (rules,) = re.findall(r"^  (rules:\n(?:    .*\n)+)", README, re.MULTILINE)
    (rule,) = yaml.safe_load(rules)["rules"]
    assert set(rule) == {"seriesQuery", "resources", "metricsQuery"}, "without a name it is the series'"
    values = {"access": {"open": True}, "autoscaling": {"enabled": True}}
    with helm.Chart.load(DEPLOY / "helm/slingshot-core") as chart:
        made = chart.render(values, name="core", namespace="slingshot")
    (metric,) = yaml.safe_load(made["slingshot-core/templates/horizontalpodautoscaler.yaml"])["spec"]["metrics"]
    assert metric["type"] == "Pods"
    assert rule["seriesQuery"].partition("{")[0] == metric["pods"]["metric"]["name"]
    assert rule["resources"]["overrides"] == {name: {"resource": name} for name in ("namespace", "pod")}


def test_the_authority_of_agents_is_where_the_server_is_told_that_it_is() -> None:
    unit = DEPLOY / "systemd/slingshot-core.service"
    handed_over = re.findall(r"^LoadCredential=([\w.]+):", unit.read_text(), re.MULTILINE)
    mounted = [secret["target"] for secret in services()["core"]["secrets"]]
    told = re.findall(r"--client-ca[ =]([\w./-]+)/ca\.pem`", README)
    assert told == [f"/run/credentials/{unit.name}", "/run/secrets"]
    assert "ca.pem" in handed_over
    assert "ca.pem" in mounted


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{.*?\}", "1", COMPOSE))["services"]
    return found


def test_variables_and_services_are_those_of_the_compose_file() -> None:
    named = set(re.findall(r"^\| `(\w+)=", README, re.MULTILINE)) | set(re.findall(r'echo "(\w+)=', README))
    assert named == set(re.findall(r"\$\{(\w+)", COMPOSE))
    assert set(re.findall(r"docker compose (?:run (?:--[\w-]+ )*|exec )(\w+)", README)) <= set(services())


def test_the_folders_that_are_made_are_those_that_are_mounted() -> None:
    (made,) = re.findall(r"local/\{([\w,]+)\}", README)
    assert set(re.findall(r"\./local/([\w-]+)(?![\w.-])", COMPOSE)) == set(made.split(","))


def test_what_pip_is_told_is_in_files_that_are_made() -> None:
    (made,) = re.findall(r"^touch (.*)$", README, re.MULTILINE)
    assert set(re.findall(r"\./(local/pip-\w+\.conf)", COMPOSE)) == set(made.split())
