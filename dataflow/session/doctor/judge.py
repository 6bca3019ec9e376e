"""Judge: what answers mean. No question is asked here; facts come in, findings go out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from dataflow._quantities import format_bytes, format_seconds
from dataflow.client.look import Look, Step
from dataflow.errors import SiteError
from dataflow.session.doctor.checks import Finding, failed, ok, warning
from dataflow.versions import as_table, differences, incompatible

#: Seconds that two clocks may be apart; and at which an S3 service refuses what is signed.
CLOCK_SECONDS, SIGNED_SECONDS = 2.0, 900.0

#: Bytes that should be free.
LEAST_FREE = 1_000_000_000

#: Seconds for an answer that make every step of a job slow.
SLOW_SECONDS = 1.0

_GATEWAYS = (502, 503, 504)

#: What an S3 service calls it when it says no, and what helps.
_S3_ADVICE = {
    "InvalidAccessKeyId": "this service does not know the access_key_id; make the credential anew",
    "SignatureDoesNotMatch": "the secret_access_key is not that of the access_key_id, or region: "
    "is wrong",
    "RequestTimeTooSkewed": "set this machine's clock (timedatectl set-ntp true)",
    "NoSuchBucket": "make the bucket, or mend url: in the site file; path_style: true may be needed",
    "AccessDenied": "have the owner of the bucket allow listing, reading, writing and deleting",
    "PermanentRedirect": "the bucket is in another region: say it in options: {region: ...}",
    "ExpiredToken": "the session_token has expired; make the credential anew",
}


def clock(ahead: tuple[float, float] | None, *, signed: bool = False) -> Finding:
    """Another clock beside ours; ``ahead`` are the least and most seconds by which it leads.

    With ``signed``, as for a service that refuses requests whose time is too far from its own.
    """
    if ahead is None:
        return warning("it does not tell its time", "a proxy may take the Date header away")
    least, most = ahead
    apart = max(least, -most, 0.0)
    way = "ahead of" if least > 0 else "behind"
    if apart <= CLOCK_SECONDS:
        return ok(f"within {CLOCK_SECONDS:g} s of ours")
    said = f"at least {format_seconds(apart)} {way} ours"
    advice = "set both clocks by NTP (timedatectl shows whether they are)"
    if signed and apart > SIGNED_SECONDS:
        return failed(f"{said}: signed requests are refused", advice)
    return warning(said, advice)


def space(free: int) -> Finding:
    """Bytes that are free where something is to be written."""
    if free < LEAST_FREE:
        advice = (
            f"make room: results, copies and what workers spill need {format_bytes(LEAST_FREE)}"
        )
        return warning(f"only {format_bytes(free)} free", advice)
    return ok(f"{format_bytes(free)} free")


def latency(seconds: float) -> Finding:
    """Time of one question and its answer."""
    said = f"{seconds * 1000:.0f} ms for a question and its answer"
    if seconds > SLOW_SECONDS:
        return warning(said, "everything at this site will feel slow; look at the way there")
    return ok(said)


def agreement(ours: Mapping[str, str], theirs: Mapping[str, str], site: str) -> Finding:
    """Versions of what must be the same here and there."""
    rows = differences(ours, theirs)
    if not rows:
        return ok(f"python {ours.get('python', '?')} and packages as here")
    table = as_table(rows, "here", site)
    wrong = incompatible(ours, theirs)
    if wrong:
        said = f"other versions of {' and '.join(wrong)} than here\n{table}"
        return failed(said, f"install the same {' and '.join(wrong)} here and at {site}")
    return warning(f"some versions differ\n{table}", "make them the same if results surprise you")


def no_answer(step: Step, reason: str, address: str, *, pinned: bool = False) -> Finding:
    """Nothing came back from an address; ``pinned``: one certificate alone is believed there."""
    if step == "tls" and pinned:
        return failed(
            f"TLS: {reason}",
            "who answers must have the key of the file in certificate: (ask its owner for the output of "
            "dataflow agent --certificate), and may have to know our certificate",
        )
    if step == "tls":
        return failed(
            f"TLS: {reason}",
            "the certificate must name this host, be valid today, and be signed by somebody whom "
            "this machine trusts (SSL_CERT_FILE names a file of such)",
        )
    if step == "connect":
        port = urlsplit(address).netloc or address
        return failed(
            f"no connection: {reason}",
            f"is the agent running there, and is {port} what it listens on? a firewall may be "
            "between; sites without an open port are reached by ssh://",
        )
    return failed(
        f"connected, but no answer: {reason}",
        "the agent may hang, or something else listens there; look at its log",
    )


def health(look: Look) -> Finding:
    """The answer to the one question that anybody may ask an agent."""
    if look.status == 200 and isinstance(look.document, dict) and "status" in look.document:
        return ok("an agent answers")
    if look.status in _GATEWAYS:
        return failed(
            f"HTTP {look.status}: a proxy answers, the agent behind it does not",
            "start the agent there (dataflow agent --config site.yaml), or mend the proxy",
        )
    return failed(
        f"HTTP {look.status}: what answers is no agent",
        "mend address: in the site file; if it is right, the agent there is of another version",
    )


def token(look: Look, *, shown: str) -> Finding:
    """The answer to a question that needs a token; ``shown`` names the credential, if there is one."""
    if look.status == 200 and isinstance(look.document, dict) and "site" in look.document:
        return ok(f"{shown} is accepted" if shown else "none is needed")
    words = _words(look)
    if look.status == 401 and not shown:
        return failed(
            f"401: a token is needed, and none is known for this address ({words})",
            "ask its administrator for one; put it into the credentials file, and its name into "
            "credentials: of this site",
        )
    if look.status == 401:
        return failed(
            f"401: {shown} is not accepted ({words})",
            "ask its administrator for a new token, and put it in the place of the old one",
        )
    if look.status == 403:
        return failed(
            f"403: {shown or 'nobody'} is known there but may not look ({words})",
            "ask its administrator for another role in its token file",
        )
    if look.status == 404:
        return failed(
            "404: the agent there does not know this question",
            "it is of another version: install the same dataflow here and there",
        )
    return failed(f"HTTP {look.status} ({words})", "look at the log of the agent there")


def name(found: str, wanted: str | None) -> Finding:
    """What a site calls itself, beside what the site file calls it."""
    if wanted is None or found == wanted:
        return ok(f"it calls itself {found}")
    return failed(
        f"it calls itself {found}, the site file says {wanted}",
        f"write name: {found}, or mend its address:",
    )


def login(error: SiteError) -> Finding:
    """Why a login host does not let us in, or does not answer."""
    reason = str(error.args[-1])
    host = f"ssh {error.args[0]}"
    if found := re.search(r"\bssh ([\w.@-]+)$", reason):
        host = f"ssh {found[1]}"
    reason = re.sub(r"; (connect once|try) [^;]*$", "", reason)
    advice = {
        "HostKeyNotVerifiable": f"connect once with {host}, compare the key with what the "
        "administrator tells you, and accept it",
        "FileNotFoundError": f"connect once with {host}, which makes that file",
        "PermissionDenied": f"try {host}; your public key must be in ~/.ssh/authorized_keys there, "
        "and the private one here, or in your SSH agent",
        "gaierror": "mend address:, or give the host a HostName in ~/.ssh/config",
    }.get(
        type(error.__cause__).__name__,
        "is the host up, and the port right? try ssh by hand; a jump host belongs in ~/.ssh/config",
    )
    return failed(reason, advice)


def memory(workers: int, each: int, total: int) -> Finding:
    """Memory of all workers beside that of their machine."""
    wanted = workers * each
    said = (
        f"{workers} x {format_bytes(each)} for workers, the machine has {format_bytes(total)}"
        if workers
        else "no workers here"
    )
    if wanted > total:
        return warning(said, "lower workers: or memory:, or the system may kill them")
    return ok(said)


def threads(workers: int, each: int, cores: int) -> Finding:
    """Threads of all workers beside the cores of their machine."""
    said = f"{workers} x {each} threads on {cores} cores"
    if workers * each > 2 * cores:
        return warning(
            said, "more threads than cores make nothing faster; lower workers: or threads:"
        )
    return ok(said)


def store_error(text: str) -> str:
    """What helps against an error of an S3 service, as far as its words are known."""
    found = re.search(r"<Code>(\w+)</Code>", text)
    code = found[1] if found else next((code for code in _S3_ADVICE if code in text), "")
    return _S3_ADVICE.get(code, "look at url:, credentials: and options: of this store")


def _words(look: Look) -> str:
    said = look.document.get("args") if isinstance(look.document, dict) else None
    return str(said[-1]) if isinstance(said, list) and said else "no more was said"
