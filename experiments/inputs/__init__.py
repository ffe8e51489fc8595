"""What the command line names: commands, problems, user files; one check."""
