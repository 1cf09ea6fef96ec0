"""One run of training by several processes of this machine, one for each GPU, with a batch each.

Reads   what model/training.py reads; each process gets the examples from its parent
Writes  what model/training.py writes, by the first process alone
Never   holds a lease, archives, mines or judges: the parent does, once
Never   leaves a process behind: each ends with its connection, and all of them with the first that fails

The process group is torch's own; the library's trainer (accelerate below it) spreads batches over it and
averages gradients. A step learns from a batch of each process: with twice as many, a run has half the steps.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from adapters.child import end_with, ended, parent_connection, start_child
from model.recipe import HEADS, InvalidRecipe, Recipe
from model.settings import UnusableModel
from schemas.errors import Halt

if TYPE_CHECKING:
    from model.training import Trained

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_STOP_SECONDS = 10.0


def train_together(*, processes: int, recipe: Recipe, device: str, **given: Any) -> Trained:
    """As `model.training.train`, by so many processes. Raises what that raises, and Halt where one dies.

    `device` names a kind, of which each process takes one. A recipe with heads, `pretrain` or `mini_batch` is
    refused.
    """
    _refuse(recipe, processes)
    with ExitStack() as opened:
        meeting = opened.enter_context(tempfile.TemporaryDirectory(prefix="simstream-training-"))
        members: list[tuple[Connection, subprocess.Popen[bytes]]] = []
        for rank in range(processes):
            ours, theirs = socket.socketpair()
            child = start_child(
                __name__,
                theirs,
                environment={
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(processes),
                    "LOCAL_WORLD_SIZE": str(processes),
                    # gloo would go by the name of the host, which need not be in any table.
                    **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
                },
            )
            connection = Connection(ours.detach())
            opened.callback(_end, connection, child)
            members.append((connection, child))
        for connection, _ in members:
            with suppress(OSError):  # it has died already, which is noticed next
                connection.send(
                    (meeting, log.getEffectiveLevel(), {**given, "recipe": recipe, "device": device})
                )
        return _awaited(members)


def _refuse(recipe: Recipe, processes: int) -> None:
    """What only one process can do. Raises InvalidRecipe."""
    alone = [repr(task.loss) for task in recipe.tasks if task.loss in HEADS]
    if recipe.pretrain != "none":
        alone.append("`pretrain`")
    if recipe.mini_batch is not None:
        # Its passes backwards are as many as a batch has parts, and processes would wait for each other.
        alone.append("`mini_batch`")
    if alone:
        raise InvalidRecipe(
            f"{', '.join(alone)} can be trained by one process only, and SIMSTREAM_TRAINING__PROCESSES is "
            f"{processes}: set it to 1 for this recipe"
        )


def _awaited(members: list[tuple[Connection, subprocess.Popen[bytes]]]) -> Trained:
    """What the first process says at the end."""
    first = members[0][0]
    while True:
        if first.poll(_LOOK_SECONDS):
            try:
                told = first.recv()
            except EOFError:
                told = None  # it died: its exit code says how
            if told is not None:
                if isinstance(told, Exception):
                    raise told
                found: Trained = told
                return found
        for rank, (_, child) in enumerate(members):
            code = child.poll()
            if code:
                raise Halt(
                    f"process {rank} of {len(members)} ended with code {code}: the run stands where its last "
                    "checkpoint is, and goes on from there when the trainer is started again"
                )


def _end(connection: Connection, child: subprocess.Popen[bytes]) -> None:
    connection.close()  # it ends by that, wherever it is
    ended(child, _STOP_SECONDS)


# --- a process ---------------------------------------------------------------------------------------


def _main() -> None:
    connection = parent_connection()
    meeting, level, given = connection.recv()
    end_with(connection)
    rank = int(os.environ["RANK"])
    # What one of them says is enough.
    logging.basicConfig(level=level if rank == 0 else logging.ERROR)
    try:
        found: Trained | Exception = _trained(meeting, rank, **given)
    except (ValueError, UnusableModel) as error:
        # About the recipe or the model, so it is the same in every process.
        found = error
    if rank == 0:
        connection.send(found)


def _trained(meeting: str, rank: int, *, device: str, **given: Any) -> Trained:
    import torch.distributed

    from model.precision import chosen_device
    from model.training import train

    kind = chosen_device(device.partition(":")[0]).type
    if kind == "cuda":
        torch.cuda.set_device(rank)
    # A file instead of a port: there is nothing to find free, and nobody else can come.
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=f"file://{meeting}/all",
        rank=rank,
        world_size=int(os.environ["WORLD_SIZE"]),
    )
    try:
        return train(device=kind, **given)
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        _main()
    except (EOFError, OSError):
        os._exit(1)  # the parent has gone
