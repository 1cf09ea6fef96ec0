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

    `device` names a kind, of which each process takes one. What they cannot do is InvalidRecipe.
    """
    _refuse(recipe, processes, device)
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


def _refuse(recipe: Recipe, processes: int, device: str) -> None:
    """What only one process can do. Raises InvalidRecipe."""
    if ":" in device:
        raise InvalidRecipe(
            f"the device {device!r} is one GPU, and SIMSTREAM_TRAINING__PROCESSES is {processes}: set "
            "SIMSTREAM_TRAINING__DEVICE=cuda, and choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    alone = [repr(task.loss) for task in recipe.tasks if task.loss in HEADS]
    if recipe.pretrain != "none":
        alone.append("`pretrain`")
    if recipe.mini_batch is not None:  # not tried: a batch goes backwards in parts there
        alone.append("`mini_batch`")
    # A step of one process may be of another table than that of its neighbour, which would not answer.
    alone += ["`gather_across_devices`" for task in recipe.tasks if task.options.get("gather_across_devices")]
    if alone:
        raise InvalidRecipe(
            f"{', '.join(alone)} can be trained by one process only, and SIMSTREAM_TRAINING__PROCESSES is "
            f"{processes}: set it to 1 for this recipe"
        )


def _awaited(members: list[tuple[Connection, subprocess.Popen[bytes]]]) -> Trained:
    """What the first process says at the end."""
    first, died = members[0][0], None
    while True:
        # Whoever dies when the first one is through has done its part.
        if first.poll(_LOOK_SECONDS if died is None else _STOP_SECONDS):
            try:
                told = first.recv()
            except (EOFError, OSError):
                told = None  # it died
                died = died or (0, ended(members[0][1], _STOP_SECONDS))
            if isinstance(told, Exception):
                raise told
            if told is not None:
                found: Trained = told
                return found
        if died is not None:
            rank, code = died
            raise Halt(
                f"process {rank} of {len(members)} ended with code {code} (what it said is above): the run "
                "stands where its last checkpoint is, and goes on there when the trainer is started again"
            )
        codes = [(rank, child.poll()) for rank, (_, child) in enumerate(members)]
        died = next(((rank, code) for rank, code in codes if code), None)


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
    elif isinstance(found, Exception):
        raise found  # should the first one not have met it


def _trained(meeting: str, rank: int, *, device: str, **given: Any) -> Trained:
    import torch.distributed

    from model.precision import chosen_device
    from model.training import train

    kind = chosen_device(device).type
    processes = int(os.environ["WORLD_SIZE"])
    if kind == "cuda":
        if processes > torch.cuda.device_count():
            raise InvalidRecipe(
                f"SIMSTREAM_TRAINING__PROCESSES is {processes}, and this machine shows "
                f"{torch.cuda.device_count()} GPUs: each process takes one"
            )
        torch.cuda.set_device(rank)
    # A file instead of a port: there is nothing to find free, and nobody else can come.
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=f"file://{meeting}/all",
        rank=rank,
        world_size=processes,
    )
    found = train(device=kind, **given)
    torch.distributed.destroy_process_group()
    return found


if __name__ == "__main__":
    try:
        _main()
    except (EOFError, OSError):
        os._exit(1)  # the parent has gone
