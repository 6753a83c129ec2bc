"""What a node remembers across restarts: the write-ahead log, snapshots, and whose directory it is.

``filesystem`` is the seam to the operating system, ``segments`` and ``records`` are the log's format,
``shape`` its invariants, ``recovery`` reads it, ``wal`` and ``segment_files`` write it,
``inspect`` shows it; ``snapshots`` keeps the state the log can be shortened by; ``identity`` guards the
directory.
"""
