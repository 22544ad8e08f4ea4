"""Many runs from one command, or many processes for one run; here or on a SLURM cluster."""
