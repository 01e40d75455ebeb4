"""Model of QUIC's round trips (RFC 9000, RFC 9001), and of the responses that a lost packet delays.

A page is a number of responses, of one packet each, that are requested at the same time.  Data in a lost packet is
delayed until it is retransmitted.  QUIC delivers each stream independently; TCP delivers a single stream in order, so
that all data after the gap is delayed as well.
"""

import math


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


def delayed_by_one(responses: int, *, in_order: bool) -> float:
    """Return the mean number of responses in a page that one lost packet delays.

    Args:
        responses: number of responses in the page.
        in_order: whether all responses share one ordered stream.
    """
    return (responses + 1) / 2 if in_order else 1.0


def page_deviation(loss: float, responses: int, *, in_order: bool) -> float:
    """Return the standard deviation of the share of delayed responses in one page.

    Divided by the square root of the number of pages, this is the standard error of the share measured over the pages.
    """
    if not in_order:
        return math.sqrt(loss * (1 - loss) / responses)
    # The first lost packet is the k-th with probability (1 - loss)^(k - 1) * loss.
    square = sum(loss * (1 - loss) ** (k - 1) * ((responses - k + 1) / responses) ** 2 for k in range(1, responses + 1))
    return math.sqrt(square - delayed_in_order(loss, responses) ** 2)
