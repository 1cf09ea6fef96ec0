"""A child starts, is waited for, comes back on its port, and never outlives its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from app.children import HOST, Child, reserve_port
from schemas.errors import Halt

ROOT = Path(__file__).parents[2]
_ECHO = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    client, _ = server.accept()
    client.sendall(b"here")
    client.close()
"""


class Greeter(Child):
    """The smallest server: says `here` to whoever connects."""

    name = "greeter"

    def command(self) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", _ECHO, str(self.port)]

    def ready(self) -> bool:
        return answers(self.port)


class Shell(Child):
    """A server that is not one."""

    name = "shell"
    start_timeout_seconds = 0.5
    script = "true"

    def command(self) -> list[str]:
        return ["/bin/sh", "-c", self.script]

    def ready(self) -> bool:
        return False


def answers(port: int, timeout_seconds: float = 1.0) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=timeout_seconds) as client:
            return client.recv(4) == b"here"
    except OSError:
        return False


def gone(pid: int, timeout_seconds: float = 5.0) -> bool:
    """Whether the process ends in time (a zombie has ended)."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_killed_server_comes_back_on_the_same_port(tmp_path: Path) -> None:
    with Greeter(tmp_path) as server:
        port, first = server.port, server.pid
        server.kill()
        assert not server.running
        assert not answers(port)
        server.restart()
        assert (server.port, answers(port)) == (port, True)
        assert server.pid != first
    assert not answers(port)


def test_a_server_that_is_down_still_keeps_its_port_from_others(tmp_path: Path) -> None:
    with Greeter(tmp_path) as server:
        server.kill()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, server.port))


def test_a_paused_server_answers_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    with Greeter(tmp_path) as server:
        server.pause()
        assert not answers(server.port, timeout_seconds=0.2)
        server.resume()
        assert answers(server.port)


def test_a_paused_server_can_be_stopped(tmp_path: Path) -> None:
    server = Greeter(tmp_path).start()
    pid = server.pid
    server.pause()
    server.stop()
    assert gone(pid, timeout_seconds=0) or not psutil.pid_exists(pid)


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    server = Shell(tmp_path)
    server.script = "echo of an earlier start"
    with pytest.raises(Halt):
        server.start()
    server.script = "echo no such option: --fast; exit 3"
    with pytest.raises(
        Halt, match=r"shell ended at once \(exit code 3\)(.|\n)*no such option: --fast"
    ) as halt:
        server.start()
    assert "earlier" not in str(halt.value)


def test_a_server_that_does_not_answer_is_stopped_and_reported(tmp_path: Path) -> None:
    server = Shell(tmp_path)
    server.script = "echo $$ > pid; echo waiting for a disk; exec sleep 60"
    with pytest.raises(Halt, match=r"did not answer on 127.0.0.1:\d+ within 0.5 s(.|\n)*waiting for a disk"):
        server.start()
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Halt, match=f"port {port} for greeter cannot be had"):
            Greeter(tmp_path, port=port).start()


def test_a_second_server_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    second = Greeter(tmp_path)
    second.lock_timeout_seconds = 0.1
    with Greeter(tmp_path) as first:
        with pytest.raises(Halt, match="another greeter runs in"):
            second.start()
        assert answers(first.port)
    with second:
        assert answers(second.port)


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    with Greeter(tmp_path) as server:
        restarting = threading.Thread(target=server.restart)
        restarting.start()
        restarting.join()
        time.sleep(0.2)
        assert server.running
        assert answers(server.port)


def orphan_after_kill(folder: Path, *, leash: str, pause: bool) -> int:
    """The pid of a server whose parent was killed with SIGKILL just now."""
    source = f"""
from pathlib import Path
from tests.app.test_children import Greeter
import signal, time
server = Greeter(Path({str(folder)!r}))
server.death_signal = {leash}
server.start()
{"server.pause()" if pause else ""}
print(server.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", source], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    return pid


@pytest.mark.parametrize(
    ("leash", "pause"), [("signal.SIGKILL", False), ("signal.SIGTERM", False), ("signal.SIGTERM", True)]
)
def test_no_orphan_is_left_when_the_parent_is_killed(tmp_path: Path, leash: str, pause: bool) -> None:
    assert gone(orphan_after_kill(tmp_path, leash=leash, pause=pause))


def test_without_the_leash_an_orphan_would_be_left(tmp_path: Path) -> None:
    pid = orphan_after_kill(tmp_path, leash="0", pause=False)
    try:
        assert not gone(pid, timeout_seconds=0.5)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_reserved_port_is_given_to_nobody_else() -> None:
    with reserve_port(0, "a") as held:
        ports = set()
        for _ in range(200):
            with socket.socket() as other:
                other.bind((HOST, 0))
                ports.add(other.getsockname()[1])
        assert held.getsockname()[1] not in ports
