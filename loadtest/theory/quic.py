"""Round trips of QUIC (RFC 9000, RFC 9001), and responses that a lost packet delays, on streams of their own or on one.

A packet that is lost delays the data in it until it has been sent again.  QUIC delivers each stream by itself; TCP
delivers one stream in order, so that everything behind the gap waits as well.
"""


def round_trips(*, early: bool = False, moved: bool = False) -> int:
    """Return the round trips until the first byte of a response.

    Args:
        early: whether the request is sent as early data (0-RTT) with the first packet.
        moved: whether the connection is open already, and the client has just changed its address.
    """
    return 1 if early or moved else 2


def delayed_alone(loss: float, packets: int = 1) -> float:
    """Return the share of responses that are delayed if each consists of *packets* packets and waits for no other."""
    return 1 - (1 - loss) ** packets


def delayed_in_order(loss: float, responses: int) -> float:
    """Return the share of responses that are delayed if *responses* of one packet each arrive in order on one stream.

    The i-th of them waits if any of the first i packets is lost.
    """
    return 1 - sum((1 - loss) ** i for i in range(1, responses + 1)) / responses


def delayed_pages(loss: float, responses: int) -> float:
    """Return the share of pages that are delayed if a page needs *responses* packets: the same for every protocol."""
    return delayed_alone(loss, responses)
