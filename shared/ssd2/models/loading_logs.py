"""What libraries print while they are imported or read a model: nothing that a user can act on."""

from __future__ import annotations

import logging


def quiet_torchao() -> None:
    """Keep what torchao prints as it is imported off the terminal.

    transformers imports it, where it is installed, as soon as a model is read. It then warns of each of its extensions
    that is for another Python or GPU, and torch of names that torchao registers; none of them concerns what is used.
    """
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
