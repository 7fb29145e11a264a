"""The commands of the command line that are more than one call, and what all commands share."""
