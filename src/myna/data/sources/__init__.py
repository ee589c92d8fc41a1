"""A name or a path becomes documents.

    corpora.py     the table of named corpora; names, addresses and paths to files
    local.py       files, folders and globs on this machine: what is taken, and what is left out
    hub.py         a dataset on the hub: which of its files to read
    fetch.py       remote files, fetched ahead of the work
    source.py      what is known of one file
    cut.py         a large file in parts that can be read by themselves
    formats.py     a file to texts: text, JSONL, parquet; zstd.py and pydoc.py help it
    documents.py   texts to documents: train or validation

`documents` is the way in for whoever wants texts; `prepare/` makes shards of them.
"""
