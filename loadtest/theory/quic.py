"""Round trips of QUIC (RFC 9000, RFC 9001), and responses delayed by loss on separate streams or on a single one.

Data in a lost packet is delayed until it is retransmitted.  QUIC delivers each stream independently; TCP delivers a
single stream in order, so that all data after the gap is delayed as well.
"""


def round_trips(*, early: bool = False, moved: bool = False) -> int:
    """Return the round trips until the first byte of a response.

    Args:
        early: whether the request is sent as early data (0-RTT) with the first packet.
        moved: whether the connection is already open and the client has just changed its address.
    """
    return 1 if early or moved else 2


def delayed_alone(loss: float, packets: int = 1) -> float:
    """Return the share of delayed responses if each has *packets* packets and does not wait for other responses."""
    return 1 - (1 - loss) ** packets


def delayed_in_order(loss: float, responses: int) -> float:
    """Return the share of delayed responses if *responses* responses of one packet each share one ordered stream.

    The i-th response is delayed if any of the first i packets is lost.
    """
    return 1 - sum((1 - loss) ** i for i in range(1, responses + 1)) / responses


def delayed_pages(loss: float, responses: int) -> float:
    """Return the share of delayed pages if each needs *responses* packets; it is the same for every protocol."""
    return delayed_alone(loss, responses)
