import signal
import threading

import pytest

from cmcr.interruption import held_back


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_and_obeyed_at_the_end(number):
    obeyed = []
    earlier = signal.signal(number, lambda *given: obeyed.append(given[0]))
    try:
        with held_back() as came:
            assert came == []
            signal.raise_signal(number)
            assert came == [number]
            assert obeyed == []
        assert obeyed == [number]
    finally:
        signal.signal(number, earlier)


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_comes_after_the_block_and_a_second_one_at_once(times):
    passed = []

    def work():
        with held_back():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
                passed.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(passed) == 1


def test_without_a_signal_nothing_happens_and_an_error_goes_through():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="mine"), held_back():
        raise ValueError("mine")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_signals_that_are_ignored_and_other_threads_are_left_alone():
    seen = []

    def work():
        with held_back() as came:
            if threading.current_thread() is threading.main_thread():
                signal.raise_signal(signal.SIGINT)
            seen.append((list(came), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    earlier = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work()
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert seen == [([], earlier), ([], signal.SIG_IGN)]
