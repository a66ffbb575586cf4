"""What the commands about plans share: inputs, options, jobs, runs, sweeps."""
