-- What agentauthz remembers. Moments are microseconds since 1970, so that they are exact. Applications may only call
-- the functions. Whatever takes several locks takes them in this order: session, approvals, budgets by their keys.

CREATE TABLE agentauthz.version (number int NOT NULL);

-- How far the clock was ever read: a sequence, since what is set stays set whatever becomes of the transaction.
CREATE SEQUENCE agentauthz.clock AS bigint MINVALUE 0 START 0;

CREATE TABLE agentauthz.sessions (
    id text PRIMARY KEY, started bigint NOT NULL, kept boolean NOT NULL, used_at bigint NOT NULL,
    marks text[] NOT NULL DEFAULT '{}', began jsonb NOT NULL DEFAULT '{}', done jsonb NOT NULL DEFAULT '{}',
    watched jsonb NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- The buckets of one budget, from the oldest to the newest. One without a window belongs to its session.
CREATE TABLE agentauthz.budgets (
    session text NOT NULL, key text NOT NULL, numbers bigint[] NOT NULL DEFAULT '{}',
    amounts numeric[] NOT NULL DEFAULT '{}', total numeric NOT NULL DEFAULT 0, used_at bigint NOT NULL DEFAULT 0,
    ends numeric, PRIMARY KEY (session, key)
) WITH (fillfactor = 50);

CREATE TABLE agentauthz.reservations (id text PRIMARY KEY, at bigint NOT NULL);

CREATE TABLE agentauthz.once (key text PRIMARY KEY, expires bigint NOT NULL);
CREATE INDEX once_expires ON agentauthz.once (expires);

CREATE TABLE agentauthz.revocations (
    number bigint PRIMARY KEY, kind text NOT NULL, name text NOT NULL, at bigint NOT NULL, reason text NOT NULL,
    lifts boolean NOT NULL
);

CREATE TABLE agentauthz.approvals (
    number bigint GENERATED ALWAYS AS IDENTITY, id text PRIMARY KEY, binding text NOT NULL, session text,
    at bigint NOT NULL, expires bigint NOT NULL, request text NOT NULL, status text NOT NULL, answer text
);
CREATE INDEX approvals_binding ON agentauthz.approvals (binding);
CREATE INDEX approvals_session ON agentauthz.approvals (session);
CREATE INDEX approvals_status ON agentauthz.approvals (status) WHERE status IN ('pending', 'approved');

-- ---- the clock

CREATE FUNCTION agentauthz.server_time() RETURNS bigint LANGUAGE sql AS $$
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
$$;

-- Return the time, for what changes nothing.
CREATE FUNCTION agentauthz.peek() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT greatest(last_value, agentauthz.server_time()) FROM agentauthz.clock
$$;

-- Return the time, and keep how far the clock was read; for the functions here, of which applications call `now`.
-- The lock is let go of at once, not at the commit. Where it isn't, for the statement was cancelled, the client leaves.
-- Each step is an expression that needs no query, which takes a third of the time: others wait for who reads the clock.
CREATE FUNCTION agentauthz.tick() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moment bigint;
    done boolean;
BEGIN
    done := pg_advisory_lock(7264091264000001) IS NULL;
    moment := setval('agentauthz.clock', greatest(
        coalesce(pg_sequence_last_value('agentauthz.clock'), 0), agentauthz.server_time()
    ));
    done := pg_advisory_unlock(7264091264000001);
    RETURN moment;
END $$;

CREATE FUNCTION agentauthz.now() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN agentauthz.tick();
END $$;

-- ---- sessions

-- Return a session's row, locked: to be changed, and then made where it isn't there, or so that nobody else changes it.
CREATE FUNCTION agentauthz.hold(of_session text, to_change boolean) RETURNS agentauthz.sessions
    LANGUAGE plpgsql AS $$
DECLARE
    held agentauthz.sessions;
    moment bigint;
BEGIN
    LOOP
        IF to_change THEN
            SELECT * INTO held FROM agentauthz.sessions WHERE id = of_session FOR NO KEY UPDATE;
        ELSE
            SELECT * INTO held FROM agentauthz.sessions WHERE id = of_session FOR SHARE;
        END IF;
        IF FOUND OR NOT to_change THEN
            RETURN held;
        END IF;
        moment := agentauthz.tick();
        INSERT INTO agentauthz.sessions (id, started, kept, used_at) VALUES (of_session, moment, true, moment)
            ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

CREATE FUNCTION agentauthz.same_keys(one jsonb, other jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE AS $$
SELECT ARRAY(SELECT jsonb_object_keys(one)) = ARRAY(SELECT jsonb_object_keys(other))
$$;

CREATE FUNCTION agentauthz.begin(of_session text, since bigint, watching jsonb, keeping boolean) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held agentauthz.sessions;
    moment bigint;
BEGIN
    SELECT * INTO held FROM agentauthz.sessions WHERE id = of_session;
    IF FOUND AND agentauthz.same_keys(held.watched, watching) AND (held.kept OR NOT keeping)
        AND held.used_at > agentauthz.peek() - 3600000000 THEN
        RETURN to_jsonb(held.started); -- nothing to write
    END IF;
    moment := agentauthz.tick();
    INSERT INTO agentauthz.sessions (id, started, kept, used_at, watched)
        VALUES (of_session, since, keeping, moment, watching) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN to_jsonb(since);
    END IF;
    held := agentauthz.hold(of_session, true);
    IF agentauthz.same_keys(held.watched, watching) THEN
        watching := held.watched;
    ELSE
        SELECT coalesce(jsonb_object_agg(each.key, coalesce(held.watched -> each.key, to_jsonb(moment))), '{}')
            INTO watching FROM jsonb_each(watching) AS each;
    END IF;
    UPDATE agentauthz.sessions SET watched = watching, kept = kept OR keeping, used_at = moment WHERE id = of_session;
    RETURN to_jsonb(held.started);
END $$;

CREATE FUNCTION agentauthz.read(of_session text) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_array(marks, began, done, watched) FROM agentauthz.sessions WHERE id = of_session
$$;

-- Return what a session remembers with an action seen at a moment; a clock that steps back doesn't lower a time.
CREATE FUNCTION agentauthz.later(times jsonb, action text, moment bigint) RETURNS jsonb
    LANGUAGE sql IMMUTABLE AS $$
SELECT times || jsonb_build_object(action, greatest(moment, (times ->> action)::bigint))
$$;

CREATE FUNCTION agentauthz.mark(of_session text, mark text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held agentauthz.sessions := agentauthz.hold(of_session, true);
BEGIN
    IF mark <> ALL (held.marks) THEN
        UPDATE agentauthz.sessions SET marks = marks || mark, used_at = agentauthz.tick() WHERE id = of_session;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION agentauthz.unmark(of_session text, mark text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held agentauthz.sessions := agentauthz.hold(of_session, true);
BEGIN
    UPDATE agentauthz.sessions SET marks = array_remove(marks, mark), used_at = agentauthz.tick() WHERE id = of_session;
    RETURN to_jsonb(mark = ANY (held.marks));
END $$;

CREATE FUNCTION agentauthz.finish(of_session text, action text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held agentauthz.sessions := agentauthz.hold(of_session, true);
    moment bigint := agentauthz.tick();
BEGIN
    UPDATE agentauthz.sessions SET done = agentauthz.later(done, action, moment), used_at = moment
        WHERE id = of_session;
    RETURN NULL;
END $$;

-- ---- one decision

-- Return a budget's row, locked.
CREATE FUNCTION agentauthz.budget(of_session text, of_key text) RETURNS agentauthz.budgets
    LANGUAGE plpgsql AS $$
DECLARE
    held agentauthz.budgets;
BEGIN
    LOOP
        SELECT * INTO held FROM agentauthz.budgets WHERE session = of_session AND key = of_key FOR NO KEY UPDATE;
        IF FOUND THEN
            RETURN held;
        END IF;
        INSERT INTO agentauthz.budgets (session, key) VALUES (of_session, of_key) ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Drop the buckets of a budget that don't count any more.
CREATE FUNCTION agentauthz.counting(held agentauthz.budgets, oldest bigint) RETURNS agentauthz.budgets
    LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    gone int := 0;
BEGIN
    WHILE gone < cardinality(held.numbers) AND held.numbers[gone + 1] < oldest LOOP
        gone := gone + 1;
        held.total := held.total - held.amounts[gone];
    END LOOP;
    IF gone > 0 THEN
        held.numbers := held.numbers[gone + 1:];
        held.amounts := held.amounts[gone + 1:];
    END IF;
    RETURN held;
END $$;

-- Return the bucket that must have stopped to count before an amount fits; NULL: it never will.
CREATE FUNCTION agentauthz.room_after(held agentauthz.budgets, amount numeric, bound numeric) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    rest numeric := held.total;
BEGIN
    FOR part IN 1 .. cardinality(held.numbers) LOOP
        rest := rest - held.amounts[part];
        IF rest + amount <= bound THEN
            RETURN held.numbers[part];
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- Say whether something is in the way, for all that a look without locks can tell: budgets may have got room since.
CREATE FUNCTION agentauthz.seems_refused(
    of_session text, keys text[], asked numeric[], bounds numeric[], windows bigint[], consents text[]
) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    FOR part IN 1 .. cardinality(keys) LOOP
        IF asked[part] + coalesce((SELECT total FROM agentauthz.budgets WHERE key = keys[part]
            AND session = CASE WHEN windows[part] = 0 THEN coalesce(of_session, '') ELSE '' END), 0) > bounds[part] THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN cardinality(consents) > (
        SELECT count(*) FROM agentauthz.approvals WHERE id = ANY (consents) AND status = 'approved'
    );
END $$;

-- Return the budgets that are asked for, locked or only looked at.
CREATE FUNCTION agentauthz.budgets(of_session text, keys text[], windows bigint[], locking boolean)
    RETURNS agentauthz.budgets[] LANGUAGE plpgsql AS $$
DECLARE
    owner text;
    held agentauthz.budgets;
    taken agentauthz.budgets[] := '{}';
BEGIN
    FOR part IN 1 .. cardinality(keys) LOOP
        owner := CASE WHEN windows[part] = 0 THEN coalesce(of_session, '') ELSE '' END;
        IF locking THEN
            held := agentauthz.budget(owner, keys[part]);
        ELSE
            SELECT * INTO held FROM agentauthz.budgets WHERE session = owner AND key = keys[part];
            IF NOT FOUND THEN
                SELECT owner, keys[part], '{}'::bigint[], '{}'::numeric[], 0, 0, NULL INTO held;
            END IF;
        END IF;
        taken[part] := held;
    END LOOP;
    RETURN taken;
END $$;

-- Windows and widths of buckets are in microseconds; a window of 0 is the session. The answer is `["stale"]`,
-- `["unfit", ids]`, or `["full" | "done", what was used of each budget, room after which bucket, buckets]`.
CREATE FUNCTION agentauthz.commit(
    of_session text, marks_seen text[], seen_kinds text[], seen_actions text[], seen_ats bigint[], new_marks text[],
    new_action text, keys text[], asked numeric[], bounds numeric[], windows bigint[], widths bigint[],
    consents text[], last_revocation bigint, reserving boolean, reservation text
) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted int := cardinality(keys);
    remembers boolean := cardinality(new_marks) > 0 OR new_action IS NOT NULL;
    -- what will be refused locks and writes nothing: a budget that is used up costs little, however often it is asked
    locking boolean := reserving
        AND NOT agentauthz.seems_refused(of_session, keys, asked, bounds, windows, consents);
    seen agentauthz.sessions;
    held agentauthz.budgets;
    kept agentauthz.budgets[];
    moment bigint;
    oldest bigint;
    used numeric[] := '{}';
    after bigint[] := '{}';
    places bigint[] := '{}';
    newest int;
    unfit text[];
BEGIN
    LOOP
        -- first every lock, then the clock: what had to wait for a budget must not spend in the past
        IF of_session IS NOT NULL AND locking AND (remembers OR marks_seen IS NOT NULL OR cardinality(seen_kinds) > 0) THEN
            seen := agentauthz.hold(of_session, remembers);
        ELSIF of_session IS NOT NULL AND (marks_seen IS NOT NULL OR cardinality(seen_kinds) > 0) THEN
            SELECT * INTO seen FROM agentauthz.sessions WHERE id = of_session;
        END IF;
        IF locking AND cardinality(consents) > 0 THEN
            PERFORM 1 FROM agentauthz.approvals WHERE id = ANY (consents) ORDER BY id FOR UPDATE;
        END IF;
        kept := agentauthz.budgets(of_session, keys, windows, locking);
        -- a session that wasn't there had no row to lock: with the budgets in hand, it must still not be there
        CONTINUE WHEN locking AND seen.id IS NULL AND (marks_seen IS NOT NULL OR cardinality(seen_kinds) > 0)
            AND EXISTS (SELECT 1 FROM agentauthz.sessions WHERE id = of_session);
        moment := CASE WHEN locking THEN agentauthz.tick() ELSE agentauthz.peek() END;

        IF last_revocation IS NOT NULL
            AND last_revocation <> coalesce((SELECT max(number) FROM agentauthz.revocations), 0) THEN
            RETURN '["stale"]';
        END IF;
        IF marks_seen IS NOT NULL AND NOT (
            marks_seen <@ coalesce(seen.marks, '{}') AND coalesce(seen.marks, '{}') <@ marks_seen
        ) THEN
            RETURN '["stale"]';
        END IF;
        FOR part IN 1 .. cardinality(seen_kinds) LOOP
            IF (CASE seen_kinds[part] WHEN 'began' THEN seen.began ELSE seen.done END ->> seen_actions[part])::bigint
                IS DISTINCT FROM seen_ats[part] THEN
                RETURN '["stale"]';
            END IF;
        END LOOP;
        IF cardinality(consents) > 0 THEN
            unfit := ARRAY(
                SELECT given FROM unnest(consents) WITH ORDINALITY AS listed (given, place) WHERE NOT EXISTS (
                    SELECT 1 FROM agentauthz.approvals WHERE id = given AND status = 'approved' AND expires > moment
                ) ORDER BY place
            );
            IF cardinality(unfit) > 0 THEN
                RETURN jsonb_build_array('unfit', unfit);
            END IF;
        END IF;

        FOR part IN 1 .. wanted LOOP
            IF windows[part] = 0 THEN
                places[part] := 0;
            ELSE
                places[part] := moment / widths[part];
                oldest := moment - windows[part];
                IF oldest < 0 THEN -- division rounds towards zero
                    oldest := oldest - widths[part] + 1;
                END IF;
                kept[part] := agentauthz.counting(kept[part], oldest / widths[part]);
            END IF;
            used[part] := kept[part].total;
        END LOOP;
        FOR part IN 1 .. wanted LOOP
            IF used[part] + asked[part] > bounds[part] THEN
                FOR each IN 1 .. wanted LOOP
                    IF used[each] + asked[each] > bounds[each] AND windows[each] > 0 AND asked[each] <= bounds[each] THEN
                        after[each] := agentauthz.room_after(kept[each], asked[each], bounds[each]);
                    ELSE
                        after[each] := NULL;
                    END IF;
                END LOOP;
                RETURN jsonb_build_array('full', used, after);
            END IF;
        END LOOP;
        IF NOT reserving THEN
            RETURN jsonb_build_array('done', used);
        END IF;
        EXIT WHEN locking;
        locking := true; -- it isn't refused after all
    END LOOP;

    FOR part IN 1 .. wanted LOOP
        held := kept[part];
        newest := cardinality(held.numbers);
        IF newest > 0 AND held.numbers[newest] >= places[part] THEN
            places[part] := held.numbers[newest];
            held.amounts[newest] := held.amounts[newest] + asked[part];
        ELSE
            held.numbers[newest + 1] := places[part];
            held.amounts[newest + 1] := asked[part];
        END IF;
        UPDATE agentauthz.budgets AS budget SET
            numbers = held.numbers, amounts = held.amounts, total = held.total + asked[part], used_at = moment,
            ends = CASE WHEN windows[part] > 0 THEN (places[part] + 1) * widths[part]::numeric + windows[part] END
            WHERE budget.session = held.session AND budget.key = held.key;
    END LOOP;
    IF cardinality(consents) > 0 THEN
        UPDATE agentauthz.approvals SET status = 'used' WHERE id = ANY (consents);
    END IF;
    IF remembers AND of_session IS NOT NULL THEN
        UPDATE agentauthz.sessions SET
            marks = marks || ARRAY(SELECT DISTINCT new FROM unnest(new_marks) AS new WHERE new <> ALL (marks)),
            began = CASE WHEN new_action IS NULL THEN began ELSE agentauthz.later(began, new_action, moment) END,
            used_at = moment
            WHERE id = of_session AND (new_action IS NOT NULL OR NOT new_marks <@ marks);
    END IF;
    IF reservation IS NOT NULL THEN
        INSERT INTO agentauthz.reservations (id, at) VALUES (reservation, moment);
    END IF;
    RETURN jsonb_build_array('done', used, NULL, places);
END $$;

-- Do what `commit` does for a decision that spends of one budget and has to do with nothing else, which is what most
-- are: others wait for a hot budget from the lock to the end, so there are few steps between, and those that cost less
-- (the row by its place, the answer as text). What isn't as it nearly always is, is left to `commit`.
CREATE FUNCTION agentauthz.spend(
    of_session text, of_key text, asked numeric, bound numeric, span bigint, width bigint, last_revocation bigint,
    reservation text
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    there tid;
    used numeric;
    newest int;
    place bigint;
    oldest bigint;
    moment bigint;
BEGIN
    SELECT ctid, total, cardinality(numbers), numbers[cardinality(numbers)], numbers[1]
        INTO there, used, newest, place, oldest FROM agentauthz.budgets
        WHERE session = CASE WHEN span = 0 THEN coalesce(of_session, '') ELSE '' END AND key = of_key
            AND total + asked <= bound FOR NO KEY UPDATE;
    IF place IS NOT NULL THEN
        moment := agentauthz.tick(); -- after the lock, as there
        IF last_revocation IS NOT NULL THEN
            IF last_revocation <> coalesce((SELECT max(number) FROM agentauthz.revocations), 0) THEN
                RETURN '["stale"]';
            END IF;
        END IF;
        IF span = 0 OR place >= moment / width AND oldest >= (moment - span) / width THEN
            UPDATE agentauthz.budgets SET
                amounts[newest] = amounts[newest] + asked, total = used + asked, used_at = moment
                WHERE ctid = there;
            IF FOUND THEN
                IF reservation IS NOT NULL THEN
                    INSERT INTO agentauthz.reservations (id, at) VALUES (reservation, moment);
                END IF;
                RETURN '["done", [' || used || '], null, [' || place || ']]';
            END IF;
        END IF;
    END IF;
    RETURN agentauthz.commit(
        of_session, NULL, '{}', '{}', '{}', '{}', NULL, ARRAY[of_key], ARRAY[asked], ARRAY[bound], ARRAY[span],
        ARRAY[width], '{}', last_revocation, true, reservation
    );
END $$;

-- Take amounts out of the buckets that they were spent in, where those still count; once, if it has a name.
CREATE FUNCTION agentauthz.give_back(
    reservation text, of_sessions text[], keys text[], spent_in bigint[], returned numeric[]
) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF reservation IS NOT NULL THEN
        DELETE FROM agentauthz.reservations WHERE id = reservation;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    FOR part IN 1 .. cardinality(keys) LOOP
        UPDATE agentauthz.budgets SET
            amounts[array_position(numbers, spent_in[part])]
                = amounts[array_position(numbers, spent_in[part])] - returned[part],
            total = total - returned[part]
            WHERE session = of_sessions[part] AND key = keys[part] AND spent_in[part] = ANY (numbers)
                AND returned[part] <> 0;
    END LOOP;
    RETURN NULL;
END $$;

-- ---- what may be used once

-- Each call also lets go of some keys that have expired, so that they don't pile up.
CREATE FUNCTION agentauthz.once(asked text, ends bigint) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment bigint;
    granted boolean;
BEGIN
    IF EXISTS (SELECT 1 FROM agentauthz.once WHERE key = asked AND expires >= agentauthz.peek()) THEN
        RETURN 'false'; -- a replay writes nothing
    END IF;
    moment := agentauthz.tick();
    INSERT INTO agentauthz.once AS known (key, expires) VALUES (asked, ends)
        ON CONFLICT (key) DO UPDATE SET expires = excluded.expires WHERE known.expires < moment;
    granted := FOUND;
    DELETE FROM agentauthz.once WHERE key IN (
        SELECT key FROM agentauthz.once WHERE expires < moment AND key <> asked ORDER BY expires LIMIT 3
        FOR UPDATE SKIP LOCKED
    );
    RETURN to_jsonb(granted);
END $$;

-- ---- revocations

-- Numbered one at a time, so that nobody sees a number before the ones below it.
CREATE FUNCTION agentauthz.revoke(of_kind text, of_name text, because text, is_lifted boolean) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made agentauthz.revocations;
BEGIN
    PERFORM pg_advisory_xact_lock(7264091264000002);
    INSERT INTO agentauthz.revocations (number, kind, name, at, reason, lifts) VALUES (
        coalesce((SELECT max(number) FROM agentauthz.revocations), 0) + 1, of_kind, of_name, agentauthz.tick(), because,
        is_lifted
    ) RETURNING * INTO made;
    RETURN jsonb_build_array(made.number, made.kind, made.name, made.at, made.reason, made.lifts);
END $$;

CREATE FUNCTION agentauthz.revocations(since bigint) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT coalesce(jsonb_agg(jsonb_build_array(number, kind, name, at, reason, lifts) ORDER BY number), '[]')
    FROM agentauthz.revocations WHERE number > since
$$;

-- ---- approvals

CREATE FUNCTION agentauthz.shown(one agentauthz.approvals) RETURNS jsonb
    LANGUAGE sql IMMUTABLE AS $$
SELECT jsonb_build_array(
    one.id, one.binding, one.session, one.at, one.expires, one.request, one.status, one.answer
)
$$;

CREATE FUNCTION agentauthz.ask(
    new_id text, bound_to text, of_session text, asked_at bigint, ends bigint, asked text, state text, answered text
) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known agentauthz.approvals;
    moment bigint;
BEGIN
    UPDATE agentauthz.sessions SET kept = true WHERE id = of_session AND NOT kept; -- what it remembers is needed again
    PERFORM pg_advisory_xact_lock(hashtextextended(bound_to, 7264091264000003)); -- one request for one call
    moment := agentauthz.tick();
    SELECT * INTO known FROM agentauthz.approvals
        WHERE binding = bound_to AND status IN ('pending', 'approved') AND expires > moment ORDER BY number LIMIT 1;
    IF NOT FOUND THEN
        INSERT INTO agentauthz.approvals (id, binding, session, at, expires, request, status, answer)
            VALUES (new_id, bound_to, of_session, asked_at, ends, asked, state, answered) RETURNING * INTO known;
    END IF;
    RETURN agentauthz.shown(known);
END $$;

-- One that stays pending waits for more people; `known` is the answer that theirs is added to.
CREATE FUNCTION agentauthz.answer(of_id text, state text, answered text, known text) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    held agentauthz.approvals;
BEGIN
    IF state NOT IN ('pending', 'approved', 'rejected') THEN
        RAISE check_violation;
    END IF;
    SELECT * INTO held FROM agentauthz.approvals WHERE id = of_id FOR UPDATE;
    IF NOT FOUND OR held.status <> 'pending' OR held.expires <= agentauthz.tick()
        OR held.answer IS DISTINCT FROM known THEN
        RETURN 'false';
    END IF;
    UPDATE agentauthz.approvals SET status = state, answer = answered WHERE id = of_id;
    RETURN 'true';
END $$;

CREATE FUNCTION agentauthz.approval(of_id text) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT agentauthz.shown(one) FROM agentauthz.approvals AS one WHERE id = of_id
$$;

CREATE FUNCTION agentauthz.approvals(in_state text, bound_to text, of_session text) RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT coalesce(jsonb_agg(agentauthz.shown(one) ORDER BY number), '[]') FROM agentauthz.approvals AS one
    WHERE (in_state IS NULL OR status = in_state) AND (bound_to IS NULL OR binding = bound_to)
        AND (of_session IS NULL OR session = of_session)
$$;

-- ---- for operators

CREATE FUNCTION agentauthz.version() RETURNS jsonb
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_array(
    (SELECT number FROM agentauthz.version), current_setting('synchronous_commit'), pg_is_in_recovery()
)
$$;

CREATE FUNCTION agentauthz.show() RETURNS jsonb
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
SELECT jsonb_build_array(
    (SELECT number FROM agentauthz.version), agentauthz.peek(),
    (SELECT last_value FROM agentauthz.clock) - agentauthz.server_time(),
    (SELECT count(*) FROM agentauthz.sessions), (SELECT count(*) FROM agentauthz.budgets),
    (SELECT count(*) FROM agentauthz.approvals WHERE status = 'pending' AND expires > agentauthz.peek()),
    (SELECT count(*) FROM agentauthz.once), (SELECT count(*) FROM agentauthz.revocations)
)
$$;

-- Forget what can't matter any more, and of sessions, requests and reservations what ended before a moment. A session
-- counts as used when a budget of its own is.
CREATE FUNCTION agentauthz.prune(before bigint, named boolean) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment bigint := agentauthz.tick();
    sessions bigint;
    budgets bigint;
    approvals bigint;
    keys bigint;
BEGIN
    before := least(before, moment);
    DELETE FROM agentauthz.sessions AS old WHERE old.used_at < before AND (named OR NOT old.kept)
        AND NOT EXISTS (SELECT 1 FROM agentauthz.budgets AS own WHERE own.session = old.id AND own.used_at >= before)
        AND NOT EXISTS (SELECT 1 FROM agentauthz.approvals AS own WHERE own.session = old.id AND own.expires >= before);
    GET DIAGNOSTICS sessions = ROW_COUNT;
    DELETE FROM agentauthz.approvals WHERE expires < before;
    GET DIAGNOSTICS approvals = ROW_COUNT;
    DELETE FROM agentauthz.budgets AS old WHERE old.ends < moment OR old.numbers = '{}'
        OR (old.session <> '' AND old.used_at < before
            AND NOT EXISTS (SELECT 1 FROM agentauthz.sessions AS own WHERE own.id = old.session));
    GET DIAGNOSTICS budgets = ROW_COUNT;
    DELETE FROM agentauthz.reservations WHERE at < before;
    DELETE FROM agentauthz.once WHERE expires < moment;
    GET DIAGNOSTICS keys = ROW_COUNT;
    RETURN jsonb_build_array(sessions, budgets, approvals, keys);
END $$;
