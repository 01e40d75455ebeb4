"""Tests for kernel counters and the recorder on the admin port."""

import pytest

from linuxnet.recorder import Recorder
from telemetry import AdminError, Request
from telemetry.kernel import RecorderApi


@pytest.mark.parametrize(
    "body", [b'{"hz": 0.5, "more": 1}', b'{"hz": "fast"}', b'{"seconds": 1e9}', b'{"sockets": {"port": 1}}', b"[]"]
)
async def test_a_malformed_recorder_request_is_refused(body):
    with pytest.raises(AdminError) as refused:
        await RecorderApi(Recorder()).post(Request("POST", "/admin/recorder", body=body))
    assert refused.value.status == 400
