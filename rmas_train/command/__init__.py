"""The command line: runs, sweeps, help, links."""
