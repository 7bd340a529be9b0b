"""Hold a token that was issued, and what the answer says of it (RFC 8693 §2.2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NoReturn, final

from attrs import field, frozen

from agentauthz.errors import InvalidArgument
from agentauthz.tokens.strict import Json
from agentauthz.tokens.types import ACCESS_TOKEN


@final
@frozen(eq=False, repr=False)
class Issued:
    """Be an issued token. `expires_in` is in seconds; `record_id` names the decision that it rests on.

    `token_type` is how it is presented: `Bearer`, `DPoP`, or `N_A` for what is no access token.
    """

    access_token: str = field()
    issued_token_type: str
    token_type: Literal["Bearer", "DPoP", "N_A"]
    expires_in: int
    scopes: tuple[str, ...]
    authorization_details: tuple[Mapping[str, Json], ...] = ()
    record_id: str | None = None

    def body(self) -> dict[str, Json]:
        """Return the members of the answer; it holds the token, so it is never to be logged or cached."""
        body: dict[str, Json] = {
            "access_token": self.access_token,
            "issued_token_type": self.issued_token_type,
            "token_type": self.token_type,
            "expires_in": self.expires_in,
            "scope": " ".join(self.scopes),
        }
        if self.authorization_details:  # RFC 9396 §7
            body["authorization_details"] = [dict(one) for one in self.authorization_details]
        return body

    @property
    def is_access_token(self) -> bool:
        """Say whether it is presented to a resource server."""
        return self.issued_token_type == ACCESS_TOKEN

    def __repr__(self) -> str:
        return f"Issued({self.issued_token_type}, {self.token_type}, {self.expires_in} s)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise InvalidArgument("token", "can't be pickled or copied: it is a secret")
