"""Make policy sets of the texts that a log holds."""

from __future__ import annotations

from collections.abc import Iterable

from agentauthz.errors import NotReplayable, PolicyError
from agentauthz.policy.policyset import PolicySet
from agentauthz.records import PolicyRecord, Record


def recorded_policies(records: Iterable[Record], digest: str) -> PolicySet:
    """Return the policy set of `digest` whose text is among `records`.

    Raises:
        NotReplayable: its text isn't there, or not all of it, or is another's.
    """
    parts: dict[int, PolicyRecord] = {}
    for record in records:
        if isinstance(record, PolicyRecord) and record.digest == digest:
            parts.setdefault(record.part, record)
    count = next((part.parts for part in parts.values()), 0)
    if not parts or len(parts) != count or set(parts) != set(range(1, count + 1)):
        raise NotReplayable(f"the text of the policies {digest} isn't among the records")
    texts: dict[int, tuple[str, str]] = {}
    for number in sorted(parts):
        part = parts[number]
        texts[part.source] = (part.name, texts.get(part.source, ("", ""))[1] + part.text)
    try:
        found = PolicySet.of_texts(texts[source] for source in sorted(texts))
    except PolicyError as cause:
        raise NotReplayable(f"the recorded text of the policies {digest} isn't theirs") from cause
    if found.digest != digest:
        raise NotReplayable(f"the recorded text of the policies {digest} isn't theirs")
    return found
