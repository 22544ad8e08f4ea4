"""Scores predictions of any framework: `python -m unlearn_jax.score DIR --out=DIR2`.

    files.py    reads files of predictions, .npz, .npy and .csv
    folder.py   groups them by forget set and checks them against each other
    records.py  writes the files of a work directory from them
"""
