"""Many runs from one command, or many processes for one run; locally or on a SLURM cluster."""
