"""Dashboard, alerts and runbook speak of figures that there are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from core_server.observability.metrics import ENDS, REASONS
from core_server.observability.observation import Observation
from ssd2 import errors
from tests.deploy.deployment import ran

HERE = Path(__file__).parent
DEPLOY = HERE.parents[1] / "deploy"
OBSERVABILITY = DEPLOY / "observability"
DASHBOARD: dict[str, Any] = json.loads((OBSERVABILITY / "dashboard.json").read_text())
ALERTS = [
    rule for group in yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
PROMETHEUS: dict[str, Any] = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
RUNBOOK = (DEPLOY / "runbook.md").read_text()

EXPRESSIONS = {
    **{f"alert {rule['alert']}": rule["expr"] for rule in ALERTS},
    **{
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    },
    **{f"variable {v['name']}": v["query"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"},
}
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
LABELS = {"model", "key", "end", "reason", "direction", "engine", "le", "instance", "job"}


def families() -> dict[str, str]:
    return {family.name: family.type for family in Observation().metrics.collect()}


def exported() -> set[str]:
    return {name + suffix for name, kind in families().items() for suffix in SUFFIXES[kind]}


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_every_expression_is_of_figures_and_labels_that_there_are(expression: str) -> None:
    plain = re.sub(r'"[^"]*"', '""', expression)
    named = set(re.findall(r"\b(?:slingshot\w+|up)\b", plain))
    assert named
    assert named <= exported() | {"up"}
    matchers = {label for braces in re.findall(r"\{([^}]*)\}", plain) for label in re.findall(r"(\w+)\s*[=!]", braces)}
    grouped = {word for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", plain) for word in re.findall(r"\w+", group)}
    assert matchers | grouped <= LABELS
    for opening, closing in ("()", "{}", "[]"):
        assert plain.count(opening) == plain.count(closing)


@pytest.mark.parametrize(("label", "known"), [("end", ENDS), ("reason", REASONS)])
def test_every_end_and_reason_that_is_asked_for_can_come(label: str, known: tuple[str, ...]) -> None:
    asked = {
        value
        for expression in EXPRESSIONS.values()
        for values in re.findall(rf'\b{label}=~?"([^"]*)"', expression)
        for value in values.split("|")
    }
    assert asked
    assert asked <= set(known)


def test_every_figure_is_on_the_dashboard() -> None:
    shown = " ".join(EXPRESSIONS[name] for name in EXPRESSIONS if name.startswith("panel"))
    assert [name for name in families() if name not in shown] == []


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_section_in_the_runbook(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "runbook"}, "a runbook_url would have to be one"
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (DEPLOY.parent / page).is_file()
    assert anchor == rule["alert"].lower()
    assert anchor in anchors()
    assert rule["labels"]["severity"] in {"critical", "warning"}


def test_every_section_has_its_alert_and_speaks_of_figures_that_there_are() -> None:
    assert re.findall(r"^## (.+)$", RUNBOOK, re.MULTILINE) == [*(rule["alert"] for rule in ALERTS), "Without an alert"]
    assert set(re.findall(r"\bslingshot_\w+", RUNBOOK)) <= exported() | set(families())
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= anchors()
    for file in re.findall(r"\]\((?!#)([^)]+)\)", RUNBOOK):
        assert (DEPLOY / file).is_file()


def test_the_runbook_speaks_of_options_and_errors_that_there_are() -> None:
    from core_server.__main__ import _parser

    options = set(_parser()._option_string_actions)
    assert set(re.findall(r"`(--[\w-]+)", RUNBOOK)) <= options
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    assert set(re.findall(r"^- `(\w+_\w+)`", RUNBOOK, re.MULTILINE)) <= codes


def test_prometheus_reads_the_alerts_and_the_job_that_they_name() -> None:
    assert [(OBSERVABILITY / file).is_file() for file in PROMETHEUS["rule_files"]] == [True]
    assert [(OBSERVABILITY / file).is_file() for file in PROMETHEUS["scrape_configs"][0]["file_sd_configs"][0]["files"]]
    assert {job["job_name"] for job in PROMETHEUS["scrape_configs"]} == set(re.findall(r'job="([^"]+)"', str(ALERTS)))


def test_a_restart_is_seen_in_a_counter_that_is_there_from_the_start() -> None:
    (counter,) = re.findall(r"resets\((\w+)\{", EXPRESSIONS["alert CoreRestarts"])
    samples = [sample for family in Observation().metrics.collect() for sample in family.samples]
    assert [s.value for s in samples if s.name == counter and s.labels == {"direction": "up"}] == [0]


def test_a_core_that_is_on_no_list_any_more_is_one_that_is_down() -> None:
    assert 'absent(up{job="slingshot-core"})' in EXPRESSIONS["alert CoreDown"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")
def test_prometheus_finds_nothing_amiss() -> None:
    checked = ran("promtool", "check", "config", "--lint-fatal", OBSERVABILITY / "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")
def test_cores_that_end_are_told_of_and_those_that_are_restarted_on_purpose_are_not() -> None:
    tested = ran("promtool", "test", "rules", HERE / "alerts.test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_panels_lie_beside_each_other_and_load_nothing_from_elsewhere() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    assert "http" not in json.dumps(DASHBOARD)


def anchors() -> set[str]:
    return {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)}
