"""The machine: processes, signals, cores, disk, arguments. No machine learning.

    processes.py, slurm.py, arrays.py   several processes as one program, and their arrays
    interrupt.py                        signals that request a checkpoint
    cpu.py, target.py, compiled.py      cores, the device compiled for, compiled programs
    disk.py, cells.py, nested.py        files, cells of CSV files, nested dicts
    arguments.py, first_line.py         arguments of small programs, the first line of any
    bars.py, log_lines.py               progress bars, lines of the log
    made_once.py                        functions that JAX traces once
"""
