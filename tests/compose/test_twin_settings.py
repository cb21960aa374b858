"""Whoever moves between the twin and the containers changes no setting: same ports, names, keys and hubs."""

from __future__ import annotations

import json
from typing import Any

import yaml

from tests.compose.conftest import ROOT
from twin.services.settings import (
    DATABASE,
    DATABASE_PASSWORD,
    DATABASE_USER,
    HUBS,
    STORAGE_ACCOUNT,
    STORAGE_KEY,
    TwinSettings,
)

# What runs in containers only, on the ports that its users expect.
ONLY_HERE = {"prometheus": 9090, "grafana": 3000, "node-exporter": 9100}
INSIDE = {"blob": 10000, "queue": 10001, "table": 10002, "amqp": 5672, "postgres": 5432, "mlflow": 5000}


def published(compose: dict[str, Any]) -> dict[str, dict[int, tuple[str, int]]]:
    """Service to {container port: (address, host port)}."""
    ports: dict[str, dict[int, tuple[str, int]]] = {}
    for name, service in compose["services"].items():
        for entry in service.get("ports", []):
            address, host, inside = entry.split(":")
            ports.setdefault(name, {})[int(inside)] = (address, int(host))
    return ports


def test_ports_are_loopback_only_and_unique(compose: dict[str, Any]) -> None:
    entries = [entry for ports in published(compose).values() for entry in ports.values()]
    assert {address for address, _ in entries} == {"127.0.0.1"}
    assert len({port for _, port in entries}) == len(entries)


def test_ports_are_those_of_the_twin(compose: dict[str, Any]) -> None:
    ports, twin = published(compose), TwinSettings().ports()
    for listener, service in {**dict.fromkeys(("blob", "queue", "table"), "azurite"), "amqp": "eventhubs"}.items():
        assert ports[service][INSIDE[listener]][1] == twin[listener], listener
    for service in ("postgres", "mlflow"):
        assert ports[service][INSIDE[service]][1] == twin[service]
    for service, port in ONLY_HERE.items():
        assert [host for _, host in ports[service].values()] == [port]
        assert port not in twin.values()


def test_ports_follow_the_variables_of_the_twin(raw_compose: dict[str, Any]) -> None:
    entries = {entry for service in raw_compose["services"].values() for entry in service.get("ports", [])}
    for listener, inside in INSIDE.items():
        default = TwinSettings().ports()[listener]
        assert f"127.0.0.1:${{TWIN_PORT_{listener.upper()}:-{default}}}:{inside}" in entries


def test_database_is_that_of_the_twin(compose: dict[str, Any]) -> None:
    environment = compose["services"]["postgres"]["environment"]
    assert environment["POSTGRES_DB"] == DATABASE
    assert environment["POSTGRES_USER"] == DATABASE_USER
    assert environment["POSTGRES_PASSWORD"] == DATABASE_PASSWORD


def test_mlflow_stores_in_postgres_and_azurite(compose: dict[str, Any]) -> None:
    service = compose["services"]["mlflow"]
    command = " ".join(service["command"])
    assert f"postgresql://{DATABASE_USER}:{DATABASE_PASSWORD}@postgres:5432/mlflow" in command
    assert f"wasbs://mlflow@{STORAGE_ACCOUNT}.blob.core.windows.net/" in command
    connection = service["environment"]["AZURE_STORAGE_CONNECTION_STRING"]
    assert f"AccountKey={STORAGE_KEY};" in connection
    assert f"BlobEndpoint=http://azurite:10000/{STORAGE_ACCOUNT};" in connection
    assert compose["services"]["mlflow-container"]["command"][-1] == "mlflow"
    assert "CREATE DATABASE mlflow;" in (ROOT / "monitoring/postgres/mlflow.sql").read_text(encoding="utf-8")


def test_hubs_of_the_emulator_are_those_of_the_twin() -> None:
    document = json.loads((ROOT / "monitoring/eventhubs/Config.json").read_text(encoding="utf-8"))
    (namespace,) = document["UserConfig"]["NamespaceConfig"]
    # The emulator takes this name only (EventHub-Emulator/Schema of Azure/azure-event-hubs-emulator-installer).
    assert namespace["Name"] == "emulatorNs1"
    found = {
        entity["Name"]: (int(entity["PartitionCount"]), tuple(group["Name"] for group in entity["ConsumerGroups"]))
        for entity in namespace["Entities"]
    }
    assert found == dict(HUBS)
    assert len(found) <= 10
    assert all(isinstance(entity["PartitionCount"], str) for entity in namespace["Entities"])


def test_emulator_keeps_its_metadata_in_azurite(compose: dict[str, Any]) -> None:
    environment = compose["services"]["eventhubs"]["environment"]
    assert environment == {"ACCEPT_EULA": "Y", "BLOB_SERVER": "azurite", "METADATA_SERVER": "azurite"}


def test_prometheus_scrapes_the_machine_and_the_drift_app(compose: dict[str, Any]) -> None:
    document = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in document["scrape_configs"]}
    assert jobs["node"]["static_configs"][0]["targets"] == ["node-exporter:9100"]
    assert jobs["tollgate"]["metrics_path"] == "/api/metrics"
    assert jobs["tollgate"]["static_configs"][0]["targets"] == [f"host.docker.internal:{TwinSettings().drift}"]
    assert "host.docker.internal:host-gateway" in compose["services"]["prometheus"]["extra_hosts"]
    mounted = dict(mount.split(":")[:2] for mount in compose["services"]["prometheus"]["volumes"])
    assert document["rule_files"] == [mounted["./monitoring/prometheus/alerts.yml"]]


def test_grafana_finds_prometheus() -> None:
    folder = ROOT / "monitoring/grafana/provisioning"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yml").read_text(encoding="utf-8"))["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    (provider,) = yaml.safe_load((folder / "dashboards/tollgate.yml").read_text(encoding="utf-8"))["providers"]
    assert provider["options"]["path"] == "/etc/grafana/provisioning/dashboards"
