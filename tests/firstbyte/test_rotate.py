"""Tests for ``firstbyte pki rotate``: which hosts are not ready for the next step."""

import pytest

from firstbyte.rotate import Peer, laggards

NEW, OLD = "CN=issuing CA 2", "CN=issuing CA 1"


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (Peer("edge", 2, (NEW, NEW)), None),
        (Peer("edge", 3, (NEW,)), None),
        (Peer("edge", 1, (NEW,)), "trusts bundle 1, expected 2"),
        (Peer("edge", 2, (NEW, OLD)), f"presents a certificate of {OLD}"),
        (Peer("edge", 2, ("none yet",)), "presents a certificate of none yet"),
        (Peer("edge", 0, (), "does not answer"), "does not answer"),
    ],
    ids=["ready", "ahead", "trusts-old-roots", "one-old-certificate", "no-certificate", "silent"],
)
def test_a_host_that_is_not_ready_is_named_with_the_reason(peer: Peer, reason: str | None) -> None:
    ready = Peer("news", 2, (NEW,))
    assert laggards([ready, peer], 2, NEW) == ({} if reason is None else {"edge": reason})
