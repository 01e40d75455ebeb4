"""Test that the running lab exports every metric that the alerts and dashboard in `lab/observability` query."""

import pytest

from tests.observability.test_observability import metrics
from tests.system.conftest import Shell

pytestmark = pytest.mark.system


def test_the_lab_serves_every_metric_of_the_alerts_and_the_dashboard(shell: Shell) -> None:
    shell.lab.call("client", "POST", "/admin/trace", {"url": "https://www.example.com/"}, timeout=60.0)
    served = {
        line.split()[2]
        for host in shell.lab.topology.always
        for line in str(shell.lab.call(host.name, "GET", "/metrics")).splitlines()
        if line.startswith("# TYPE ")
    }
    assert metrics() - served == set()
