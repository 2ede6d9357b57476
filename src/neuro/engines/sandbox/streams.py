"""The input and the output of a run's command: a terminal, or pipes."""

from __future__ import annotations

from collections.abc import Callable

from neuro.engines.sandbox import entering
from neuro.engines.sandbox.inlet import Inlet, PipeInlet
from neuro.engines.sandbox.launch import Request
from neuro.engines.sandbox.loop import Loop
from neuro.engines.sandbox.outlet import PipeOutlet, TerminalOutlet
from neuro.engines.sandbox.output import OutputLog
from neuro.engines.sandbox.reception import Reception


def open_streams(
    request: Request,
    first_process: int,
    loop: Loop,
    log: OutputLog,
    reception: Reception,
    over: Callable[[], None],
) -> PipeOutlet | TerminalOutlet:
    """What the command is connected to, which the reception knows too; ``over`` when all is read.

    A terminal is that of the namespaces of ``first_process``. Raises OSError.
    """
    towards = loop, log, reception.written, over
    inlet: Inlet | None = None
    outlet: PipeOutlet | TerminalOutlet
    if request.tty:
        outlet = TerminalOutlet(
            *towards,
            entering.open_terminal(first_process),
            keyboard=request.stdin,
            pause=reception.pause_senders,
            on_change=reception.input_changed,
        )
        inlet = outlet if request.stdin else None
    elif request.stdin and request.run == 0:
        # What was sent to the first run is not there to be sent to the next.
        inlet = PipeInlet(loop, reception.pause_senders, reception.input_changed)
        outlet = PipeOutlet(*towards, inlet.inner)
    else:
        outlet = PipeOutlet(*towards, None)
    reception.join(outlet, inlet)
    return outlet
