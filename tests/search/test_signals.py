"""The first signal ends the work where it can be cut, at the next check elsewhere; handlers are put back."""

import os
import signal

import pytest

from nash_search.search.signals import Interrupted, Interruption


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_where_work_can_be_cut_the_first_signal_raises_with_the_shell_s_exit_code(number, code):
    before = signal.getsignal(number)
    interruption = Interruption()
    with pytest.raises(Interrupted) as raised, interruption.handled(), interruption.interruptible():
        os.kill(os.getpid(), number)
        pytest.fail("it raises at once")
    assert raised.value.exit_code == code and signal.getsignal(number) == before


def test_in_the_middle_of_a_commit_it_waits_for_the_next_check_and_raises_once():
    interruption, done = Interruption(), []
    with pytest.raises(Interrupted), interruption.handled(), interruption.interruptible():
        with interruption.shielded():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("the commit was finished")
        pytest.fail("the end of the shield is a check")
    assert done
    interruption.check()


def test_ray_s_plain_interrupt_after_a_signal_is_ours():
    interruption = Interruption()
    with pytest.raises(Interrupted) as raised, interruption.handled():
        os.kill(os.getpid(), signal.SIGTERM)
        raise KeyboardInterrupt
    assert raised.value.exit_code == 143
