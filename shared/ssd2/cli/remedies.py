"""Remedies in the terms of `ssd2`: options and commands, by the code and the parameter of an error."""

from __future__ import annotations

from ssd2.errors import ANY, Remedies, SlingshotError, with_remedies

REMEDIES: Remedies = {
    (ANY, "against"): "--against",
    (ANY, "answers"): "--answers FILE",
    (ANY, "baseline"): "--bertscore-baseline FILE",
    (ANY, "between"): "--between ROW ROW",
    (ANY, "by"): "--by FIELD",
    (ANY, "device"): "--device",
    (ANY, "encoder"): "--bertscore ENCODER",
    (ANY, "endpoint"): "--endpoint URL --model NAME",
    (ANY, "key_env"): "--key-env VARIABLE",
    (ANY, "out"): "--out FOLDER",
    (ANY, "kinds"): "--kinds",
    (ANY, "layer"): "--bertscore-layer N",
    (ANY, "passages"): "--passages FILE",
    (ANY, "port"): "--port N",
    (ANY, "rater"): "--rater NAME",
    (ANY, "sharding"): "torchrun --nproc-per-node N -m ssd2 train …",
    (ANY, "start"): "--start FOLDER; `ssd2 convert` makes one from OPT",
    (ANY, "system"): "--system ROW",
    (ANY, "to"): "--to FOLDER",
}


def with_remedy(error: SlingshotError) -> str:
    """Return the text of an error with the option or the command that mends it, if there is one."""
    return with_remedies(error, REMEDIES)
