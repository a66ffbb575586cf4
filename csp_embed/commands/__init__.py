"""One file per group of subcommands; each has `register(app)`."""
