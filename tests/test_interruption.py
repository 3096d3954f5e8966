import signal
import threading

import pytest
from cmcr.connection.interruption import held_back


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_obeyed_at_the_end(number):
    obeyed, done = [], []
    earlier = signal.signal(number, lambda *given: obeyed.append(given[0]))
    try:
        with held_back() as interruption:
            signal.raise_signal(number)
            done.append(interruption.asked)
            assert obeyed == []
        assert done == [number]
        assert obeyed == [number]
    finally:
        signal.signal(number, earlier)


def interrupted(times, **options):
    """Press Ctrl-C so often within the block; tells how often it was passed."""
    passed = []

    def work():
        with held_back(**options):
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
                passed.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return len(passed)


def test_ctrl_c_comes_after_the_block():
    assert interrupted(1) == 1


def test_a_second_ctrl_c_is_obeyed_at_once():
    assert interrupted(3) == 1


def test_a_launcher_may_repeat_itself():
    assert interrupted(3, however_often=True) == 3


def test_without_a_signal_nothing_happens():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with held_back() as interruption:
        assert interruption.asked is None
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_error_in_the_block_goes_through():
    with pytest.raises(ValueError, match="mine"), held_back():
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ignored_signals_stay_ignored():
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back() as interruption:
            signal.raise_signal(signal.SIGINT)
            assert interruption.asked is None
    finally:
        signal.signal(signal.SIGINT, earlier)


def test_in_another_thread_nothing_is_held_back():
    seen = []

    def work():
        with held_back() as interruption:
            seen.append(interruption.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]
