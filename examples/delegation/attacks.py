"""Attack the services with what whoever takes over agents has: their keys, and the tokens that they were given."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Final

import httpx
from serving import Json, call
from world import LOGIN, TOKENS, World, tell_answer

from agentauthz.errors import ExchangeDenied
from agentauthz.tokens import (
    ACCESS_TOKEN,
    DpopKey,
    ExchangedToken,
    PrivateKeyJwt,
    SigningKey,
    TokenExchangeRequest,
    jws,
)

BILL: Final[Json] = {"payee": "Mallory", "amount": 499}


def login(world: World, who: str, audience: str, **claims: str) -> str:
    """Return the access token that somebody gets who logs in: the login's part, which is no service of ours."""
    now = int(dt.datetime.now(dt.UTC).timestamp())
    dates = {"iat": now, "exp": now + 3600, "jti": uuid.uuid4().hex}
    named = {"iss": LOGIN, "sub": who, "aud": audience, "client_id": who, **claims}
    return jws.make({**named, **dates}, world.key("login"), typ="at+jwt")


def exchange(
    world: World, name: str, subject: str, audience: str, scope: str, dpop: DpopKey | None = None, actor: str = ""
) -> ExchangedToken:
    """Ask the token service as `name`, past whatever that agent's own policies say."""
    request = TokenExchangeRequest(
        subject_token=subject,
        actor_token=actor or None,
        actor_token_type=ACCESS_TOKEN if actor else None,
        audience=[audience],
        scope=scope.split(),
    )
    return world.token_client(name, dpop).exchange(request)


class Attacker:
    """Be who has taken over the orchestrator and the sub-agent while they worked for Alice."""

    def __init__(self, world: World, alice: str) -> None:
        self.world = world
        self.key = DpopKey(SigningKey.generate("ES256"))
        self.work = exchange(world, "orchestrator", alice, "sub-agent", "payments.read payments.send")
        self.payment = exchange(world, "sub-agent", self.work.access_token, "payments", "payments.send", self.key)

    def other_client(self) -> None:
        """Another agent got hold of the sub-agent's token, and has it exchanged for itself."""
        self._ask("newsletter")

    def other_audience(self) -> None:
        """The sub-agent's token is sent to the payments service as it is."""
        self._pay(self.work)

    def other_key(self) -> None:
        """A token for payments is sent by who has it, but not the key that it is bound to."""
        self._pay(self.payment, DpopKey(SigningKey.generate("ES256")))

    def spliced_actor(self) -> None:
        """The sub-agent shows another agent's token as the actor's, so that the payment looks like its doing."""
        newsletter = login(self.world, "newsletter", TOKENS, sub_profile="ai_agent")
        self._ask("sub-agent", actor=newsletter)

    def wider_scope(self) -> None:
        """The sub-agent asks for more than it was sent to do."""
        self._ask("sub-agent", scope="payments.send payments.refund")

    def revoked_parent(self) -> None:
        """The token that the orchestrator gave the sub-agent is revoked; what came from it is used all the same."""
        self._revoke()
        self._ask("sub-agent")
        self._pay(self.payment, self.key)

    def _revoke(self) -> None:
        """Do what the orchestrator's owner does who notices (RFC 7009)."""
        proof = PrivateKeyJwt("orchestrator", self.world.key("orchestrator"), audience=TOKENS).credentials().fields
        form = {"token": self.work.access_token, **dict(proof)}
        httpx.post(f"{self.world.addresses['token-service']}/revoke", data=form, timeout=30, trust_env=False)

    def _ask(self, name: str, scope: str = "payments.send", actor: str = "") -> None:
        try:
            token = exchange(self.world, name, self.work.access_token, "payments", scope, self.key, actor)
            tell_answer("a token", repr(token))
        except ExchangeDenied as denied:
            tell_answer(denied.status, f"{denied.error}: {denied.description}")

    def _pay(self, token: ExchangedToken, key: DpopKey | None = None) -> None:
        answer = call(self.world.addresses["payments"], token, BILL, key)
        tell_answer(answer.status_code, *answer.headers.get_list("WWW-Authenticate"), f"body {answer.text}")
