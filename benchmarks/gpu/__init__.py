"""What `scripts/gpu` runs: parts that each measure one thing on a GPU, in a process of their own.

    command.py    the flags, and what ends the call before anything runs
    machine.py    whether there is a GPU, and which packages are missing
    part.py       what a part is
    parts.py      the parts, in the order in which they run
    run.py        one part: its process, its time limit, its record
    results.py    results.jsonl, which makes a call resumable
    sections.py   which figures of a part's value stand in which column
    report.py     results.md
    measure_*.py  the processes of parts for which `myna` has no command

A new measurement is a line in parts.py and its columns in sections.py.
"""
