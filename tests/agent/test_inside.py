"""Invitations: good for the user of an order that runs, through a door that needs its key."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataflow.agent.auth import Identity, TokenFile
from dataflow.agent.inside import Inside, TakesGuests, guests_of
from dataflow.agent.issued import AnyOf, IssuedTokens, Revoked
from dataflow.client.forward import inner_tls
from dataflow.config.records import Issuer
from dataflow.errors import SiteRefused


class Guests:
    """Orders that run, by user."""

    inner_host = "127.0.0.1"

    def __init__(self) -> None:
        self.site = SimpleNamespace(name="uva")
        self.orders = {"j1:s1:1": "anna"}
        self.invite: Any = None

    def answered_by(self, invite: Any) -> None:
        self.invite = invite

    def underway(self, order: str) -> str | None:
        return self.orders.get(order)


ORDER: Any = SimpleNamespace(id="j1:s1:1", job="j1", user="anna")


def request(token: str) -> Any:
    return SimpleNamespace(headers={"authorization": f"Bearer {token}"})


async def _others(request: Any, /) -> Identity:
    return Identity(user="other", role="admin")


def test_a_token_is_good_while_its_order_runs() -> None:
    async def story() -> None:
        guests = Guests()
        assert isinstance(guests, TakesGuests)
        async with guests_of(guests, "http://127.0.0.1:9") as inside:
            assert inside is not None
            invitation = await guests.invite(ORDER)
            asked = inside.admits(_others)
            assert await asked(request(invitation.token)) == Identity(user="anna", role="user")
            assert (await asked(request("something"))).user == "other"
            mark, name, signature = invitation.token.split(".")
            for wrong in (
                f"{mark}.{name}.{signature[:-1]}x",
                f"{mark}.{name}",
                f"{mark}..{signature}",
                f"{mark}.é.{signature}",
                f"{mark}.",
            ):
                with pytest.raises(SiteRefused):
                    await asked(request(wrong))
            guests.orders.clear()
            with pytest.raises(SiteRefused):
                await asked(request(invitation.token))
            assert invitation.token not in repr(invitation)
            assert invitation.key not in repr(invitation)
        assert guests.invite is None

    asyncio.run(story())


def test_an_invitation_ends_with_its_user(tmp_path: Path) -> None:
    """Taken out of the file, or revoked; who was never in the file came by another site."""

    async def story() -> None:
        tokens, revoked = tmp_path / "tokens", tmp_path / "revoked"
        tokens.touch(mode=0o600)
        tokens.write_text("a-plain-token-of-anna anna user\na-plain-token-of-root root admin\n")
        issuer = Issuer(issuer="https://issuer.example", audience="uva")
        issued = IssuedTokens(issuer, "uva", Revoked(revoked))
        plain = TokenFile(tokens, "uva")
        guests = Guests()
        guests.orders["j2:s1:1"] = "eve"
        async with guests_of(guests, "http://127.0.0.1:9") as inside:
            assert inside is not None
            asked = inside.admits(AnyOf("uva", plain, [issued]))
            anna = request((await guests.invite(ORDER)).token)
            by_site = SimpleNamespace(id="j2:s1:1", job="j2", user="eve")
            eve = request((await guests.invite(by_site)).token)
            assert [(await asked(one)).user for one in (anna, eve)] == ["anna", "eve"]
            tokens.write_text("a-plain-token-of-root root admin\n")
            with pytest.raises(SiteRefused, match="not known here any more"):
                await asked(anna)
            assert (await asked(eve)).user == "eve"
            revoked.write_text("user eve\n")
            with pytest.raises(SiteRefused, match="revoked"):
                await asked(eve)

    asyncio.run(story())


def test_the_door_opens_to_its_own_key_only() -> None:
    async def story() -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()

        agent = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = agent.sockets[0].getsockname()[1]
        inside = Inside("uva", f"http://127.0.0.1:{port}", Guests())
        try:
            one = await inside.invite(ORDER)
            second = Inside("uva", "", Guests())
            other = await second.invite(ORDER)
            await second.close()
            context = inner_tls(one.certificate, one.key, server=False)
            reader, writer = await asyncio.open_connection(one.host, one.port, ssl=context)
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()
            stranger = inner_tls(other.certificate, other.key, server=False)
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection(one.host, one.port, ssl=stranger)
        finally:
            await inside.close()
            agent.close()

    asyncio.run(story())
