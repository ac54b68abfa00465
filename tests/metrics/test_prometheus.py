"""What Prometheus itself makes of it, and a registry of prometheus_client."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from contextlib import closing, contextmanager

import pytest
from haproxy import free_ports
from programs import missing, tool
from support import PATIENCE, own_host, running, wait_for

import pysock
from pysock.metrics import Collector, Exporter, Family, Page, Source

CONFIGURATION = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs: [{{job_name: shop, static_configs: [{{targets: ["{target}"]}}]}}]
"""


@contextmanager
def prometheus(directory, target):
    """A Prometheus that scrapes this target. -> ``query(expression)``: value by labels."""
    (directory / "prometheus.yml").write_text(CONFIGURATION.format(target=target))
    host = own_host()
    at = f"{host}:{free_ports(host, 1)[0]}"
    command = [tool("prometheus"), "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    process = subprocess.Popen(
        [*command, f"--web.listen-address={at}"], cwd=directory, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )

    def query(expression):
        assert process.poll() is None, process.stderr.read().decode()
        try:
            url = f"http://{at}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:  # it starts
            return {}
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in found}

    try:
        yield query
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_prometheus_scrapes_it(unix_address, tmp_path):
    """And computes of it what people want to see."""
    server = pysock.Server(unix_address)
    server.service('a "quoted" name')(lambda client, request: request)
    with Exporter(server, f"{own_host()}:0") as exporter, running(server), pysock.connect(unix_address) as client:
        client.request_many([b"x"] * 100, 'a "quoted" name')
        with prometheus(tmp_path, str(exporter.address).removeprefix("tcp://")) as query:
            counts = wait_for(lambda: query("sum by (service, code) (pysock_requests_total)"), "a scrape", timeout=30)
            assert counts == {(("code", "OK"), ("service", 'a "quoted" name')): 100}
            assert query("up{job='shop'} * on(instance) pysock_worker_up").values()
            (half,) = query("histogram_quantile(0.5, sum by (le) (pysock_request_seconds_bucket))").values()
            assert 0 < half < 1
            (kind,) = query("pysock_build_info")
            assert dict(kind)["backend"] == server.backend


@pytest.fixture
def registry():
    try:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415
    except ImportError:
        missing("prometheus_client isn't installed: the Collector wasn't tried")
    return CollectorRegistry()


def test_a_registry_has_it_among_its_own(make_server, unix_address, registry):
    server = make_server(unix_address)
    server.service("echo")(lambda client, request: request)
    registry.register(Collector(server, extra=lambda: [Family("shop_open", "Whether.", "gauge", [("", {}, 1)])]))
    assert registry.get_sample_value("pysock_worker_up") == 0
    labels = {"service": "echo", "code": "OK"}
    with running(server), pysock.connect(unix_address) as client:
        client.request_many([b""] * 10, "echo")
        wait_for(lambda: registry.get_sample_value("pysock_requests_total", labels) == 10, "the page to be written")
        assert registry.get_sample_value("pysock_request_seconds_count", {"service": "echo"}) == 10
        assert registry.get_sample_value("pysock_worker_up") == 1
        assert registry.get_sample_value("shop_open") == 1
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector(server))


def test_registering_reads_nothing(registry):
    def sources():
        raise AssertionError

    registry.register(Collector(sources))


def test_several_workers_in_a_registry(registry):
    with closing(Page.new()) as page:
        page.lay_out(["echo"], "pure")
        registry.register(Collector(lambda: [Source(page.read, "0"), Source(page.read, "1", up=False)]))
        assert registry.get_sample_value("pysock_worker_up", {"worker": "0"}) == 1
        assert registry.get_sample_value("pysock_worker_up", {"worker": "1"}) == 0


def test_without_prometheus_client_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client.metrics_core", None)
    with pytest.raises(ImportError, match=r"pip install 'pysock-engine\[prometheus\]'"):
        Collector(list)
