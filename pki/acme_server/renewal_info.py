"""Suggested renewal windows (RFC 9773), without HTTP."""

from authority import Certificate, Recall

#: Suggested renewal window, as fractions of the lifetime.  It starts when clients renew by default, so that following
#: the suggestion does not shorten the time for which a certificate is used.
SUGGESTED = (2 / 3, 2 / 3 + 0.04)
#: Duration of the suggested renewal window after a change of the issuing CA, as a fraction of the leaf's lifetime.
MOVING = 0.1
#: Retry-After in responses with renewal information: as a fraction of the certificate's lifetime (six hours of 47
#: days), and its minimum in seconds.
ASK_AGAIN, MIN_ASK_AGAIN = 6 / (47 * 24), 1


def window(
    certificate: Certificate, moved: float | None = None, recall: Recall | None = None
) -> tuple[float, float, str]:
    """Return start and end of the suggested window in seconds since the epoch, and the URL that explains it, if any.

    The window is at two thirds of the certificate's lifetime.  A recall replaces it with an earlier one.  For a revoked
    certificate, the window is in the past.

    Args:
        certificate: an issued certificate.
        moved: for a certificate of the previous issuing CA, the time when the CA changed: the window begins then.
        recall: the operator's recall of the certificate, if there is one.
    """
    life, url = certificate.not_after - certificate.issued, ""
    start, end = (certificate.issued + share * life for share in SUGGESTED)
    if moved is not None:
        start, end = moved, moved + MOVING * life
    if recall is not None and recall.start < start:
        start, end, url = recall.start, recall.end, recall.url
    if certificate.revoked is not None:
        start, end = certificate.revoked - 1, certificate.revoked
    return start, end, url


def ask_again(certificate: Certificate) -> int:
    """Return how long a client should wait before it asks for the window again, in seconds."""
    return max(MIN_ASK_AGAIN, round((certificate.not_after - certificate.issued) * ASK_AGAIN))
