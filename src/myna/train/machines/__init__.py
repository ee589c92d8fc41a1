"""The machines of a run: ranks and how they find and watch each other, memory, speed."""
