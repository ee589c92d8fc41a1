"""What a training run would take past this machine: time, bytes and money, computed from stated assumptions.

assumptions.py   the numbers that a plan stands on, each with its source
memory.py        does the model fit a GPU; DDP or FSDP; the micro-batch
traffic.py       what the GPUs send each other in a step, and how much of it is waited for
run.py           all of it together, for a recipe on so many GPUs
table.py         the text that `myna plan` prints
"""
