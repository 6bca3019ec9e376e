"""What separates the fields of a CSV file. Pure."""

from __future__ import annotations

#: In the order in which they are preferred.
SEPARATORS = (",", ";", "\t", "|")


def separator_of(head: bytes) -> str:
    r"""The separator in the header line that a file begins with; a comma if there is none.

    Examples
    --------
    >>> separator_of(b"Unieknr;Geslacht;Gebdat\r1;M;1960")
    ';'
    """
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff\r\n")
    line = text.splitlines()[0] if text else ""
    outside = "".join(line.split('"')[::2])
    return max(SEPARATORS, key=outside.count)
