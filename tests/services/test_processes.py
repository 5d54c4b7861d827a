"""What a process declares is what the rest of the repository says of it: one more process is one declaration."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

from projections.registry import PROJECTIONS
from services.app import SERVICES
from services.bus.streams import STREAMS
from services.metrics import SHOWN_CHECKPOINTS
from services.runtime.service import Replication, Service
from services.store.interface import Lock, PartitionLeases
from services.store.postgres import PROJECTION_WRITERS, ROLES

ROOT = Path(__file__).parents[2]
DECLARED = list(SERVICES.values())
WITH_A_ROLE = [service for service in DECLARED if service.needs_store and not service.only_reads]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def read_row(service: type[Service]) -> str:
    """The row of a process in the first table of docs/operations.md."""
    (row,) = (
        line for line in read("docs/operations.md").splitlines() if line.startswith(f"| `sla run {service.name}` |")
    )
    return row


@pytest.mark.parametrize("service", DECLARED, ids=list(SERVICES))
def test_the_operations_page_says_what_a_process_does_and_how_copies_share_its_work(service: type[Service]) -> None:
    row = read_row(service)
    assert service.summary in row
    words = {
        Replication.LEADER: "the second",
        Replication.PARTITION_LEASES: "share the partitions",
        Replication.INDEPENDENT: "yes",
    }
    assert words[service.replication] in row.rsplit("|", 2)[1]


@pytest.mark.parametrize("service", DECLARED, ids=list(SERVICES))
def test_what_is_declared_exists(service: type[Service]) -> None:
    assert set(service.streams) <= {config.name for config in STREAMS}
    assert set(service.projections) <= set(PROJECTIONS)
    assert service.needs_store or not service.projections


def test_every_projection_is_kept_up_to_date_by_a_process() -> None:
    assert {projection for service in DECLARED for projection in service.projections} == set(PROJECTIONS)


@pytest.mark.parametrize("service", DECLARED, ids=list(SERVICES))
def test_a_leader_has_a_lock_and_who_shares_partitions_has_leases(service: type[Service]) -> None:
    kinds = {parameter.annotation for parameter in inspect.signature(service).parameters.values()}
    assert (Lock in kinds) == (service.replication is Replication.LEADER)
    assert (PartitionLeases in kinds) == (service.replication is Replication.PARTITION_LEASES)


def test_each_process_that_writes_the_store_has_a_role_of_postgresql() -> None:
    names = {f"sla_{service.name}" for service in WITH_A_ROLE}
    assert names | {"sla_reader"} == set(ROLES)
    assert set(PROJECTION_WRITERS) == {f"sla_{service.name}" for service in WITH_A_ROLE if service.projections}
    created = set(re.findall(r"CREATE ROLE (\w+)", read("deploy/postgres/roles.sql")))
    assert created == {"sla_owner", *ROLES}
    secrets = re.search(r"for role in ([a-z ]+); do", read("deploy/make-secrets"))
    assert secrets and {f"sla_{name}" for name in secrets[1].split()} == created
    documented = read("docs/operations.md")
    assert all(f"`{role}`" in documented for role in created)


def test_the_metrics_show_each_checkpoint_in_the_log() -> None:
    projections = {projection.name for projection in PROJECTIONS if projection.source == "log"}
    assert set(SHOWN_CHECKPOINTS) == projections | {each.checkpoint for each in DECLARED if each.checkpoint}


def test_each_process_has_a_container_and_is_scraped() -> None:
    containers = yaml.safe_load(read("docker-compose.yml"))["services"]
    run = {name: each["command"][1] for name, each in containers.items() if each.get("command", [""])[0] == "run"}
    assert set(run.values()) == set(SERVICES)
    scraped = set(re.findall(r'"([\w-]+):8080"', read("deploy/prometheus/prometheus.yml")))
    assert scraped == set(run)


def test_each_process_has_a_user_of_nats_that_may_look_at_its_streams() -> None:
    users = {
        match[1]: match[0]
        for match in re.finditer(r"user: (\w+),.*?(?=user: |\Z)", read("deploy/nats/nats.conf"), flags=re.DOTALL)
    }
    for service in DECLARED:
        for stream in service.streams:
            assert f"$JS.API.STREAM.INFO.{stream}" in users[service.name], (service.name, stream)
        assert service.name in read("README.md")
