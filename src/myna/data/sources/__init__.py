"""A name or a path becomes documents.

    corpora.py     the table of named corpora; names, addresses and paths to files
    local.py       files, folders and globs on this machine: what is taken, and what is left out
    hub.py         a dataset on the hub: which of its files to read
    fetch.py       remote files, fetched ahead of the work
    source.py      what is known of one file
    cut.py         a large file in parts that can be read by themselves
    formats.py     a file to texts: the table of formats, and text itself
    jsonl.py parquet.py web_archive.py pydoc.py pydoc_chat.py    the other formats
    reading.py     what each format needs: bytes, errors, counts; zstd.py and tar.py decompress, columns.py chooses
    row_filter.py  which rows are documents: --where; row_filter_syntax.py reads it, row_filter_arrow.py is for parquet
    documents.py   texts to documents: train or validation

`documents` is the way in for whoever wants texts; `prepare/` makes shards of them.
"""
