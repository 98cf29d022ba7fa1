import os

from mimigenrec.environment.worker import DIED, in_worker


def test_a_call_that_kills_python_or_raises_leaves_the_others_whole(capfd):
    calls = [(int, ("3",)), (os._exit, (1,)), (int, ("three",)), (print, ("noise",)), (os.getpid, ())]
    *found, (process, _) = in_worker(calls)
    wrong = "ValueError: invalid literal for int() with base 10: 'three'"
    assert found == [(3, None), (None, DIED), (None, wrong), (None, None)]
    assert process != os.getpid() and "noise" not in capfd.readouterr().out
