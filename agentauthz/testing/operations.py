"""Try each operation of a state store out, one at a time."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Final

from attrs import evolve

from agentauthz.state.store import (
    STALE,
    Committed,
    Intent,
    Refused,
    Reservation,
    State,
    StateStore,
)
from agentauthz.testing.trying import FAR, HOUR, Trial, approved, request, spend, spending, taken, used

_HOSTILE: Final = ("a\nb\x00c", "\u202e", "\ud800", "\ud83d\ude00", "'; --", "x" * 10_000, "")
_MONEY: Final = ("0.1", "0.2", "0.0000000000000000000000000001", "123456789012345678901234567890", "1E+3")


def clock(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Ask for the time."""

    def ascends() -> bool:
        told = [store.now() for store in (one, other, one, other) if trial.shared or store is one]
        return told == sorted(told) and all(at.utcoffset() == dt.timedelta(0) for at in told)

    trial.say("its time is in UTC, and never steps back", ascends)


def sessions(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Begin sessions, and find them again."""
    start = one.now()

    def unknown() -> bool:
        return one.read(trial.name()) == State()

    def found() -> bool:
        name = trial.name()
        first = one.begin(name, start, {"a": start}, keep=True)
        one.mark(name, "m")
        again = other.begin(name, start + HOUR, {"a": start + HOUR}, keep=True)
        del first
        return (again.started, other.read(name)) == (start, State({"m"}, watched={"a": start}))

    def watched() -> bool:
        name, before = trial.name(), start - 2 * FAR
        held = [one.begin(name, before, {"a": before}, keep=True)]
        held.append(other.begin(name, before, {"a": before, "b": before}, keep=True))
        known = one.read(name).watched
        held.append(one.begin(name, before, {"b": before}, keep=True))
        later = other.read(name).watched
        return known["a"] == before and known["b"] >= start and later == {"b": known["b"]}

    def forgotten() -> bool:
        name = trial.name()
        held = one.begin(name, start, {"a": start}, keep=False)
        one.commit(Intent(name, marks=("m",), began="a"))
        return held.started == start and one.read(name).marks == {"m"} and other.read(name).marks == {"m"}

    trial.say("of an unknown session nothing is remembered", unknown)
    trial.say("a session is found again by its id, as it was begun first", found)
    trial.say("an action that is newly watched is watched from then on", watched)
    trial.say("a session is remembered as long as somebody holds on to it", forgotten)


def marks(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Set marks and last-seen times, and remove marks."""

    def grow() -> bool:
        name = trial.name()
        one.mark(name, "a")
        answer = other.commit(Intent(name, marks=("b", "c")))
        return taken(answer) and one.read(name).marks == {"a", "b", "c"}

    def removed() -> bool:
        name = trial.name()
        one.mark(name, "a")
        answers = (other.unmark(name, "a"), one.unmark(name, "a"), one.unmark(trial.name(), "a"))
        return answers == (True, False, False) and one.read(name).marks == frozenset()

    def seen() -> bool:
        name, before = trial.name(), one.now()
        one.commit(Intent(name, began="a"))
        other.finish(name, "a")
        state = one.read(name)
        return before <= state.began["a"] <= state.done["a"] <= one.now() and set(state.done) == {"a"}

    def hostile() -> bool:
        for text in _HOSTILE:
            name = trial.name(text)
            one.mark(name, text)
            one.commit(Intent(name, began=text))
            if (state := other.read(name)).marks != {text} or set(state.began) != {text}:
                return False
        return True

    trial.say("marks add up", grow)
    trial.say("a mark that is removed is gone, and was there once", removed)
    trial.say("an action is seen when it is allowed, and when it has returned", seen)
    trial.say("any text can be a name", hostile)


def stale(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Decide on what was read a while ago."""

    def of(intent: Intent) -> bool:
        mine = spend(trial.name())
        return one.commit(evolve(intent, spends=(mine,))) == STALE and used(one, mine) == [0]

    def marked() -> bool:
        name = trial.name()
        other.mark(name, "a")
        seen = frozenset({"a"})
        return of(Intent(name, marks_seen=frozenset())) and taken(one.commit(Intent(name, marks_seen=seen)))

    def began() -> bool:
        name = trial.name()
        other.commit(Intent(name, began="a"))
        at = one.read(name).began["a"]
        changed = of(Intent(name, times_seen=(("began", "a", None),)))
        return changed and taken(one.commit(Intent(name, times_seen=(("began", "a", at), ("done", "a", None)))))

    def done() -> bool:
        name = trial.name()
        other.finish(name, "a")
        at = one.read(name).done["a"]
        changed = of(Intent(name, times_seen=(("done", "a", None),)))
        return changed and taken(one.commit(Intent(name, times_seen=(("done", "a", at),))))

    def revoked() -> bool:
        made = other.revoke("token", trial.name(), "")
        return of(Intent(None, revocations=made.number - 1)) and taken(
            one.commit(Intent(None, revocations=made.number))
        )

    trial.say("a decision on marks that have changed is stale, and does nothing", marked)
    trial.say("a decision on when an action was allowed is stale once that has changed", began)
    trial.say("a decision on when an action returned is stale once that has changed", done)
    trial.say("a decision that doesn't know the last revocation is stale", revoked)


def budgets(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Spend until nothing is left."""

    def counted() -> bool:
        mine = spend(trial.name(), bound="3")
        answers = [store.commit(spending(mine)) for store in (one, other, one, other)]
        return [taken(answer) for answer in answers] == [True, True, True, False] and used(other, mine) == [3]

    def told() -> bool:
        mine = spend(trial.name(), "2", "5")
        answers = [one.commit(spending(mine)) for _ in range(3)]
        stood = [getattr(answer, "budgets", getattr(answer, "full", ())) for answer in answers]
        known = [[(each.used, each.granted, each.fits, each.left) for each in budgets] for budgets in stood]
        room = [each.room_at for each in stood[2]]
        return known == [[(0, True, True, 3)], [(2, True, True, 1)], [(4, False, False, 1)]] and all(
            at is not None and one.now() < at <= one.now() + 2 * HOUR for at in room
        )

    def exact() -> bool:
        mine = trial.name()
        amounts = [spend(mine, amount, "1E+40") for amount in _MONEY]
        answers = [one.commit(spending(each)) for each in amounts]
        return all(map(taken, answers)) and used(other, amounts[0]) == [
            Decimal("123456789012345678901234568890.3000000000000000000000000001")
        ]

    def own() -> bool:
        key, names = trial.name(), (trial.name(), trial.name())
        mine = spend(key, bound="1", window=None)
        answers = [store.commit(spending(mine, session=name)) for name in names for store in (one, other)]
        return [taken(answer) for answer in answers] == [True, False, True, False]

    def whole() -> bool:
        name, free, full = trial.name(), spend(trial.name()), spend(trial.name(), "11")
        good = approved(other, trial.name())
        intent = Intent(name, marks=("m",), began="a", spends=(free, full), approvals=(good.id,))
        answer, left = one.commit(intent), one.read(name)
        same = getattr(one.approval(good.id), "status", None) == "approved"
        stood = [(each.key, each.fits) for each in answer.full] if isinstance(answer, Refused) else []
        return stood == [(free.key, True), (full.key, False)] and used(one, free) == [0] and left == State() and same

    def tried() -> bool:
        name, mine = trial.name(), spend(trial.name())
        answer = one.commit(Intent(name, marks=("m",), began="a", spends=(mine,), reserve=False))
        return isinstance(answer, Committed) and used(one, mine) == [0] and other.read(name) == State()

    trial.say("no more is spent than the bound", counted)
    trial.say("an answer says what was used before, what is left, and when there is room again", told)
    trial.say("sums of amounts are exact", exact)
    trial.say("each session has budgets of its own where there is no window", own)
    trial.say("a decision is committed whole or not at all", whole)
    trial.say("what is only tried changes nothing", tried)


def giving_back(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Release and settle reservations."""

    def reserved(*amounts: str, session: str | None = None, named: bool = True) -> Reservation:
        window = None if session is not None else HOUR
        spends = [spend(trial.name(), amount, "1E+40", window) for amount in amounts]
        answer = one.commit(spending(*spends, session=session, releasable=named))
        if not isinstance(answer, Committed) or answer.reservation is None:
            raise AssertionError("what is spent has a reservation")
        if named and answer.reservation.id is None:
            raise AssertionError("what may be given back has a reservation with an id")
        return answer.reservation

    def left(made: Reservation) -> list[Decimal]:
        return used(one, *(part[0] for part in made.parts), session=made.session)

    def released() -> bool:
        made = reserved("2", "3.5")
        one.commit(spending(made.parts[0][0]))
        for store in (other, one, other):
            store.release(made)
        other.settle(made, {})
        return left(made) == [2, 0]

    def in_session() -> bool:
        made = reserved("2", session=trial.name())
        other.release(made)
        return left(made) == [0]

    def settled() -> bool:
        made = reserved("5", "5", "5")
        actual = {made.parts[0][0].rule: Decimal("1.25"), made.parts[1][0].rule: Decimal(9)}
        other.settle(made, actual)
        one.settle(made, {made.parts[2][0].rule: Decimal(0)})
        one.release(made)
        return left(made) == [Decimal("1.25"), 5, 5]

    def without_an_id() -> bool:
        sums = []
        for session in (None, trial.name()):
            made = reserved("5", "5", session=session, named=False)
            other.settle(made, {made.parts[0][0].rule: Decimal("1.25")})
            sums += left(made)
        return sums == [Decimal("1.25"), 5] * 2

    def long() -> bool:
        made = reserved("123456789012345678901234567890123.5", named=False)
        other.settle(made, {made.parts[0][0].rule: Decimal("0.0000000000000000000000000000001")})
        return left(made) == [Decimal("0.0000000000000000000000000000001")]

    trial.say("what was released can be spent again, but only once", released)
    trial.say("what a session spent can be released too", in_session)
    trial.say("what was settled stays spent as it was settled first, and never becomes more", settled)
    trial.say("what has no id can be settled too", without_an_id)
    trial.say("what comes back is exact", long)


def single_use(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Use keys once."""

    def first() -> bool:
        keys, expires = [trial.name(text) for text in _HOSTILE], one.now() + FAR
        answers = [[store.once(key, expires) for store in (one, other, one)] for key in keys]
        return answers == [[True, False, False]] * len(keys)

    trial.say("a key is granted once", first)


def revocations(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Revoke things, and read what was revoked."""

    def numbered() -> bool:
        since = len(one.revocations(0))
        made = [one.revoke("session", "s\x00", "why\ud800"), other.revoke("everything", "", "")]
        made.append(one.revoke("everything", "", "", lifts=True))
        return (
            [each.number for each in made] == [since + 1, since + 2, since + 3]
            and [list(store.revocations(since)) for store in (one, other)] == [made, made]
            and list(one.revocations(since + 2)) == made[2:]
            and [(each.kind, each.name, each.reason, each.lifts) for each in made]
            == [("session", "s\x00", "why\ud800", False), ("everything", "", "", False), ("everything", "", "", True)]
        )

    trial.say("revocations are numbered from 1, without a gap, and stay", numbered)


def asking(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Ask for consent."""

    def stored() -> bool:
        made = request(one, trial.name("\x00\ud800"), trial.name())
        same = one.ask(made) == made and other.approval(made.id) == made
        return same and other.approval(trial.name()) is None

    def once_open() -> bool:
        made = one.ask(request(one, trial.name()))
        again = request(one, trial.name())
        again = evolve(again, binding=made.binding)
        open_twice = [other.ask(again).id]
        one.answer(made.id, "approved", "{}")
        open_twice.append(other.ask(again).id)
        one.commit(Intent(None, approvals=(made.id,)))
        return open_twice == [made.id] * 2 and other.ask(again) == again

    trial.say("a request for consent is kept as it is", stored)
    trial.say("only one request for the same call is open", once_open)


def answering(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Give consent, and use it up."""

    def statuses(*ids: str) -> list[str | None]:
        return [getattr(other.approval(each), "status", None) for each in ids]

    def answered() -> bool:
        made = [one.ask(request(one, trial.name())).id for _ in range(2)]
        answers = [other.answer(made[0], "approved", '{"by": 1}'), one.answer(made[0], "rejected", "{}")]
        answers += [other.answer(made[1], "rejected", "{}"), one.answer(made[1], "approved", "{}")]
        answers.append(one.answer(trial.name(), "approved", "{}"))
        kept = other.approval(made[0])
        return (
            answers == [True, False, True, False, False]
            and statuses(*made) == ["approved", "rejected"]
            and kept is not None
            and kept.answer == '{"by": 1}'
        )

    def answered_by_several() -> bool:
        made = one.ask(request(one, trial.name())).id
        answers = [one.answer(made, "pending", "1"), other.answer(made, "pending", "2")]  # the second knew no first
        answers += [other.answer(made, "pending", "2", known="1"), one.answer(made, "approved", "3", known="1")]
        before = statuses(made)
        answers += [one.answer(made, "approved", "3", known="2"), one.answer(made, "rejected", "4", known="3")]
        kept = other.approval(made)
        return (
            answers == [True, False, True, False, True, False]
            and before == ["pending"]
            and statuses(made) == ["approved"]
            and kept is not None
            and kept.answer == "3"
        )

    def used_up() -> bool:
        good = approved(one, trial.name()).id
        pending = one.ask(request(one, trial.name())).id
        rejected = one.ask(request(one, trial.name())).id
        one.answer(rejected, "rejected", "{}")
        unfit = (pending, rejected, trial.name())
        refused = [one.commit(Intent(None, approvals=(good, each))) for each in unfit]
        kept = statuses(good) == ["approved"]
        answers = [taken(store.commit(Intent(None, approvals=(good,)))) for store in (one, other)]
        named = [getattr(answer, "approvals", None) for answer in refused] == [(each,) for each in unfit]
        return named and kept and answers == [True, False] and statuses(good) == ["used"]

    trial.say("a request is answered once", answered)
    trial.say("an answer that knows what others have said adds to theirs, and no other does", answered_by_several)
    trial.say("an approval is used once, and only if it was given", used_up)


def outstanding(trial: Trial, one: StateStore, other: StateStore) -> None:
    """Find what was asked for, and what nobody has answered in time."""

    def expired() -> bool:
        old = one.ask(request(one, trial.name(), lasts=dt.timedelta(0))).id
        again = request(one, trial.name())
        return not one.answer(old, "approved", "{}") and one.ask(again) == again

    def listed() -> bool:
        name = trial.name()
        made = [one.ask(request(one, trial.name(), name)) for _ in range(3)]
        one.answer(made[1].id, "rejected", "{}")
        by_binding = [each.id for each in one.approvals(binding=made[2].binding)]
        return (
            [each.id for each in other.approvals(session=name)] == [each.id for each in made]
            and [each.id for each in other.approvals(session=name, status="pending")] == [made[0].id, made[2].id]
            and by_binding == [made[2].id]
            and {each.id for each in made} <= {each.id for each in one.approvals()}
        )

    trial.say("what has expired can't be answered, and holds up nobody", expired)
    trial.say("requests are listed oldest first, by all that is asked for", listed)


ALL: Final = (
    clock,
    sessions,
    marks,
    stale,
    budgets,
    giving_back,
    single_use,
    revocations,
    asking,
    answering,
    outstanding,
)
