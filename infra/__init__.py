"""Where it runs: commits, runners (in-process, Ray), the command line."""
