"""Fixtures: a real broker process per test file, a certificate and token authority, and Azurite."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.broker.support import ROOT, Authority, Azurite, BrokerProcess, until
from tests.conftest import free_ports


@pytest.fixture(scope="module")
def start_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., BrokerProcess]]:
    """Start brokers with given settings; all end with the test file."""
    brokers: list[BrokerProcess] = []

    def start(**overrides: object) -> BrokerProcess:
        made = BrokerProcess(tmp_path_factory.mktemp("broker"), overrides)
        brokers.append(made)
        return made.start()  # not the last of the list: several threads start brokers

    yield start
    for running in brokers:
        if running.process is not None:
            assert running.stop() == 0, running.log()
        # A traceback in the log is a fault even where every assertion held.
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture(autouse=True)
def collect_leaks() -> Iterator[None]:
    """Let sockets that the SDK leaves open on a broken connection be found within the test that broke it."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def broker(start_broker: Callable[..., BrokerProcess]) -> BrokerProcess:
    """The broker of this test file."""
    return start_broker()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A real Azurite on a free port, blobs only."""
    directory = tmp_path_factory.mktemp("azurite")
    binary = ROOT / "twin/node/node_modules/.bin/azurite-blob"
    assert binary.exists(), "Azurite is not installed: run `make setup`"
    port = free_ports(1)[0]
    command = [str(binary), "--blobPort", str(port), "--location", str(directory), "--silent", "--skipApiVersionCheck"]
    command += ["--loose"]
    with (directory / "azurite.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "NODE_NO_WARNINGS": "1"})
    try:

        def answers() -> bool:
            assert process.poll() is None, (directory / "azurite.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        until(answers, "Azurite listens")
        key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
        yield Azurite(
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    finally:
        # Asked politely, Azurite waits for idle connections of its clients; its folder goes with the test anyway.
        process.kill()
        process.wait(20)
