"""Files as a user would have them. Importing them adds lines to the tables: no search for doctests may do that."""

collect_ignore = ["main.py", "momentum.py", "rotary.py"]
