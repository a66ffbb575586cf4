"""What the commands about operators share: requests, options, jobs by kind of machine."""
