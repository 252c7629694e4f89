"""Signals that end a process which holds a GPU: at any moment, and nothing stays set."""

from __future__ import annotations

import contextlib
import random
import signal
import time

import pytest

from ciq_ray.gpu.clocks import Changer
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.hold import Clocks, hold
from ciq_ray.gpu.signals import Endings

pytestmark = pytest.mark.usefixtures("default_handlers")

ALL = Clocks(1410, 1593, 500)

RESTLESS = """
from ciq_ray.gpu.devices import devices
from ciq_ray.gpu.hold import Clocks, hold
device = devices()[0]
print("up", flush=True)
while True:
    with hold(device, Clocks(1410, 1593, 500), say=print):
        pass
"""


class TestEndings:
    def test_what_must_not_be_interrupted_is_finished_first(self):
        before = signal.getsignal(signal.SIGTERM)
        steps = []

        def work(endings):
            with endings.deferred():
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)
                steps.append("finished")
            steps.append("not reached")

        with pytest.raises(SystemExit) as caught, Endings() as endings:
            work(endings)
        assert caught.value.code == 143
        assert steps == ["finished"]
        assert signal.getsignal(signal.SIGTERM) == before

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
    def test_handlers_of_others_are_called_and_put_back(self, number):
        got = []

        def handler(number, frame):
            got.append(number)

        before = signal.signal(number, handler)
        try:
            with Endings():
                signal.raise_signal(number)
                assert got == [number]
            assert signal.getsignal(number) is handler
        finally:
            signal.signal(number, before)

    def test_an_interrupt_that_nobody_handles_raises_too(self):
        before = signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            with pytest.raises(SystemExit) as caught, Endings():
                signal.raise_signal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, before)
        assert caught.value.code == 130

    def test_what_somebody_installs_within_stays(self):
        def handler(number, frame):
            pass

        with Endings():
            signal.signal(signal.SIGTERM, handler)
        assert signal.getsignal(signal.SIGTERM) is handler

    def test_what_is_ignored_stays_ignored(self):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Endings():
            signal.raise_signal(signal.SIGHUP)

    def test_one_in_another(self):
        steps = []

        def work():
            with Endings():
                try:
                    with Endings() as inner:
                        inner.deferring = True
                        signal.raise_signal(signal.SIGTERM)
                        steps.append("inner")
                    steps.append("not reached")
                finally:
                    steps.append("outer")

        with pytest.raises(SystemExit):
            work()
        assert steps == ["inner", "outer"]


class TestHolder:
    def test_one_that_comes_while_a_change_is_made(self, fake_nvml, monkeypatch):
        # of sudo nvidia-smi nobody could say any more whether it sets a clock after all
        machine = fake_nvml(limit_mw=650000)
        apply = Changer.apply

        def interrupted(self, change):
            signal.raise_signal(signal.SIGTERM)
            apply(self, change)

        monkeypatch.setattr(Changer, "apply", interrupted)
        with pytest.raises(SystemExit):
            hold(devices()[0], ALL).__enter__()
        assert machine[0].changes[0] == "core 1410 1410"
        assert machine.is_untouched()

    def test_at_any_moment(self, fake_nvml, scripts):
        """Two of them, as by Ctrl-C and a driver that ends its workers; nothing stays behind."""
        machine = fake_nvml(limit_mw=650000)
        script = scripts.write(RESTLESS)
        rng = random.Random(0)
        for _ in range(5):
            process = scripts.start(script)
            assert process.stdout.readline() == "up\n", process.stderr.read()
            time.sleep(rng.uniform(0, 0.03))
            for _ in range(2):
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(rng.choice([signal.SIGTERM, signal.SIGINT]))
                time.sleep(rng.uniform(0, 0.003))
            process.communicate(timeout=60)
            assert machine.is_untouched()
            assert not list(machine.states.glob(".*"))

    def test_an_interrupt_during_the_undoing(self, fake_nvml, monkeypatch):
        machine = fake_nvml(limit_mw=650000)
        undo = Changer.undo

        def interrupted(self, *arguments):
            signal.raise_signal(signal.SIGINT)
            undo(self, *arguments)

        monkeypatch.setattr(Changer, "undo", interrupted)
        with pytest.raises(KeyboardInterrupt), hold(devices()[0], ALL):
            pass
        assert machine.is_untouched()
