"""Invitations: good for the user of an order that runs, through a door that needs its key."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from dataflow.agent.app import create_app
from dataflow.agent.auth import Identity, TokenFile
from dataflow.agent.inside import Inside, TakesGuests, guests_of
from dataflow.agent.issued import AnyOf, IssuedTokens, Revoked
from dataflow.agent.serve import server_of
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


def request(token: str, by: Inside | None = None) -> Any:
    """As it comes through the door of ``by``, or through the agent's own."""
    server = ("127.0.0.1", 80) if by is None else (by.listening.getsockname(), None)
    headers = {"authorization": f"Bearer {token}"}
    return SimpleNamespace(headers=headers, scope={"server": server})


async def _others(request: Any, /) -> Identity:
    return Identity(user="other", role="admin")


def test_a_token_is_good_while_its_order_runs() -> None:
    async def story() -> None:
        guests = Guests()
        assert isinstance(guests, TakesGuests)
        async with guests_of(guests) as inside:
            assert inside is not None
            invitation = await guests.invite(ORDER)
            asked = inside.admits(_others)
            there = request(invitation.token, inside)
            assert await asked(there) == Identity(user="anna", role="user")
            assert (await asked(request("something"))).user == "other"
            for door in (request(invitation.token), request("something", inside)):
                with pytest.raises(SiteRefused, match="not for this door"):
                    await asked(door)
            mark, name, signature = invitation.token.split(".")
            for wrong in (
                f"{mark}.{name}.{signature[:-1]}x",
                f"{mark}.{name}",
                f"{mark}..{signature}",
                f"{mark}.é.{signature}",
                f"{mark}.",
            ):
                with pytest.raises(SiteRefused):
                    await asked(request(wrong, inside))
            guests.orders.clear()
            with pytest.raises(SiteRefused):
                await asked(there)
            assert invitation.token not in repr(invitation)
            assert invitation.key not in repr(invitation)
        assert guests.invite is None

    asyncio.run(story())


def test_two_that_begin_together_are_both_let_in() -> None:
    class Users:
        """Answers once both have asked."""

        both = threading.Barrier(2)

        def lists(self, user: str) -> bool:
            if not self.both.broken:
                self.both.wait(60)
            return True

        def still(self, user: str, since: float) -> None:
            pass

        async def __call__(self, request: Any, /) -> Identity:
            raise AssertionError

    async def story() -> None:
        guests = Guests()
        guests.orders["j2:s1:1"] = "ben"
        second: Any = SimpleNamespace(id="j2:s1:1", job="j2", user="ben")
        users = Users()
        async with guests_of(guests) as inside:
            assert inside is not None
            asked = inside.admits(users)
            invited = await asyncio.gather(guests.invite(ORDER), guests.invite(second))
            users.both.abort()
            found = [(await asked(request(one.token, inside))).user for one in invited]
            assert found == ["anna", "ben"]

    asyncio.run(story())


def test_a_token_opens_one_order_of_one_job_at_one_site() -> None:
    async def story() -> None:
        guests, others = Guests(), Guests()
        guests.orders = {"j1:s1:1": "anna", "j2:s1:1": "anna", "j3:s1:1": "eve"}
        others.orders = dict(guests.orders)
        async with guests_of(guests) as inside, guests_of(others) as elsewhere:
            assert inside is not None
            assert elsewhere is not None
            asked = inside.admits(_others)
            orders = {
                id: SimpleNamespace(id=id, job=id[:2], user=user)
                for id, user in guests.orders.items()
            }
            tokens = {id: (await guests.invite(order)).token for id, order in orders.items()}
            assert len(set(tokens.values())) == 3
            _, _, signature = tokens["j1:s1:1"].split(".")
            for id in ("j2:s1:1", "j3:s1:1"):
                mark, name, _ = tokens[id].split(".")
                with pytest.raises(SiteRefused):
                    await asked(request(f"{mark}.{name}.{signature}", inside))
            foreign = (await others.invite(orders["j1:s1:1"])).token
            with pytest.raises(SiteRefused):
                await asked(request(foreign, inside))
            # The order's id comes back, for somebody else, or in another job: an old token opens neither.
            guests.orders["j1:s1:1"] = "eve"
            with pytest.raises(SiteRefused):
                await asked(request(tokens["j1:s1:1"], inside))
            for job, user in (("j1", "eve"), ("j9", "anna")):
                guests.orders["j1:s1:1"] = user
                await guests.invite(SimpleNamespace(id="j1:s1:1", job=job, user=user))
                with pytest.raises(SiteRefused):
                    await asked(request(tokens["j1:s1:1"], inside))

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
        async with guests_of(guests) as inside:
            assert inside is not None
            asked = inside.admits(AnyOf("uva", plain, [issued]))
            anna = request((await guests.invite(ORDER)).token, inside)
            by_site = SimpleNamespace(id="j2:s1:1", job="j2", user="eve")
            eve = request((await guests.invite(by_site)).token, inside)
            assert [(await asked(one)).user for one in (anna, eve)] == ["anna", "eve"]
            tokens.write_text("a-plain-token-of-root root admin\n")
            with pytest.raises(SiteRefused, match="not known here any more"):
                await asked(anna)
            assert (await asked(eve)).user == "eve"
            revoked.write_text("user eve\n")
            with pytest.raises(SiteRefused, match="revoked"):
                await asked(eve)

    asyncio.run(story())


def test_the_doors_of_a_real_server(tmp_path: Path) -> None:
    """The inner one opens to its own key, and there to a notebook's token only; the outer one never does."""

    async def story() -> None:
        guests = Guests()
        double = sys.modules["agent_double"].Double(tmp_path / "site", trust="lab")
        await double.start()
        tokens = tmp_path / "tokens"
        tokens.touch(mode=0o600)
        tokens.write_text("a-plain-token-of-root root admin\n")
        inside = Inside("uva", guests)
        app = create_app(double, inside.admits(TokenFile(tokens, "uva")))
        server = server_of(app)
        with socket.socket() as outer:
            outer.bind(("127.0.0.1", 0))
            serving = asyncio.create_task(server.serve(sockets=[outer, inside.listening]))
            one, second = await inside.invite(ORDER), Inside("uva", Guests())
            other = await second.invite(ORDER)
            await second.close()

            async def asked(url: str, token: str, verify: Any = True) -> int:
                async with httpx2.AsyncClient(verify=verify, trust_env=False) as http:
                    headers = {"authorization": f"Bearer {token}"}
                    return (await http.get(f"{url}/v1/site", headers=headers)).status_code

            try:
                public = f"http://127.0.0.1:{outer.getsockname()[1]}"
                while not server.started:
                    await asyncio.sleep(0.01)
                ours = inner_tls(one.certificate, one.key, server=False)
                inner = f"https://{one.host}:{one.port}"
                assert await asked(public, "a-plain-token-of-root") == 200
                assert await asked(public, one.token) == 401
                assert await asked(inner, one.token, ours) == 200
                assert await asked(inner, "a-plain-token-of-root", ours) == 401
                strangers = inner_tls(other.certificate, other.key, server=False)
                with pytest.raises(httpx2.TransportError):
                    await asked(inner, one.token, strangers)
                guests.orders.clear()
                assert await asked(inner, one.token, ours) == 401
            finally:
                app.state.stopping.set()
                server.should_exit = True
                await serving
                await inside.close()
                await double.close()

    asyncio.run(story())
