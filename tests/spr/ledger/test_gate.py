"""Many together or one alone."""

from __future__ import annotations

import threading
import time

from spr.ledger.gate import Gate


def test_alone_waits_for_those_inside_and_goes_before_those_who_come_later() -> None:
    gate, order = Gate(), []
    inside, leave, waiting = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with gate.together():
            inside.set()
            leave.wait(10)
            order.append("first leaves")

    def alone() -> None:
        waiting.set()
        with gate.alone():
            order.append("alone")

    def second() -> None:
        with gate.together():
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=alone), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    assert waiting.wait(10)
    for _ in range(1000):
        if gate._waiting:
            break
        time.sleep(0.01)
    threads[2].start()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == ["first leaves", "alone", "second"]


def test_gate_opens_again_after_an_error() -> None:
    gate = Gate()
    for enter in (gate.together, gate.alone):
        try:
            with enter():
                raise KeyError
        except KeyError:
            pass
    with gate.alone():
        pass
    with gate.together(), gate.together():
        pass
