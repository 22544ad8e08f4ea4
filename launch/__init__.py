"""Many runs from one command: sweeps, on this machine or on a SLURM cluster."""
