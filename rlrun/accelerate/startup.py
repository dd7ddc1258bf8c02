"""What torch does at the start and need not."""

from __future__ import annotations

import sys

from torch.optim import Optimizer


def leave_compiler_out() -> None:
    """Keep the first optimiser from importing torch's compiler, which takes a second.

    Four methods of optimisers are wrapped so that ``torch.compile`` leaves them alone; the wrapper imports the compiler
    when it is first called, to ask it for that. It first looks for an earlier answer, and here that is the method
    itself. Where the compiler is imported already, nothing is changed.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in ("add_param_group", "state_dict", "load_state_dict", "zero_grad"):
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and not hasattr(method, "__dynamo_disable"):
            setattr(method, "__dynamo_disable", method)
