"""The tasks of `myna eval`: one file a task, and a line in the table of commands/eval.py."""
