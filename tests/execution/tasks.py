"""What the tests have workers do. Workers import this file, so it stays light."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 30.0


class AwkwardError(Exception):
    """Pickles, but does not come back: its arguments are not what its constructor takes."""

    def __init__(self, code, reason):
        super().__init__(f"{reason} ({code})")


class Unreadable:
    """Pickles, but can't be read back."""

    def __reduce__(self):
        return int, ("not a number",)


def square(number):
    return number * number


def halve(number):
    """Fails for odd numbers, and says so."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def napping_square(number, seconds):
    time.sleep(seconds)
    return number * number


def process_id(*_):
    return os.getpid()


def numbered_process_id(number, seconds):
    time.sleep(seconds)
    return number, os.getpid()


def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    time.sleep(PATIENCE)


def die_the_first_time(folder, number):
    """Kills its process unless it has done so before."""
    mark = Path(folder) / str(number)
    if not mark.exists():
        mark.touch()
        die()
    return number


def hang_the_first_time(folder, number):
    mark = Path(folder) / str(number)
    if not mark.exists():
        mark.touch()
        time.sleep(PATIENCE)
    return number


def announce_and_hang(folder):
    """Leaves a file named after its process, then sleeps."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(PATIENCE)


def meet(folder, me, other):
    """Returns when another task does the same at the same time; two tasks that take turns can't."""
    Path(folder, me).touch()
    return wait_until(Path(folder, other).exists)


def raise_awkward():
    raise AwkwardError(3, "no reason")


def return_function():
    return lambda: None


def return_unreadable():
    return Unreadable()


def print_much():
    sys.stdout.write("x" * 100_000)
    os.write(1, b"from below Python\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return sys.stdin.read()


def length(data):
    return len(data), data[::-1]


def environment(name):
    return os.environ.get(name)


def start_child_and_hang(folder):
    child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({PATIENCE})"])
    Path(folder, str(child.pid)).touch()
    time.sleep(PATIENCE)


def fork_and_die():
    """Dies with a child that holds all its pipes open."""
    if os.fork() == 0:
        time.sleep(PATIENCE)
        os._exit(0)
    die()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def alive(process):
    """Whether a process runs; one that has ended and waits to be noticed by its parent does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        threads = len(os.listdir(f"/proc/{process}/task"))
    except OSError:
        return sys.platform != "linux"
    return state != "Z" or threads > 1
