"""Holding and draining managers and blocks by order of the client; saying how busy they are, and where a task is."""

from __future__ import annotations

from flow_executors.interchange.desk import Desk
from flow_executors.interchange.liveness import Liveness
from flow_executors.interchange.pool import Manager
from flow_executors.interchange.whereabouts import whereabouts
from flow_executors.wire.control import DrainMode
from flow_executors.wire.frames import BlockActivity, Command, Reply, pack_drain, pack_reply


class Drains:
    """Carries out the client's orders about managers, and answers its questions."""

    __slots__ = ("_desk", "_liveness")

    def __init__(self, desk: Desk, liveness: Liveness) -> None:
        self._desk = desk
        self._liveness = liveness

    def command(self, command: Command, now: float) -> None:
        """Carry out one order, or answer one question, and reply."""
        orders = {"hold": self._hold, "release": self._release, "drain": self._drain}
        if command.name == "why":
            key = command.key if command.key is not None else 0
            place = whereabouts(self._desk, self._liveness, key, now)
            self._desk.up.append(pack_reply(Reply(command.number, whereabouts=place)))
            return
        error, chosen = "", self._meant(command)
        if command.name in orders:
            chosen = orders[command.name](command, chosen, now)
        elif command.name != "blocks":
            error, chosen = f"unknown command {command.name!r}", []
        self._desk.up.append(pack_reply(Reply(command.number, self._activity(chosen, now), error)))

    def _meant(self, command: Command) -> list[Manager]:
        managers = list(self._desk.pool.by_number.values())
        if not (command.blocks or command.managers):
            return managers if command.name == "blocks" else []
        blocks, names = set(command.blocks), set(command.managers)
        return [m for m in managers if m.offer.block in blocks or m.offer.manager_id in names]

    def _hold(self, command: Command, chosen: list[Manager], now: float) -> list[Manager]:
        for manager in chosen:
            manager.held = True
            self._send(manager, DrainMode.HOLD)
        return chosen

    def _release(self, command: Command, chosen: list[Manager], now: float) -> list[Manager]:
        for manager in chosen:
            if not manager.draining:
                manager.held = False
                self._send(manager, DrainMode.RELEASE)
        return chosen

    def _drain(self, command: Command, chosen: list[Manager], now: float) -> list[Manager]:
        """Drain; with ``idle_for_s`` only those blocks of which every manager has been idle for so long."""
        if command.idle_for_s is not None:
            busy = {m.offer.block for m in chosen if _idle_for(m, now) < command.idle_for_s or m.outstanding}
            chosen = [manager for manager in chosen if manager.offer.block not in busy]
        for manager in chosen:
            manager.draining = True
            self._send(manager, DrainMode.DRAIN)
        return chosen

    def _send(self, manager: Manager, mode: DrainMode) -> None:
        self._desk.send(manager, pack_drain(mode))
        self._desk.pool.settle(manager)

    def _activity(self, chosen: list[Manager], now: float) -> tuple[BlockActivity, ...]:
        blocks: dict[str, list[Manager]] = {}
        for manager in chosen:
            blocks.setdefault(manager.offer.block, []).append(manager)
        return tuple(_summary(block, managers, now) for block, managers in blocks.items())


def _summary(block: str, managers: list[Manager], now: float) -> BlockActivity:
    return BlockActivity(
        block,
        tuple(manager.offer.manager_id for manager in managers),
        tuple(manager.offer.node for manager in managers),
        sum(manager.slots for manager in managers),
        sum(manager.outstanding for manager in managers),
        min(_idle_for(manager, now) for manager in managers),
        any(manager.held or manager.draining for manager in managers),
    )


def _idle_for(manager: Manager, now: float) -> float:
    return 0.0 if manager.idle_since is None else max(0.0, now - manager.idle_since)
