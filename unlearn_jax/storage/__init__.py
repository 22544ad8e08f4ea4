"""Finished stages and checkpoints on the disk, each with its digest.

    store.py        stages by the hash of all that determines them
    checkpoints.py  trees of arrays, through Orbax
    metadata.py     the description beside a checkpoint's arrays
    manifest.py     the files of a work directory
"""
