"""Scores predictions of any framework: `python -m unlearn_jax.score DIR --out=DIR2`.

    files.py    reads files of predictions, .npz, .npy and .csv
    folder.py   puts them together by forget set, checked against each other
    records.py  from those to the files of a work directory
"""
