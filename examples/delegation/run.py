"""Let an agent pay Alice's invoice over four processes, and see what becomes of attacks on the way.

python run.py [--records DIR]
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

import httpx
import orchestrator
import payments
import sub_agent
import token_service
from attacks import Attacker, login
from world import World, begin, listen, set_up, tell_answer

from agentauthz.records import DecisionRecord, read_record

Service = Callable[[World, socket.socket, Barrier], None]

SERVICES: Final = (token_service, payments, sub_agent, orchestrator)


@contextmanager
def running(folder: Path, kept: Path | None) -> Iterator[World]:
    """Run the services, each in a process of its own, at ports that are free; end them in any case."""
    set_up(folder)
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(len(SERVICES) + 1)
    listeners = {service.NAME: listen() for service in SERVICES}
    addresses = {name: f"http://127.0.0.1:{one.getsockname()[1]}" for name, one in listeners.items()}
    world = World(folder, kept or folder / "records", addresses)
    processes = [
        context.Process(target=run, args=(service.main, world, listeners[service.NAME], ready), daemon=True)
        for service in SERVICES
    ]
    try:
        for process in processes:
            process.start()
        for listener in listeners.values():
            listener.close()  # the processes have their own handles on them
        begin(ready)
        yield world
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(10)
            process.kill()


def run(main: Service, world: World, listener: socket.socket, ready: Barrier) -> None:
    """Run a service in this process; the others don't wait for one that can't begin."""
    try:
        main(world, listener, ready)
    except BaseException:
        ready.abort()
        raise


def last_decision(world: World, name: str) -> DecisionRecord:
    """Return what a service recorded last, from its file."""
    *_, file = sorted(world.records(name).glob("*/*.ndjson"))
    *_, record = (one for one in map(read_record, file.read_bytes().splitlines()) if isinstance(one, DecisionRecord))
    return record


def headline(text: str) -> None:
    """Print what comes next."""
    print(f"\n{textwrap.fill(text, 100)}\n", flush=True)


def story(world: World) -> None:
    """Pay an invoice, then attack."""
    alice = login(
        world, "alice", "orchestrator", client_id="bank-app", scope="invoices.read payments.read payments.send"
    )
    headline("ALICE HAS THE ORCHESTRATOR PAY AN INVOICE")
    answer = httpx.post(
        world.addresses["orchestrator"],
        json={"invoice": "2031"},
        headers={"Authorization": f"Bearer {alice}"},
        timeout=30,
        trust_env=False,
    )
    tell_answer(answer.status_code, answer.text)
    answer.raise_for_status()

    headline("WHAT THE RECORD OF THE PAYMENTS SERVICE SAYS")
    record = last_decision(world, "payments")
    for party in record.actors:
        print(f"  {party.kind:<14} {party.sub}, by {party.iss}")
    for hop in record.chain:
        print(f"  passed on      to {hop.to}, verified by {hop.via}: {' '.join(hop.actions)}")
    print(f"  {record.outcome:<14} {record.action.name} {record.action.args}, by rule {' '.join(record.rules)}")

    headline("SOMEBODY TAKES OVER BOTH AGENTS WHILE THEY WORK FOR ALICE")
    attacker = Attacker(world, alice)
    for attack in (
        attacker.other_client,
        attacker.other_audience,
        attacker.other_key,
        attacker.spliced_actor,
        attacker.wider_scope,
        attacker.revoked_parent,
    ):
        headline(f"{attack.__name__.replace('_', ' ').upper()}: {attack.__doc__}")
        attack()


def main() -> None:
    """Run the services in a folder that is gone afterwards, unless `--records` names one to keep."""
    parser = argparse.ArgumentParser(description="Let agents pay an invoice over four processes, then attack them.")
    parser.add_argument("--records", type=Path, metavar="DIR", help="keep the records in this folder")
    kept: Path | None = parser.parse_args().records
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), kept) as world:
        story(world)


if __name__ == "__main__":
    main()
