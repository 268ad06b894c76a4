"""The commands of deploy/README.md are those of the programs and files that there are."""

from __future__ import annotations

import re
import shlex

import helm_python as helm
import pytest
import yaml

from core_server.access_cli import _parser
from tests.deploy.deployment import DEPLOY

README = (DEPLOY / "README.md").read_text()
COMPOSE = (DEPLOY / "compose.yaml").read_text()


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (DEPLOY / link).exists()] == []


@pytest.mark.parametrize(
    "command", re.findall(r"(?:core-server|access) ((?:keys|certs) create .*?)(?: > .*)?\n", README)
)
def test_keys_and_certificates_are_made_like_that(command: str) -> None:
    _parser().parse_args(shlex.split(command))


def test_the_cluster_s_values_are_values_of_the_chart() -> None:
    (values,) = re.findall(r"<<END\n(.*?)END\n", README, re.DOTALL)
    with helm.Chart.load(DEPLOY / "helm/slingshot-core") as chart:
        made = chart.render(yaml.safe_load(values), name="core", namespace="slingshot")
    assert "--model=general=/models/general" in made["slingshot-core/templates/deployment.yaml"]


def test_variables_and_services_are_those_of_the_compose_file() -> None:
    named = set(re.findall(r"^\| `(\w+)=", README, re.MULTILINE)) | set(re.findall(r'echo "(\w+)=', README))
    assert named == set(re.findall(r"\$\{(\w+)", COMPOSE))
    services = yaml.safe_load(re.sub(r"\$\{.*?\}", "1", COMPOSE))["services"]
    assert set(re.findall(r"docker compose (?:run (?:--[\w-]+ )*|exec )(\w+)", README)) <= set(services)


def test_the_folders_that_are_made_are_those_that_are_mounted() -> None:
    (made,) = re.findall(r"local/\{([\w,]+)\}", README)
    assert set(re.findall(r"\./local/(\w+)", COMPOSE)) == set(made.split(","))
