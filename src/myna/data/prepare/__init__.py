"""Documents become shards: in parallel, resumable, and the same bytes every time.

files -> chunks -> worker processes -> encoded chunks -> shard writers, in order -> dataset.json

dataset.py        `prepare`: the call and the order of the work
record.py         dataset.json
share.py          which chunks one of several machines encodes
chunks.py         files to chunks, each one worker's turn
inputs.py         the corpus's files, held to their content
encode.py         one chunk to ids, in a worker
worker_pool.py    the worker processes, seen from the parent; worker.py is the program they run
assemble.py       encoded chunks to shards, in order; its state is the journal
shard_writer.py   ids to shard files
work_folder.py    DIR.partial: its lock, its journal, what is left behind by an error
parts.py join.py  what several machines made, and one dataset of it
from_shards.py    other projects' shards instead of documents
"""

from myna.data.prepare.dataset import prepare
from myna.data.prepare.share import Part

__all__ = ["Part", "prepare"]
